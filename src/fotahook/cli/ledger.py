"""`fotahook ledger`: which devices of a campaign have reported to a listener, and which have not."""

import sys
import time
from asyncio import Runner
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from cyclopts import App, Parameter

from fotahook.client import Client
from fotahook.contract.messages import FINAL_RANK

from .shared import output
from .shared.arguments import OptionalAccount, flag_class
from .shared.errors import UsageError, flag_named
from .shared.sources import Remote, opened, paged

if TYPE_CHECKING:
    from fotahook.store import Store
    from fotahook.store.ledger import LedgerDevice

app = App(name="ledger", help="Show which devices of a campaign have reported, and fetch what never came.")

Campaign: TypeAlias = Annotated[str, Parameter(help="The campaign's id.")]
Which: TypeAlias = Literal["reported", "silent", "all"]
All: TypeAlias = Annotated[bool, Parameter(name="--all")]
_PAGE: Final = 1000
_DEVICE: "Final[output.Columns[LedgerDevice]]" = {
    **output.fields("id=device status"),
    "since": lambda it: _time(it.at),
    "from": lambda it: None if it.status is None else "report" if it.by_report else "callback",
}


@flag_class
class Inbox:
    inbox: str = "sqlite:///inbox.db"
    "The listener's inbox; the listener may be running."
    account: OptionalAccount = None
    "The campaign's account; needed if the ledger does not have the campaign yet, or of several accounts."

    @contextmanager
    def open(self, campaign: str | None) -> "Iterator[tuple[Store, Runner, str]]":
        """The inbox's store, what runs its methods, and the account of the campaign; empty for all campaigns."""
        with opened("--inbox", self.inbox) as (store, runner):
            found = {self.account or ""}
            if campaign is not None and self.account is None:
                campaigns = paged(lambda after: runner.run(store.ledger_campaigns(after=after, limit=_PAGE)), "id", 0)
                found = {one.account for one in campaigns if one.campaign == campaign}
            if len(found) != 1:
                why = f"is of {len(found)} accounts" if found else "is in no account of the ledger"
                raise UsageError(f"the campaign {campaign} {why}; name the account with --account")
            yield store, runner, found.pop()


@app.command(help_epilogue="Example: fotahook ledger expect 60b5d639 --file devices.txt --until 2026-12-01")
def expect(
    campaign: Campaign,
    /,
    *devices: Annotated[str, Parameter(name="DEVICE")],
    file: Path | None = None,
    until: str | None = None,
    flags: Inbox = Inbox(),
    as_json: output.Json = False,
) -> None:
    """Enter the devices that are to report in a campaign.

    `fotahook ledger reconcile` enters those that ThingSpace's report names.

    Args:
        devices: Device ids.
        file: A file with more of them, one a line; - is stdin.
        until: The day on which the campaign ends, such as 2026-12-01.
    """
    from fotahook.listener.ledger import expect as enter  # here and below, so that --help does not wait for a listener

    with flags.open(campaign) as (store, runner, account):
        text = "" if file is None else sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        names = [*devices, *filter(None, map(str.strip, text.splitlines()))]
        with flag_named("--until"):
            runner.run(enter(store, account, campaign, names, until))
    output.print_facts({"account": account, "campaign": campaign, "expected": len(names)}, as_json=as_json)


@app.command(help_epilogue="Example: fotahook ledger show 60b5d639 --devices silent")
def show(
    campaign: Campaign, /, *, devices: Which | None = None, flags: Inbox = Inbox(), as_json: output.Json = False
) -> None:
    """Show how many devices of a campaign have reported a result; with --devices, which.

    Args:
        devices: List these devices instead, each with its last status.
    """
    from fotahook.listener.ledger import read_devices, read_ledger

    with flags.open(campaign) as (store, runner, account):
        if devices is not None:
            known = paged(lambda after: runner.run(read_devices(store, account, campaign, after, _PAGE)), "device", "")
            wanted = (it for it in known if devices == "all" or (it.rank >= FINAL_RANK) == (devices == "reported"))
            output.print_list(_DEVICE, wanted, as_json=as_json)
            return
        ledger = runner.run(read_ledger(store, account, campaign, time.time()))
    facts = {"account": account, "campaign": campaign, "status": ledger.status, "until": _time(ledger.until)}
    facts |= {name: getattr(ledger, name) for name in ("reported", "failed", "silent", "overdue", "repaired")}
    if as_json:
        output.print_json({**facts, "statuses": dict(ledger.statuses)})
        return
    output.print_facts(facts, as_json=False)
    statuses = [(devices, status or "(expected)") for status, devices in ledger.statuses.items()]
    output.print_table(("devices", "last status"), statuses, boxed=False)
    with output.counting(ledger.reported + ledger.silent, "reported") as count:
        count(ledger.reported)


@app.command(help_epilogue="Example: fotahook ledger reconcile --all --base-url https://thingspace.verizon.com")
def reconcile(
    campaign: Campaign | None = None, /, *, every: All = False, flags: Inbox = Inbox(), remote: Remote = Remote()
) -> None:
    """Compare a campaign with ThingSpace's report; what never came reaches the listener's handlers and forwards.

    It goes on where it was interrupted. The credentials are those of `fotahook callbacks`.

    Args:
        every: All campaigns, of --account if it is given, that are not over for a week.
    """
    from fotahook.listener.ledger import Reconciler, known_consumers

    if every == (campaign is not None):
        raise UsageError("give a campaign's id, or --all")
    with flags.open(campaign) as (store, runner, account), remote.client(Client) as client:
        reconciler = Reconciler(store, client, runner.run(known_consumers(store)), time.time)
        work = reconciler.everything(flags.account) if campaign is None else reconciler.campaign(account, campaign)
        repaired = runner.run(work)
    output.print_facts({"repaired": repaired}, as_json=remote.as_json)
    if repaired:
        output.note("statuses that no message brought are in the inbox; the listener hands them to its handlers")


def _time(at: float | None) -> str | None:
    return None if at is None else output.format_time(datetime.fromtimestamp(at, UTC))
