"""`fotahook accounts`, `pause`, `resume`, `callbacks` and `tail`: accounts, their callbacks, events."""

import contextlib
import re
import shlex
import sys
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
from cyclopts import App

from fotahook.contract import events
from fotahook.contract.addresses import account_warning, port_warning
from fotahook.contract.calls import DEREGISTERED
from fotahook.contract.errors import FotahookError
from fotahook.contract.operator import AccountFilter, AccountState

from .shared import output
from .shared.arguments import Account, Limit, OptionalAccount, warn_if_unknown
from .shared.errors import INTERRUPTED, Failure
from .shared.remote import DEFAULTS, Remote

ACCOUNT: Final[output.Columns[AccountState]] = {
    "account": lambda it: it.account,
    "state": lambda it: it.lane.state if it.known or it.lane.state != "held" else "unknown",
    **output.fields("lane.reason lane.until backlog.pending backlog.dead oldest=backlog.oldest_accepted_at"),
    "in-flight limit": lambda it: it.limits.in_flight or "service default",
    "callback": lambda it: it.callback.url if it.callback else "(none)",
}
EVENT: Final = ("time", "event", "account", "state", "message", "what")
WIDTHS: Final = (20, 16, 16, 12, 36, 0)

_WARNING: Final = re.compile(r'299 [^ ]+ "([^"]*)"')

accounts = App(name="accounts", help="List accounts and show their state.")
callbacks = App(name="callbacks", help="List, register, update and deregister the callback of an account.")


@accounts.command(name="list")
def list_accounts(*, state: AccountFilter | None = None, limit: Limit = 50, remote: Remote = DEFAULTS) -> None:
    """List the accounts that have a callback, or ever had one or a message, by name.

    Example: fotahook accounts list --state trouble --local

    Args:
        state: Only accounts whose lane has this state; trouble: the endpoint fails or is gone, or messages wait for a
            callback.
    """
    with remote.operator() as client:
        found = client.accounts(state=state, limit=output.page_size(limit))
        output.print_list(ACCOUNT, output.limited(found, limit), as_json=remote.as_json)


@accounts.command
def show(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Show an account: its callback, the state of its lane, and what is not delivered.

    Example: fotahook accounts show 0000123456-00001 --local
    """
    _print_account("account", account, remote)


def pause(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Stop delivery to an account until it is resumed. Messages are kept, and their time to live stands still.

    Example: fotahook pause 0000123456-00001 --local
    """
    _print_account("pause", account, remote)


def resume(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """End the pause of an account, or the wait for its failing endpoint: pending messages are sent.

    Example: fotahook resume 0000123456-00001 --local
    """
    _print_account("resume", account, remote)


def _print_account(call: Literal["account", "pause", "resume"], name: str, remote: Remote) -> None:
    with remote.operator() as client:
        account: AccountState = getattr(client, call)(name)
        output.print_list(ACCOUNT, [account], as_json=remote.as_json)
    warn_if_unknown(account)


@callbacks.command(name="list")
def list_callback(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Show the callback URL of an account.

    Example: fotahook callbacks list 0000123456-00001 --local
    """
    with remote.client() as client:
        summary = client.callbacks.list_registered_callbacks(account).data
    output.print_facts({"account": account, "url": None if summary is None else summary.url}, as_json=remote.as_json)
    if summary is None:
        # Only a service of fotahook can say it.
        with contextlib.suppress(FotahookError), remote.operator(max_retries=0) as operator:
            warn_if_unknown(operator.account(account))


@callbacks.command
def register(account: Account, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Register the callback URL of an account; it replaces any other.

    Example: fotahook callbacks register 0000123456-00001 https://fota.example.com/messages
    """
    _set_url("register_callback", account, url, remote)


@callbacks.command
def update(account: Account, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Change the callback URL of an account.

    Example: fotahook callbacks update 0000123456-00001 https://fota.example.com/messages
    """
    _set_url("update_callback", account, url, remote)


@callbacks.command
def deregister(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Deregister the callback URL of an account. ThingSpace then drops its messages; to change the URL, use update.

    Example: fotahook callbacks deregister 0000123456-00001
    """
    with remote.client() as client:
        result = client.callbacks.deregister_callback(account).data
    output.print_facts({"account": account, "success": result.success}, as_json=remote.as_json)
    output.note(DEREGISTERED)


def _set_url(call: Literal["register_callback", "update_callback"], account: str, url: str, remote: Remote) -> None:
    with remote.client() as client:
        calls = client.callbacks
        response = (calls.register_callback if call == "register_callback" else calls.update_callback)(account, url)
    output.print_facts({"account": account, "url": response.data.url}, as_json=remote.as_json)
    # The account was checked on the command line, and ThingSpace's ports do not matter on this machine.
    host = urlsplit(url).hostname or ""
    is_loopback = host in ("localhost", "::1") or host.startswith("127.")
    expected = {account_warning(account), port_warning(url) if remote.local and is_loopback else None}
    for warning in _WARNING.findall(response.headers.get("Warning", "")):
        if warning not in expected:
            output.note(warning)


def tail(account: OptionalAccount = None, /, *, after: str | None = None, remote: Remote = DEFAULTS) -> None:
    """Follow events: messages and attempts, lanes and callbacks. Ctrl-C ends it and prints how to continue.

    A lost connection is made again, and missed events are shown.

    Example: fotahook tail 0000123456-00001 --local

    Args:
        account: Only events of this account.
        after: Begin after this cursor, which an earlier tail printed, instead of now.
    """
    with remote.operator() as client, client.events(account, after=after) as found:
        header: tuple[str, ...] | None = EVENT
        try:
            for event in found:
                if remote.as_json:
                    output.print_json({"event": event.name, "cursor": event.cursor, **msgspec.to_builtins(event.data)})
                else:
                    row = (event.data.at, event.name, event.data.account, *describe(event.data))
                    output.print_table(header, [row], boxed=False, widths=WIDTHS)
                    header = None
                sys.stdout.flush()
        except KeyboardInterrupt:
            # Once the service has answered there is a cursor, even if nothing was shown yet.
            if found.cursor is None:
                raise
            argument = f" {shlex.quote(account)}" if account is not None else ""
            command = f"fotahook tail{argument} --after {found.cursor}"
            raise Failure(f"interrupted; {command} continues from here", INTERRUPTED) from None


def describe(data: events.EventData) -> tuple[str, str, str]:
    """An event's state, message id and details."""
    match data:
        case events.MessageAccepted():
            key = f", key {data.ordering_key}" if data.ordering_key else ""
            return "accepted", data.id, f"{data.type or 'no type'}, {data.size} bytes{key}"
        case events.AttemptFinished():
            took = f", {data.milliseconds:.0f} ms" if data.milliseconds is not None else ""
            return data.state, data.id, f"attempt {data.number}: {data.error_code or data.outcome}{took}"
        case events.MessageDead():
            return "dead", data.id, f"dead: {data.error_code or 'no reason known'}"
        case events.LaneChanged():
            until = f" until {output.format_time(data.until)}" if data.until else ""
            return data.state, "", f"lane {data.lane}{until}{f': {data.reason}' if data.reason else ''}"
        case events.CallbackChanged():
            return data.action, "", f"{data.url or 'nothing'} by {data.actor}"
