"""The store as the other rooms see it: domain verbs that are each one transaction, over the records of records.py.

A store is whatever passes ``tests/store``. Durations given to a verb are seconds from the moment the store writes them,
so that only one clock is ever compared.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from .events import Backlog, Events, Mark, Stats
from .records import (
    CALLBACK_CONSUMER,
    LOOK,
    Accepted,
    Account,
    AccountState,
    Attempt,
    Callback,
    CallbackChange,
    Credential,
    Delivery,
    DeliveryState,
    DispatchedElsewhere,
    Health,
    Lane,
    LaneState,
    LaneVerdict,
    Lease,
    Limits,
    Message,
    NewMessage,
    Page,
    Placement,
    Pruned,
    Record,
    Redelivery,
    Retention,
    Settlement,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Wanted,
    WrongSchema,
)

__all__ = [
    "CALLBACK_CONSUMER",
    "LOOK",
    "Accepted",
    "Account",
    "AccountState",
    "Attempt",
    "Callback",
    "CallbackChange",
    "Clock",
    "Credential",
    "Delivery",
    "DeliveryState",
    "DispatchedElsewhere",
    "Health",
    "Lane",
    "LaneState",
    "LaneVerdict",
    "Lease",
    "Limits",
    "Message",
    "NewMessage",
    "Page",
    "Placement",
    "Pruned",
    "Record",
    "Redelivery",
    "Retention",
    "Settlement",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Wanted",
    "WrongSchema",
]


class Store(Protocol):
    """Where the rooms meet. Every verb is one transaction; those that write return once it is synced to disk.

    All may raise StoreUnavailable; those that add rows also StoreFull.
    """

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        """Make `url` the account's callback, whatever it was, and open its lane; what waited for the old one is due."""

    async def deregister(self, account: str, *, actor: str) -> bool:
        """Forget the account's callback and hold its lane; False if there was none."""

    async def callback(self, account: str) -> Callback | None:
        """The account's callback, if one is registered."""

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        """Store messages with their deliveries and make the lanes due; an answer for each, in order."""

    async def message(self, message_id: str) -> Message | None:
        """One message with its placements."""

    async def attempts(self, message_id: str) -> list[Attempt]:
        """Every attempt at a message, oldest first."""

    async def lanes(self, account: str) -> list[Lane]:
        """The lanes of an account with their backlogs."""

    async def accounts(
        self,
        *,
        state: AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[Account]:
        """Accounts that have a lane to a callback, by name, from behind `after`; of one state or all, among these."""

    async def messages(self, account: str, wanted: Wanted, *, before: int | None = None, limit: int) -> Page:
        """An account's messages, newest first, without their bodies; `before` is the last page's `next`."""

    async def callback_history(self, account: str, limit: int) -> list[CallbackChange]:
        """The last changes of an account's callback, newest first."""

    async def events(self, after: Mark | None, *, limit: int) -> Events:
        """What happened behind a mark, up to `limit` of each source; without one nothing, but the mark of the present.

        Nothing is told before all that comes earlier in its source can be seen.
        """

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        """How much happened in the last minutes, of which this is one, in these accounts or in all."""

    async def backlog(self) -> Backlog:
        """What is not delivered of the whole store."""

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Send nothing over a lane until it is resumed; everything is kept, and its time to live stands still."""

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Open a paused lane, or end its wait, with the endpoint's health forgotten; what waited for it is due."""

    async def limits(self, account: str) -> Limits:
        """What an operator allows the account."""

    async def set_limits(self, account: str, limits: Limits) -> None:
        """Allow it something else; dispatchers know within a turn."""

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivery:
        """Send a settled message once more: to the tail of its key, with attempts and time to live afresh.

        The same id, so that receivers know it again, unless `as_new`: then a copy is accepted under a new one.
        """

    async def redeliver_all(
        self, account: str, state: DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        """How many settled messages were accepted in a span and are in a state; unless `dry_run`, send them again.

        The wish is on disk when this returns; ``tidy`` fulfils it in small steps, after a restart too.
        """

    async def tidy(self, retention: Retention) -> bool:
        """One small step of what can wait: redeliveries of many, then retention. Whether there is more to do now."""

    async def prune(self, retention: Retention) -> Pruned:
        """One small step of retention alone."""

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        """Take up to `limit` lanes that have something due, longest overdue first, for `seconds`."""

    async def fetch(self, lease: Lease, limit: int, *, without: Collection[int] = ()) -> list[Delivery]:
        """The deliveries of a leased lane that are due, earliest first; nothing that stands behind its key's head.

        `without`: the numbers (`seq`) of those that are in hand already.
        """

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        """Write outcomes and the lane's verdict, and keep the lane for `keep` more seconds (0 gives it back).

        The lease as it stands now, callback and keys read afresh; None if it is over: given back, or lost to another
        dispatcher, and then nothing was written. Where another callback was registered since `lease` was read, the
        outcomes count and the verdict does not: it spoke of the old endpoint.
        """

    async def due_in(self) -> float | None:
        """Seconds until some lane can be leased; None if none has anything to send."""

    async def wait(self, seconds: float) -> None:
        """Return at a hint that a lane may have become due, or after `seconds`. Polling is the truth."""

    async def save_credential(self, credential: Credential) -> None:
        """Insert a credential, or replace the one of its kind and id."""

    async def replace_credential(self, old: Credential, new: Credential) -> bool:
        """Write `new` over `old`, of the same kind and id; False, and nothing written, if that is not what is there."""

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        """One credential; None if there is none or it has expired."""

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        """The live credentials of one owner, oldest first."""

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        """Forget credentials."""

    async def check(self) -> None:
        """Return if the store can be read and written and has this version's schema; otherwise a StoreError."""

    async def close(self) -> None:
        """Finish what is being written and let go of the files or connections."""


Clock = Callable[[], float]
