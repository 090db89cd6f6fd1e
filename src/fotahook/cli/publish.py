"""`fotahook publish`: one message from a file or from stdin."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fotahook.contract.messages import MESSAGE_LIMIT, MessageInvalid, parse_json

from .failures import UsageError
from .output import print_facts
from .remote import DEFAULTS, Remote


def publish(
    account: str,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    ordering_key: str | None = None,
    idempotency_key: str | None = None,
    remote: Remote = DEFAULTS,
) -> None:
    """Hand a message over for delivery, byte for byte as it stands; prints its id once the service has it on disk.

    Example: fotahook publish 0000123456-00001 message.json --ordering-key 990013907835573

    Parameters
    ----------
    account
        Whose callback it goes to.
    file
        The message, a JSON object; - reads it from stdin.
    ordering_key
        Messages of one key are delivered in the order they were published in.
    idempotency_key
        Under one key a message is taken once, however often it is published.
    """
    message = _read(file)
    with remote.operator() as client:
        published = client.publish(account, message, ordering_key=ordering_key, idempotency_key=idempotency_key)
    print_facts({"id": published.id, "duplicate": published.duplicate}, as_json=remote.as_json)


def _read(file: str) -> bytes:
    """The bytes of the message; UsageError if the service would refuse them for what they are."""
    name = "stdin" if file == "-" else file
    if file.startswith("-") and file != "-":
        # For the sake of - alone cyclopts lets everything through that begins like an option.
        raise UsageError(f"Unknown option: {file}; see fotahook publish --help")
    if file == "-":
        message = sys.stdin.buffer.read(MESSAGE_LIMIT + 1)
    else:
        with Path(file).open("rb") as opened:
            message = opened.read(MESSAGE_LIMIT + 1)
    if len(message) > MESSAGE_LIMIT:
        raise UsageError(f"{name}: a message has at most {MESSAGE_LIMIT} bytes")
    try:
        parse_json(message)
    except MessageInvalid as error:
        raise UsageError(f"{name}: {error}") from error
    return message
