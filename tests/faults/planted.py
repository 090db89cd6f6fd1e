"""Bugs of which each breaks what the ledger checks. They are planted into a real process, at the verbs of its store."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from fotahook.delivery.sender import Sender
from fotahook.store.message_verbs import MessageIds
from fotahook.store.postgres.store import PostgresStore
from fotahook.store.records import Accepted, LaneVerdict, Lease, NewMessage, Settlement
from fotahook.store.sqlite.store import SqliteStore

LATE_SECONDS: Final = 1.0
"""By how much what should be first comes too late."""
_background: Final[set[asyncio.Task[None]]] = set()


def _later(work: Callable[[], Any]) -> None:
    async def run() -> None:
        await asyncio.sleep(LATE_SECONDS)
        await work()

    task = asyncio.get_running_loop().create_task(run())
    _background.add(task)
    task.add_done_callback(_background.discard)


class _AnyToken(int):
    """Equal to the token of any lease."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def fencing_removed() -> None:
    """Whoever settles is believed to hold the lease."""
    settle = PostgresStore.settle

    async def believe(
        self: PostgresStore, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        believed = msgspec.structs.replace(lease, token=_AnyToken(lease.token))
        return await settle(self, believed, settlements, verdict, keep=keep)

    PostgresStore.settle = believe  # type: ignore[method-assign, assignment]


def settled_before_sent() -> None:
    """A delivery counts as delivered before it is sent."""
    deliver = Sender.deliver

    async def promise(self: Sender, *request: Any, **options: Any) -> Any:
        from fotahook.delivery.outcomes import DELIVERED, Outcome

        _later(lambda: deliver(self, *request, **options))
        return Outcome(code=DELIVERED, status=200)

    Sender.deliver = promise  # type: ignore[method-assign, assignment]


class _Given(MessageIds):
    """The ids that were told already."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def take(self, count: int) -> list[str]:
        return self._ids[:count]


def accepted_before_committed() -> None:
    """The answer is sent before the message is on disk."""
    for store in (SqliteStore, PostgresStore):
        _answer_early(store)


def _answer_early(store: Any) -> None:
    accept = store.accept

    async def promise(self: Any, messages: Sequence[NewMessage]) -> list[Accepted]:
        ids = self._ids.take(len(messages))

        async def commit() -> None:
            own, self._ids = self._ids, _Given(ids)
            try:
                await accept(self, messages)
            finally:
                self._ids = own

        _later(commit)
        return [Accepted(id=one) for one in ids]

    store.accept = promise


def promotion_skipped() -> None:
    """When a delivery is settled, the next of its ordering key is forgotten."""
    for store in (SqliteStore, PostgresStore):
        _forget_keys(store)


def _forget_keys(store: Any) -> None:
    settle = store.settle

    async def forget(
        self: Any, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        keyless = [
            msgspec.structs.replace(one, delivery=msgspec.structs.replace(one.delivery, ordering_key=None))
            for one in settlements
        ]
        lease_after: Lease | None = await settle(self, lease, keyless, verdict, keep=keep)
        return lease_after

    store.settle = forget


BUGS: Final[Mapping[str, Callable[[], None]]] = {
    bug.__name__: bug for bug in (fencing_removed, settled_before_sent, accepted_before_committed, promotion_skipped)
}
