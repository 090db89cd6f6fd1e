"""Handlers that print messages: readable lines at a terminal, one JSON object a line elsewhere."""

import re
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from fotahook.contract.error_responses import one_line
from fotahook.contract.messages import CallbackMessage
from fotahook.hosting.stdio import discard
from fotahook.listener import Context

from ..shared.output import print_json

_MAX_DEVICES: Final = 10
_MAX_TEXT: Final = 100
_WIDTH: Final = 4096
"""Columns: the terminal wraps long lines, so that an id can be copied whole."""

_FAILED: Final = re.compile("fail|reject|abort|cancel", re.IGNORECASE)
_SUCCEEDED: Final = re.compile("success|finish|succeed|ended", re.IGNORECASE)


def print_json_line(message: CallbackMessage, context: Context) -> None:
    """Print a message as one JSON object. If the reader has gone, the message stays unhandled."""
    received = datetime.fromtimestamp(context.received_at, UTC).isoformat(timespec="milliseconds")
    facts = {"id": context.id, "receivedAt": received, "account": message.account_name, "type": message.kind}
    _print(lambda: print_json({**facts, "message": _without_password(message)}))


def print_readable(message: CallbackMessage, context: Context) -> None:
    """Print a message for people: time, kind, account, campaign and status, then one line per device."""
    text = Text().append(f"{datetime.fromtimestamp(context.received_at, UTC):%H:%M:%SZ}", style="dim")
    text.append(f"  {_safe(message.kind) or 'unknown kind'}", style="bold cyan")
    for fact in (message.account_name, message.campaign_id):
        text.append(f"  {_safe(fact)}" if fact else "")
    for status in filter(None, (part.status for part in message.parts)):
        text.append("  ").append_text(_status(status))
    for device in message.devices[:_MAX_DEVICES]:
        text.append(f"\n    {_safe(device.device_id) or 'no device id':<15}  ")
        text.append_text(_status(device.status or "no status"))
        text.append(f"  {_safe(device.result_reason)}" if device.result_reason else "")
    if (more := len(message.devices) - _MAX_DEVICES) > 0:
        text.append(f"\n    and {more} more devices", style="dim")
    console = Console(width=_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(text)
    # Not by rich, which exits when the reader has gone.
    _print(lambda: print(captured.get(), end=""))


def _print(write: Callable[[], None]) -> None:
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone: stop, and leave this message unhandled for the next start.
        discard(sys.stdout)
        signal.raise_signal(signal.SIGTERM)
        raise


def _without_password(message: CallbackMessage) -> object:
    """A message's JSON with the callback's password hidden, which ThingSpace may echo."""
    content = message.content
    if isinstance(content, dict) and content.get("password"):
        content["password"] = "(hidden)"
    return content


def _status(status: str) -> Text:
    style = "red" if _FAILED.search(status) else "green" if _SUCCEEDED.search(status) else "yellow"
    return Text(_safe(status), style=style)


def _safe(text: str | None) -> str:
    """Text from a sender, on one line, cut, and without control characters."""
    return one_line(text or "", _MAX_TEXT)
