"""Refused logins in the audit log: one entry a minute for each address, with counts, however many there are."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from ..contract.addresses import address_key
from ..store.base import Clock, Store
from ..store.records import AuditEntry, StoreError

logger = logging.getLogger(__name__)

ENTRY_SECONDS: Final = 60.0
WRITE_SECONDS: Final = 1.0
"""Between two writes, which a stranger can cause."""
MAX_ADDRESSES: Final = 100
"""Addresses with an entry of their own; further ones share one."""


@dataclass(eq=False)
class _Refused:
    entry: AuditEntry
    began: float
    counts: Counter[str] = field(default_factory=Counter)


class RefusedLogins:
    """Counts refused logins, and writes the counts in a task of its own. For one event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._current: dict[str, _Refused] = {}
        self._unwritten: list[_Refused] = []
        self._writing: asyncio.Task[None] | None = None

    def count(
        self, why: Literal["wrong", "locked", "network"], address: str, actor: str = "", subject: str = ""
    ) -> None:
        """Count a refused login. `actor` and `subject`: the client and the user or client, as far as they are known.

        What a stranger sent as a name is not written down: it may be a secret.
        """
        now, key = self._clock(), address_key(address)
        current = {name: one for name, one in self._current.items() if one.began <= now < one.began + ENTRY_SECONDS}
        if key not in current and len(current) >= MAX_ADDRESSES:
            key = address = "others"
        if key not in current:
            entry = AuditEntry(actor=actor, address=address, action="login.refused", subject=subject)
            current[key] = _Refused(entry, now)
        self._current, refused = current, current[key]
        refused.counts[why] += 1
        if refused not in self._unwritten:
            self._unwritten.append(refused)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="refused logins")

    async def _write(self) -> None:
        try:
            while self._unwritten:
                writing, self._unwritten = self._unwritten, []
                for one in writing:
                    detail = " ".join(f"{why}={count}" for why, count in one.counts.items())
                    one.entry = msgspec.structs.replace(one.entry, detail=detail)
                try:
                    numbers = await self._store.write_audit([one.entry for one in writing])
                except StoreError as error:
                    logger.warning("refused logins are not in the audit log yet: %s", error)
                    self._unwritten = writing + [one for one in self._unwritten if one not in writing]
                else:
                    for one, number in zip(writing, numbers, strict=True):
                        one.entry = msgspec.structs.replace(one.entry, number=number)
                await asyncio.sleep(WRITE_SECONDS)
        finally:
            self._writing = None
