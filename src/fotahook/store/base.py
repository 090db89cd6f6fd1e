"""The Store protocol: domain verbs over the records of records.py and events.py.

A store is whatever passes ``tests/store``. Durations given to a verb are seconds from the moment the store writes them,
so that only one clock is ever compared.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from . import records
from .events import Backlog, EventCursor, EventPage, Stats
from .records import CALLBACK_CONSUMER
from .transaction import Transaction

Clock = Callable[[], float]
AskForLeases = Callable[[], records.LeaseRequest | None]
Receive = Callable[[Sequence[records.HandOver]], None]


class Store(Protocol):
    """Keeps callbacks, messages and deliveries. Every verb is one transaction; a write returns once it is on disk.

    Every verb may raise StoreUnavailable; a verb that adds rows may raise StoreFull.
    """

    async def register(self, account: str, url: str, *, actor: str) -> records.Callback:
        """Register or replace the account's callback and open its lane; deliveries in backoff become due."""

    async def deregister(self, account: str, *, actor: str) -> bool:
        """Remove the account's callback and hold its lane; False if there was none."""

    async def callback(self, account: str) -> records.Callback | None:
        """The account's callback, if one is registered."""

    async def accept(self, messages: Sequence[records.NewMessage]) -> list[records.Accepted]:
        """Store messages with their deliveries and make the lanes due; a result for each message, in order."""

    def hand_over(self, request: AskForLeases, receive: Receive) -> None:
        """Hand new deliveries to a dispatcher of this process, without a lease and a fetch of their own.

        Each ``accept`` calls `request`. Unless it returns None, the same transaction leases lanes that were idle: open,
        neither leased nor waiting, with nothing pending. After the commit, and before ``accept`` returns, `receive` is
        called with what is new in these lanes and in leased ones. Handing over is a short way only: whatever is not
        taken is fetched, at the latest when the lease has ended.
        """

    async def message(self, message_id: str) -> records.Message | None:
        """One message with the status of its deliveries."""

    async def attempts(self, message_id: str) -> list[records.Attempt]:
        """Every attempt at a message, oldest first."""

    async def recent_attempts(self, account: str | None, *, limit: int) -> list[records.RecentAttempt]:
        """The last attempts, newest first: of all accounts, or at the newest and longest waiting messages of one."""

    async def lanes(self, account: str) -> list[records.Lane]:
        """The lanes of an account with their backlogs."""

    async def accounts(
        self,
        *,
        state: records.AccountState | None = None,
        among: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> list[records.Account]:
        """Accounts that have a lane to a callback, sorted by name and starting after `after`.

        `state` and `among` select by state and by name.
        """

    async def state_counts(self, among: Collection[str] | None = None) -> records.StateCounts:
        """How many accounts are in each state, of these or of all."""

    async def messages(
        self, account: str, matching: records.MessageFilter, *, before: int | None = None, limit: int
    ) -> records.Page:
        """An account's messages, newest first, without their bodies; `before` is the `next` of the last page."""

    async def callback_history(self, account: str, limit: int) -> list[records.CallbackChange]:
        """The last changes of an account's callback, newest first."""

    async def events(self, after: EventCursor | None, *, limit: int) -> EventPage:
        """Events after a cursor, up to `limit` of each source; for None, no events and a cursor at the present.

        An event appears once every earlier event of its source is visible.
        """

    async def stats(self, minutes: int, *, among: Collection[str] | None = None) -> Stats:
        """Counts for the last minutes, the current one included, of these accounts or of all."""

    async def backlog(self) -> Backlog:
        """Undelivered messages of the whole store."""

    async def pause(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Stop sending over a lane until it is resumed; everything is kept, and its time to live stands still."""

    async def resume(self, account: str, consumer: str = CALLBACK_CONSUMER) -> None:
        """Open a paused or waiting lane and reset its health; deliveries in backoff become due."""

    async def limits(self, account: str) -> records.Limits:
        """The limits that an operator set for the account."""

    async def set_limits(self, account: str, limits: records.Limits) -> None:
        """Set an account's limits; dispatchers apply them within a turn."""

    async def redeliver(self, message_id: str, *, as_new: bool = False) -> records.Redelivery:
        """Send a settled message again: at the tail of its key, with fresh attempts and time to live.

        It keeps its id, so that receivers recognize it; with `as_new` a copy is accepted under a new id.
        """

    async def redeliver_all(
        self, account: str, state: records.DeliveryState, *, since: float, until: float, dry_run: bool = False
    ) -> int:
        """Count the settled messages accepted in a time span and in a state; unless `dry_run`, send them again.

        The request is on disk when this returns; ``tidy`` carries it out in small steps, after a restart too.
        """

    async def now(self) -> float:
        """A reading of the store's clock."""

    async def tidy(self, retention: records.Retention, *, now: float | None = None) -> bool:
        """One small step of maintenance: bulk redeliveries, then retention. True if there is more to do now.

        Ages are taken at `now`: a reading of the store's clock that the caller believes, or -inf, at which nothing is
        old. By default the clock is read.
        """

    async def prune(self, retention: records.Retention, *, now: float | None = None) -> records.Pruned:
        """One small step of retention alone."""

    async def lease(self, limit: int, seconds: float) -> list[records.Lease]:
        """Lease up to `limit` due lanes for `seconds`, longest overdue first."""

    async def fetch(
        self,
        lease: records.Lease,
        limit: int,
        *,
        without: Collection[int] = (),
        max_bytes: int = records.FETCH_BYTES,
    ) -> list[records.Delivery]:
        """The due deliveries of a leased lane, earliest first; of each ordering key at most the first.

        `without`: the numbers (`seq`) of deliveries already in flight. The first comes whatever its size, others while
        those before them have no more than `max_bytes`.
        """

    async def wake_origin(self, origin: str, limit: int) -> int:
        """Make up to `limit` lanes due that wait for a URL of this scheme, host and port; how many there were."""

    async def settle(
        self,
        lease: records.Lease,
        settlements: Sequence[records.Settlement],
        verdict: records.LaneVerdict,
        *,
        keep: float,
    ) -> records.Lease | None:
        """Write outcomes and the lane's verdict, and keep the lease for `keep` more seconds (0 gives it back).

        Returns the lease with its callback and keys read afresh; None if it was given back, or lost to another
        dispatcher, in which case nothing was written. If the callback changed since `lease` was read, the outcomes
        count and the verdict, which is about the old endpoint, does not.
        """

    def transaction(self, delivery: records.Delivery) -> Transaction | None:
        """A transaction for the writes of a delivery's handlers, with which it counts as handled; None on SQLite."""

    async def due_in(self) -> float | None:
        """Seconds until a lane can be leased; None if no lane has anything to send."""

    async def wait(self, seconds: float) -> None:
        """Return at a hint that a lane may have become due, or after `seconds`. Hints may be lost: poll as well."""

    async def expect(
        self,
        account: str,
        campaign: str,
        devices: Collection[str] = (),
        *,
        ends_at: float | None = None,
        cursor: str | None = None,
    ) -> None:
        """Enter a campaign into the ledger, and devices that are to report; those that did already stay as they are.

        None leaves the end, and how far the report was read, as they are.
        """

    async def ledger_campaigns(
        self, *, name: tuple[str, str] | None = None, after: int = 0, limit: int
    ) -> list[records.LedgerCampaign]:
        """Campaigns in the ledger by id, above `after`; with a `name`, an account and a campaign, only that one."""

    async def ledger_devices(
        self, campaign: int, *, among: Collection[str] | None = None, after: str = "", limit: int
    ) -> list[records.LedgerDevice]:
        """The devices of a campaign behind `after`, in order, all or these."""

    async def ledger_counts(self, campaign: int) -> list[records.LedgerCount]:
        """How many devices of a campaign have which status."""

    async def latest_campaigns(
        self, *, among: Collection[str] | None, campaign: str | None = None, before: int | None = None, limit: int
    ) -> list[records.LedgerCampaign]:
        """Campaigns of these accounts or of all, newest first: below an id, and by the beginning of their name."""

    async def campaign_devices(
        self, campaign: int, *, kind: str | None = None, after: str = "", limit: int
    ) -> records.DevicePage:
        """The `limit` devices of a campaign behind `after`, in order; of these, those ``succeeded``, ``failed`` or
        ``silent``."""

    async def campaign_reasons(self, campaign: int, *, limit: int) -> list[tuple[str, int]]:
        """Why devices of a campaign failed, and how many of them, the most frequent reason first."""

    async def find_device(
        self, device: str, *, among: Collection[str] | None, limit: int
    ) -> list[records.LedgerReport]:
        """What was last reported of a device in each campaign of these accounts or of all, newest first."""

    async def reports_of_campaign(
        self, account: str, campaign: str, *, after: str | None = None, limit: int
    ) -> list[records.LedgerReport]:
        """What was reported of a campaign, first of itself, then of its devices in order; behind a device, if given."""

    async def reports_of_device(
        self, account: str, device: str, *, after: str = "", limit: int
    ) -> list[records.LedgerReport]:
        """What was reported of a device ('' for the campaigns themselves) in each campaign behind `after`, in order."""

    async def overdue_devices(self, seconds: float) -> int:
        """Devices without a result in campaigns that ended within the last `seconds`."""

    async def forget_reports(self, campaign: int, seconds: float, limit: int) -> bool:
        """Remove up to `limit` statuses from the ledger that are older than `seconds`; whether there may be more."""

    async def save_credential(self, credential: records.Credential) -> None:
        """Insert a credential, or replace the one of its kind and id."""

    async def replace_credential(self, old: records.Credential, new: records.Credential) -> bool:
        """Replace `old` by `new`, of the same kind and id; False, writing nothing, if `old` is not what is stored."""

    async def credential(self, kind: str, credential_id: str) -> records.Credential | None:
        """One credential; None if it is missing or expired."""

    async def credentials(self, kind: str, owner: str) -> list[records.Credential]:
        """The live credentials of one owner, oldest first."""

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        """Delete credentials."""

    async def pending_usage(self, account: str, *, after: int, limit: int) -> records.PendingUsage:
        """A look at up to `limit` messages that wait for the account's callback, behind the number `after`."""

    def audited(self, entry: records.AuditEntry) -> "Store":
        """This store, whose next write records the entry in the audit log, in the same transaction."""

    async def audit(
        self, *, among: Collection[str] | None = None, before: int | None = None, limit: int
    ) -> list[records.AuditEntry]:
        """The audit log, newest first, below a number; `among` restricts it to entries about these accounts."""

    async def check(self) -> None:
        """Raise a StoreError unless the store can be read and written and has this version's schema."""

    async def close(self) -> None:
        """Finish pending writes and release the files or connections."""
