"""`fotahook tail`: what happens, as it happens."""

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

from .shared.errors import Interrupted
from .shared.remote import DEFAULTS, Remote
from .shared.tables import print_grown, print_json
from .shared.times import shown_moment

COLUMNS: Final = ("time", "event", "account", "state", "message", "what")
WIDTHS: Final = (20, 16, 16, 12, 36, 0)


def tail(account: str | None = None, /, *, after: str | None = None, remote: Remote = DEFAULTS) -> None:
    """Follow what happens: messages and attempts, lanes and callbacks. Ctrl-C ends it and tells where to go on.

    A connection that is lost is made again, and what was missed meanwhile is shown.

    Example: fotahook tail 0000123456-00001 --dev

    Parameters
    ----------
    account
        Of one account alone.
    after
        Begin behind this cursor, as an earlier tail told it, in place of now.
    """
    with remote.operator() as client, client.events(account, after=after) as events:
        try:
            _show(events, as_json=remote.as_json)
        except KeyboardInterrupt:
            # There is a cursor too where nothing was shown yet, once the service has answered.
            if events.cursor is None:
                raise
            named = f" {shlex.quote(account)}" if account is not None else ""
            raise Interrupted(f"interrupted; fotahook tail{named} --after {events.cursor} goes on from here") from None


def _show(events: Iterable[Event], *, as_json: bool) -> None:
    titled = as_json
    for event in events:
        if not titled:
            print_grown(COLUMNS, WIDTHS)
            titled = True
        if as_json:
            print_json({"event": event.name, "cursor": event.cursor, **msgspec.to_builtins(event.data)})
            sys.stdout.flush()
        else:
            about = (shown_moment(event.data.at), event.name, event.data.account)
            print_grown((*about, *_told(event.data)), WIDTHS)


def _told(data: EventData) -> tuple[str, str, str]:
    """State, message and what else there is to say."""
    match data:
        case MessageAccepted():
            key = f", key {data.ordering_key}" if data.ordering_key else ""
            return "accepted", data.id, f"{data.type or 'no type'}, {data.size} bytes{key}"
        case AttemptFinished():
            took = f", {data.milliseconds:.0f} ms" if data.milliseconds is not None else ""
            return data.state, data.id, f"attempt {data.number}: {data.error_code or data.outcome}{took}"
        case MessageDead():
            return "dead", data.id, f"given up: {data.error_code or 'no reason known'}"
        case LaneChanged():
            until = f" until {shown_moment(data.until)}" if data.until else ""
            return data.state, "", f"lane {data.lane}{until}{f': {data.reason}' if data.reason else ''}"
        case CallbackChanged():
            return data.action, "", f"{data.url or 'nothing'} by {data.actor}"
