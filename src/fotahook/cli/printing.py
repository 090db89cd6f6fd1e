"""Messages as `fotahook listen` prints them where its output is piped: a JSON object a line."""

import signal
import sys
from datetime import UTC, datetime

from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context

from .output import print_json
from .streams import drop_output


def print_message(message: CallbackMessage, context: Context) -> None:
    """A handler that prints; a message nobody could read stays unhandled."""
    received = datetime.fromtimestamp(context.received_at, UTC).isoformat(timespec="milliseconds")
    facts = {"id": context.id, "receivedAt": received, "account": message.account_name, "type": message.kind}
    try:
        print_json({**facts, "message": readable(message)})
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone: the end, with this message unread, for the next time.
        drop_output()
        signal.raise_signal(signal.SIGTERM)
        raise


def readable(message: CallbackMessage) -> object:
    """A message's JSON without the callback's password, which ThingSpace may echo."""
    content = message.content
    if isinstance(content, dict) and content.get("password"):
        content["password"] = "(hidden)"
    return content
