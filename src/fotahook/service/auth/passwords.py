"""Passwords of users, kept as argon2id hashes.

Ours are generated, and nobody could guess one by its hash; but an operator may hand out what people choose, and then
only a slow hash that takes memory protects it. One is worked out at a time, in a thread: logins never take more memory
than one, and other calls do not wait for them.
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
    """What one guess costs; the defaults are OWASP's least for argon2id (Password Storage Cheat Sheet)."""

    memory_kib: int = 19 * 1024
    passes: int = 2
    lanes: int = 1


COST: Final = PasswordCost()


class Passwords:
    """Hashes and checks passwords at a cost."""

    def __init__(self, cost: PasswordCost = COST) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        # A lock would be let go of when its holder is cancelled, while the work went on.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fotahook-passwords")

    async def hash(self, password: str) -> bytes:
        """What is stored of a password."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)).encode())

    async def prove(self, known: bytes | None, password: str) -> bool:
        """Whether this is the password; `known` None, for a user who does not exist, takes the same time."""
        if known is None:
            await self.hash(password)
            return False
        return await self._run(lambda: self._verify(known, password))

    def is_outdated(self, known: bytes) -> bool:
        """Whether the hash was made at another cost."""
        return self._hasher.check_needs_rehash(known.decode())

    def _verify(self, known: bytes, password: str) -> bool:
        with contextlib.suppress(VerificationError, InvalidHashError):
            return self._hasher.verify(known, _bytes(password))
        return False

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def new_password() -> str:
    """A password nobody could guess."""
    return secrets.token_urlsafe(18)


def _bytes(password: str) -> bytes:
    # Whatever a caller may send in its place: it is only wrong, never an error.
    return password.encode("utf-8", "surrogatepass")
