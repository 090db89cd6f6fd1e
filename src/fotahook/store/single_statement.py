"""The verbs of a store that are one statement, the same for every engine."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

import msgspec

from .events import Backlog
from .records import Account, AccountState, Attempt, Callback, CallbackChange, Credential, Lane, Limits
from .rows import Row, read_account, read_attempt, read_credential, read_lane


class SingleStatementVerbs(ABC):
    """Base of the stores. `_work` is set when a lane may have become due."""

    def __init__(self) -> None:
        self._work = asyncio.Event()

    @abstractmethod
    async def _read(self, statement: str, **values: object) -> Sequence[Row]:
        """The rows that the named statement returns."""

    @abstractmethod
    async def _read_by_key(self, statement: str, **values: object) -> Row | None:
        """The row that the named statement finds by its primary key."""

    @abstractmethod
    async def _write(self, statement: str, **values: object) -> None:
        """Run the named statement in a transaction of its own."""

    async def callback(self, account: str) -> Callback | None:
        row = await self._read_by_key("callback", account=account)
        return Callback(**row) if row else None

    async def attempts(self, message_id: str) -> list[Attempt]:
        return [read_attempt(row) for row in await self._read("attempts", id=message_id)]

    async def lanes(self, account: str) -> list[Lane]:
        return [read_lane(row) for row in await self._read("lanes", account=account)]

    async def accounts(
        self,
        *,
        state: AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[Account]:
        names = None if among is None else list(among)
        found = await self._read("accounts", state=state, among=names, after=after, limit=limit)
        return [read_account(row) for row in found]

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        return [CallbackChange(**row) for row in await self._read("callback_history", account=account, limit=limit)]

    async def backlog(self) -> Backlog:
        (row,) = await self._read("backlog")
        return Backlog(**row)

    async def limits(self, account: str) -> Limits:
        row = await self._read_by_key("limits", account=account)
        return Limits(**row) if row else Limits()

    async def set_limits(self, account: str, limits: Limits) -> None:
        await self._write("set_limits", account=account, **msgspec.structs.asdict(limits))

    async def due_in(self) -> float | None:
        (row,) = await self._read("due_in")
        return None if row["due_in"] is None else max(0.0, row["due_in"])

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        row = await self._read_by_key("credential", kind=kind, id=credential_id)
        return read_credential(row) if row else None

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        return [read_credential(row) for row in await self._read("credentials", kind=kind, owner=owner)]

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        await self._write("drop_credentials", kind=kind, ids=list(ids))
