"""`fotahook tail`: events as they happen."""

import shlex
import sys
from collections.abc import Iterable
from typing import Final

import msgspec

from fotahook.contract.events import (
    AttemptFinished,
    CallbackChanged,
    Event,
    EventData,
    LaneChanged,
    MessageAccepted,
    MessageDead,
)

from .shared.arguments import OptionalAccount
from .shared.errors import INTERRUPTED, Failure
from .shared.output import format_time, print_json, print_table
from .shared.remote import DEFAULTS, Remote

COLUMNS: Final = ("time", "event", "account", "state", "message", "what")
WIDTHS: Final = (20, 16, 16, 12, 36, 0)


def tail(account: OptionalAccount = None, /, *, after: str | None = None, remote: Remote = DEFAULTS) -> None:
    """Follow events: messages and attempts, lanes and callbacks. Ctrl-C ends it and prints how to continue.

    A lost connection is made again, and missed events are shown.

    Example: fotahook tail 0000123456-00001 --local

    Args:
        account: Only events of this account.
        after: Begin after this cursor, which an earlier tail printed, instead of now.
    """
    with remote.operator() as client, client.events(account, after=after) as events:
        try:
            _print(events, as_json=remote.as_json)
        except KeyboardInterrupt:
            # Once the service has answered there is a cursor, even if nothing was shown yet.
            if events.cursor is None:
                raise
            argument = f" {shlex.quote(account)}" if account is not None else ""
            command = f"fotahook tail{argument} --after {events.cursor}"
            raise Failure(f"interrupted; {command} continues from here", INTERRUPTED) from None


def _print(events: Iterable[Event], *, as_json: bool) -> None:
    header: tuple[str, ...] | None = COLUMNS
    for event in events:
        if as_json:
            print_json({"event": event.name, "cursor": event.cursor, **msgspec.to_builtins(event.data)})
        else:
            row = (event.data.at, event.name, event.data.account, *describe(event.data))
            print_table(header, [row], boxed=False, widths=WIDTHS)
            header = None
        sys.stdout.flush()


def describe(data: EventData) -> tuple[str, str, str]:
    """An event's state, message id and details."""
    match data:
        case MessageAccepted():
            key = f", key {data.ordering_key}" if data.ordering_key else ""
            return "accepted", data.id, f"{data.type or 'no type'}, {data.size} bytes{key}"
        case AttemptFinished():
            took = f", {data.milliseconds:.0f} ms" if data.milliseconds is not None else ""
            return data.state, data.id, f"attempt {data.number}: {data.error_code or data.outcome}{took}"
        case MessageDead():
            return "dead", data.id, f"dead: {data.error_code or 'no reason known'}"
        case LaneChanged():
            until = f" until {format_time(data.until)}" if data.until else ""
            return data.state, "", f"lane {data.lane}{until}{f': {data.reason}' if data.reason else ''}"
        case CallbackChanged():
            return data.action, "", f"{data.url or 'nothing'} by {data.actor}"
