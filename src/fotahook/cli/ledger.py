"""`fotahook ledger`: which devices of a campaign have reported to a listener, and which have not."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from cyclopts import App, Parameter

from .shared.arguments import OptionalAccount
from .shared.errors import UsageError
from .shared.output import (
    Columns,
    Json,
    counting,
    format_time,
    note,
    print_facts,
    print_json,
    print_list,
    print_records,
)
from .shared.remote import DEFAULTS as SERVICE
from .shared.remote import Remote
from .shared.stores import in_store

if TYPE_CHECKING:
    from fotahook.listener import LedgerDevice
    from fotahook.store import Store

T = TypeVar("T")

app = App(name="ledger", help="Show which devices of a campaign have reported, and fetch what never came.")

_PAGE: Final = 1000
_DEVICE: Final[Columns["LedgerDevice"]] = {
    "id": lambda it: it.device,
    "status": lambda it: it.status,
    "since": lambda it: None if it.at is None else format_time(datetime.fromtimestamp(it.at, UTC)),
    "from": lambda it: None if it.status is None else "report" if it.by_report else "callback",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LedgerFlags:
    """Flags of these commands."""

    inbox: str = "sqlite:///inbox.db"
    "The listener's inbox; the listener may be running."
    account: OptionalAccount = None
    "The campaign's account; needed if the ledger does not have the campaign yet, or of several accounts."

    def run(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """What `work` returns with the inbox's store."""
        return in_store("--inbox", self.inbox, work)

    async def account_of(self, store: "Store", campaign: str) -> str:
        """The account of a campaign."""
        if self.account is not None:
            return self.account
        found: set[str] = set()
        after = 0
        while page := await store.ledger_campaigns(after=after, limit=_PAGE):
            after = page[-1].id
            found |= {one.account for one in page if one.campaign == campaign}
        if len(found) != 1:
            why = f"is of {len(found)} accounts" if found else "is in no account of the ledger"
            raise UsageError(f"the campaign {campaign} {why}; name the account with --account")
        return found.pop()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PrintFlags(LedgerFlags):
    """Flags of the commands that call no service."""

    as_json: Json = False


DEFAULTS: Final = PrintFlags()


@app.command
def expect(
    campaign: str,
    /,
    *devices: Annotated[str, Parameter(name="DEVICE")],
    file: Path | None = None,
    until: str | None = None,
    flags: PrintFlags = DEFAULTS,
) -> int:
    """Enter the devices that are to report in a campaign.

    `fotahook ledger reconcile` enters those that ThingSpace's report names.

    Example: fotahook ledger expect 60b5d639 --file devices.txt --account 0000123456-00001 --until 2026-12-01

    Parameters
    ----------
    campaign
        The campaign's id.
    devices
        Device ids.
    file
        A file with more of them, one a line; - is stdin.
    until
        The day on which the campaign ends, such as 2026-12-01.
    """
    from fotahook.listener.ledger import expect as enter

    async def work(store: "Store") -> tuple[str, int]:
        account = await flags.account_of(store, campaign)
        names = [*devices, *_lines(file)]
        try:
            await enter(store, account, campaign, names, until)
        except ValueError as error:
            raise UsageError(f"--until: {error}") from error
        return account, len(names)

    account, count = flags.run(work)
    print_facts({"account": account, "campaign": campaign, "expected": count}, as_json=flags.as_json)
    return 0


@app.command
def show(
    campaign: str,
    /,
    *,
    devices: Literal["reported", "silent", "all"] | None = None,
    flags: PrintFlags = DEFAULTS,
) -> int:
    """Show how many devices of a campaign have reported a result; with --devices, which.

    Example: fotahook ledger show 60b5d639 --devices silent

    Parameters
    ----------
    campaign
        The campaign's id.
    devices
        List these devices instead, each with its last status.
    """
    from fotahook.contract.life_cycle import FINAL_RANK
    from fotahook.listener.ledger import read_devices, read_ledger

    account = flags.run(lambda store: flags.account_of(store, campaign))

    def pages() -> Iterator[list["LedgerDevice"]]:
        after = ""
        while page := flags.run(partial(read_devices, account=account, campaign_id=campaign, after=after, limit=_PAGE)):
            after = page[-1].device
            yield [one for one in page if devices == "all" or (one.rank >= FINAL_RANK) == (devices == "reported")]

    if devices is not None:
        print_list(_DEVICE, pages(), as_json=flags.as_json)
        return 0
    now = datetime.now(UTC)
    found = flags.run(lambda store: read_ledger(store, account, campaign, now.timestamp()))
    until = None if found.until is None else format_time(datetime.fromtimestamp(found.until, UTC))
    facts: dict[str, str | int | None] = {
        "account": account,
        "campaign": campaign,
        "status": found.status,
        "until": until,
    }
    facts |= {name: getattr(found, name) for name in ("reported", "failed", "silent", "overdue", "repaired")}
    if flags.as_json:
        print_json({**facts, "statuses": dict(found.statuses)})
        return 0
    print_facts(facts, as_json=False)
    print_records(
        {"devices": lambda it: it[1], "last status": lambda it: it[0] or "(expected)"},
        found.statuses.items(),
        boxed=False,
    )
    with counting(found.reported + found.silent, "reported") as count:
        count(found.reported)
    return 0


@app.command
def reconcile(
    campaign: str | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all")] = False,
    flags: LedgerFlags = DEFAULTS,
    remote: Remote = SERVICE,
) -> int:
    """Compare a campaign with ThingSpace's report; what never came reaches the listener's handlers and forwards.

    It goes on where it was interrupted. The credentials are those of `fotahook callbacks`.

    Example: fotahook ledger reconcile --all --base-url https://thingspace.verizon.com

    Parameters
    ----------
    campaign
        The campaign's id.
    every
        All campaigns, of --account if it is given, that are not over for a week.
    """
    from fotahook.listener.reconcile import Reconciler, known_consumers

    if every == (campaign is not None):
        raise UsageError("give a campaign's id, or --all")

    async def work(store: "Store") -> int:
        with remote.client() as client:
            reconciler = Reconciler(store, client, await known_consumers(store), lambda: datetime.now(UTC).timestamp())
            if campaign is None:
                return await reconciler.everything(flags.account)
            return await reconciler.campaign(await flags.account_of(store, campaign), campaign)

    repaired = flags.run(work)
    print_facts({"repaired": repaired}, as_json=remote.as_json)
    if repaired:
        note("statuses that no message brought are in the inbox; the listener hands them to its handlers")
    return 0


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]
