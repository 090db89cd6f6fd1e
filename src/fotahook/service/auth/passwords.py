"""Users' passwords, stored as argon2id hashes.

Hashes are computed one at a time, in a thread: logins use the memory of one hash, and do not block other calls.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PasswordCost:
    """The cost of one hash; the defaults are OWASP's minimum for argon2id (Password Storage Cheat Sheet)."""

    memory_kib: int = 19 * 1024
    passes: int = 2
    lanes: int = 1


COST: Final = PasswordCost()


class Passwords:
    """Hashes and verifies passwords."""

    def __init__(self, cost: PasswordCost = COST) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        # Not a lock: it would be released when its holder is cancelled, while the thread still works.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fotahook-passwords")

    async def hash(self, password: str) -> bytes:
        """The hash to store."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)).encode())

    async def verify(self, stored: bytes | None, password: str) -> bool:
        """Whether the password matches. `stored` is None for an unknown user, which takes the same time."""
        if stored is None:
            await self.hash(password)
            return False
        return await self._run(lambda: self._verify(stored, password))

    def is_outdated(self, stored: bytes) -> bool:
        """Whether the hash was made at another cost."""
        return self._hasher.check_needs_rehash(stored.decode())

    def _verify(self, stored: bytes, password: str) -> bool:
        with contextlib.suppress(VerificationError, InvalidHashError):
            return self._hasher.verify(stored, _bytes(password))
        return False

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def new_password() -> str:
    """A random password."""
    return secrets.token_urlsafe(18)


def _bytes(password: str) -> bytes:
    # Any text may be sent as a password, even half a surrogate pair: it is wrong, never an error.
    return password.encode("utf-8", "surrogatepass")
