"""The verbs of a store about credentials and the audit log, alike on every engine."""

import copy
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Self, TypeVar

import msgspec

from . import records
from .rows import read
from .session import NEWEST, Engine, Session

T = TypeVar("T")


class AccessVerbs(Engine):
    """Base of the stores, for who may do what, and who did."""

    def __init__(self) -> None:
        super().__init__()
        self._audit: records.AuditEntry | None = None

    def audited(self, entry: records.AuditEntry) -> Self:
        """This store, whose next write records the entry in the audit log, in the same transaction."""
        view = copy.copy(self)
        view._audit = entry
        return view

    async def _change(self, job: Callable[[Session], Awaitable[T]]) -> T:
        """As ``_write``, with the audit entry of this view unless nothing was changed."""

        async def audited(db: Session) -> T:
            result = await job(db)
            refused = isinstance(result, records.Redelivery) and result.refused is not None
            if self._audit is not None and result is not False and not refused:
                await db.rows("add_audit", **msgspec.structs.asdict(self._audit))
            return result

        return await self._write(audited)

    async def write_audit(self, entries: Sequence[records.AuditEntry]) -> list[int]:
        """Add entries to the audit log, or amend the detail of those that have a number; the number of each."""

        async def job(db: Session) -> list[int]:
            numbers = []
            for entry in entries:
                if entry.number:
                    await db.rows("amend_audit", number=entry.number, detail=entry.detail)
                numbers.append(entry.number or await db.value("add_audit", **msgspec.structs.asdict(entry)))
            return numbers

        return await self._write(job)

    async def audit(
        self, *, among: Collection[str] | None = None, before: int | None = None, limit: int
    ) -> list[records.AuditEntry]:
        """The audit log, newest first, below a number; `among` restricts it to entries about these accounts."""
        before = NEWEST if before is None else before
        return await self._list(records.AuditEntry, "audit", among=among, before=before, limit=limit)

    async def save_credential(self, credential: records.Credential) -> None:
        """Insert a credential, or replace the one of its kind and id."""

        async def job(db: Session) -> None:
            await db.rows("drop_expired_credentials", kind=credential.kind)
            await db.rows("save_credential", **msgspec.structs.asdict(credential))

        await self._change(job)

    async def replace_credential(self, old: records.Credential, new: records.Credential) -> bool:
        """Replace `old` by `new`, of the same kind and id; False, writing nothing, if `old` is not what is stored."""

        async def job(db: Session) -> bool:
            found = await db.row("lock_credential", kind=old.kind, id=old.id)
            if found is None or read(records.Credential, found) != old:
                return False
            await db.rows("save_credential", **msgspec.structs.asdict(new))
            return True

        return await self._change(job)

    async def credential(self, kind: str, credential_id: str) -> records.Credential | None:
        """One credential; None if it is missing or expired."""
        return await self._find(records.Credential, "credential", kind=kind, id=credential_id)

    async def credentials(self, kind: str, owner: str) -> list[records.Credential]:
        """The live credentials of one owner, oldest first."""
        return await self._list(records.Credential, "credentials", kind=kind, owner=owner)

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        """Delete credentials."""
        await self._change(lambda db: db.rows("drop_credentials", kind=kind, ids=ids))
