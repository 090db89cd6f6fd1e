"""Messages as `fotahook listen` prints them: a JSON object a line when piped, laid out for people."""

import json
import signal
import sys
from datetime import UTC, datetime

from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context

from .output import on_terminal
from .streams import drop_output


def print_message(message: CallbackMessage, context: Context) -> None:
    """A handler that prints; a message nobody could read stays unhandled."""
    content = message.content
    if isinstance(content, dict) and content.get("password"):
        # ThingSpace may echo the callback's password.
        content["password"] = "(hidden)"
    received = datetime.fromtimestamp(context.received_at, UTC).isoformat(timespec="milliseconds")
    try:
        if on_terminal():
            _show(message, content, received)
        else:
            line = {"id": context.id, "receivedAt": received, "account": message.account_name, "type": message.kind}
            print(json.dumps({**line, "message": content}, ensure_ascii=False), flush=True)
    except BrokenPipeError:
        # Whoever read our output has gone: the end, with this message unread, for the next time.
        drop_output()
        signal.raise_signal(signal.SIGTERM)
        raise


def _show(message: CallbackMessage, content: object, received: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout)
    title = Text(f"{received}  ", style="dim")
    title.append(message.kind or "message of unknown kind", style="bold cyan")
    title.append(f"  {message.account_name or ''}")
    console.print(title)
    console.print_json(json.dumps(content))
