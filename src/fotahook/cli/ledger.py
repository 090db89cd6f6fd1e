"""`fotahook ledger`: which devices of a campaign have reported to a listener, and which have not."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from .shared import output
from .shared.arguments import OptionalAccount
from .shared.errors import UsageError, flag_named
from .shared.output import Json, note, print_facts
from .shared.remote import DEFAULTS as SERVICE
from .shared.remote import Remote
from .shared.stores import opened

if TYPE_CHECKING:
    from asyncio import Runner

    from fotahook.listener import LedgerDevice
    from fotahook.store import Store

app = App(name="ledger", help="Show which devices of a campaign have reported, and fetch what never came.")

_PAGE: Final = 1000
_COUNTS: Final = ("reported", "failed", "silent", "overdue", "repaired")
_DEVICE: Final[output.Columns["LedgerDevice"]] = {
    **output.fields("id=device status"),
    "since": lambda it: _time(it.at),
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

    @contextmanager
    def open(self, campaign: str | None) -> "Iterator[tuple[Store, Runner, str]]":
        """The inbox's store, what runs its methods, and the account of the campaign; empty for all campaigns."""
        with opened("--inbox", self.inbox) as (store, runner):
            found, after = {self.account or ""}, 0
            if campaign is not None and self.account is None:
                found.clear()
                while page := runner.run(store.ledger_campaigns(after=after, limit=_PAGE)):
                    after = page[-1].id
                    found |= {one.account for one in page if one.campaign == campaign}
            if len(found) != 1:
                why = f"is of {len(found)} accounts" if found else "is in no account of the ledger"
                raise UsageError(f"the campaign {campaign} {why}; name the account with --account")
            yield store, runner, found.pop()


DEFAULTS: Final = LedgerFlags()


@app.command
def expect(
    campaign: str,
    /,
    *devices: Annotated[str, Parameter(name="DEVICE")],
    file: Path | None = None,
    until: str | None = None,
    flags: LedgerFlags = DEFAULTS,
    as_json: Json = False,
) -> None:
    """Enter the devices that are to report in a campaign.

    `fotahook ledger reconcile` enters those that ThingSpace's report names.

    Example: fotahook ledger expect 60b5d639 --file devices.txt --account 0000123456-00001 --until 2026-12-01

    Args:
        campaign: The campaign's id.
        devices: Device ids.
        file: A file with more of them, one a line; - is stdin.
        until: The day on which the campaign ends, such as 2026-12-01.
    """
    from fotahook.listener.ledger import expect as enter

    with flags.open(campaign) as (store, runner, account):
        text = "" if file is None else sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        names = [*devices, *filter(None, map(str.strip, text.splitlines()))]
        with flag_named("--until"):
            runner.run(enter(store, account, campaign, names, until))
    print_facts({"account": account, "campaign": campaign, "expected": len(names)}, as_json=as_json)


@app.command
def show(
    campaign: str,
    /,
    *,
    devices: Literal["reported", "silent", "all"] | None = None,
    flags: LedgerFlags = DEFAULTS,
    as_json: Json = False,
) -> None:
    """Show how many devices of a campaign have reported a result; with --devices, which.

    Example: fotahook ledger show 60b5d639 --devices silent

    Args:
        campaign: The campaign's id.
        devices: List these devices instead, each with its last status.
    """
    from fotahook.contract.messages import FINAL_RANK
    from fotahook.listener.ledger import read_devices, read_ledger

    with flags.open(campaign) as (store, runner, account):

        def listed() -> "Iterator[LedgerDevice]":
            after = ""
            while page := runner.run(read_devices(store, account, campaign, after=after, limit=_PAGE)):
                after = page[-1].device
                yield from page

        if devices is not None:
            wanted = (it for it in listed() if devices == "all" or (it.rank >= FINAL_RANK) == (devices == "reported"))
            output.print_list(_DEVICE, wanted, as_json=as_json)
            return
        found = runner.run(read_ledger(store, account, campaign, time.time()))
    facts = {"account": account, "campaign": campaign, "status": found.status, "until": _time(found.until)}
    facts |= {name: getattr(found, name) for name in _COUNTS}
    if as_json:
        output.print_json({**facts, "statuses": dict(found.statuses)})
        return
    print_facts(facts, as_json=False)
    statuses: output.Columns[tuple[str, int]] = {
        "devices": lambda it: it[1],
        "last status": lambda it: it[0] or "(expected)",
    }
    output.print_records(statuses, found.statuses.items(), boxed=False)
    with output.counting(found.reported + found.silent, "reported") as count:
        count(found.reported)


@app.command
def reconcile(
    campaign: str | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all")] = False,
    flags: LedgerFlags = DEFAULTS,
    remote: Remote = SERVICE,
) -> None:
    """Compare a campaign with ThingSpace's report; what never came reaches the listener's handlers and forwards.

    It goes on where it was interrupted. The credentials are those of `fotahook callbacks`.

    Example: fotahook ledger reconcile --all --base-url https://thingspace.verizon.com

    Args:
        campaign: The campaign's id.
        every: All campaigns, of --account if it is given, that are not over for a week.
    """
    from fotahook.listener.reconcile import Reconciler, known_consumers

    if every == (campaign is not None):
        raise UsageError("give a campaign's id, or --all")
    with flags.open(campaign) as (store, runner, account), remote.client() as client:
        reconciler = Reconciler(store, client, runner.run(known_consumers(store)), time.time)
        work = reconciler.everything(flags.account) if campaign is None else reconciler.campaign(account, campaign)
        repaired = runner.run(work)
    print_facts({"repaired": repaired}, as_json=remote.as_json)
    if repaired:
        note("statuses that no message brought are in the inbox; the listener hands them to its handlers")


def _time(at: float | None) -> str | None:
    return None if at is None else output.format_time(datetime.fromtimestamp(at, UTC))
