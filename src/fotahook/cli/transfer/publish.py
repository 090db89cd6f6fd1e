"""`fotahook publish`: one message from a file or from stdin, or many, a line for each."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from fotahook.contract.messages import MESSAGE_LIMIT, MessageInvalid, parse_json
from fotahook.contract.operator import BatchMessage

from ..shared.errors import UsageError
from ..shared.remote import DEFAULTS, Remote
from ..shared.tables import print_facts
from .line_files import STDIN, opened
from .publish_lines import publish_lines


class Line(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line of --batch, as `POST /v1/messages` has it; the account may be left out."""

    message: msgspec.Raw
    account: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None


def publish(
    account: str,
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path(STDIN),
    /,
    *,
    ordering_key: str | None = None,
    idempotency_key: str | None = None,
    batch: bool = False,
    remote: Remote = DEFAULTS,
) -> int:
    """Hand a message over for delivery, byte for byte as it stands; prints its id once the service has it on disk.

    Example: fotahook publish 0000123456-00001 message.json --ordering-key 990013907835573

    Parameters
    ----------
    account
        Whose callback it goes to.
    file
        The message, a JSON object; - reads it from stdin. With --batch many, a line for each.
    ordering_key
        Messages of one key are delivered in the order they were published in.
    idempotency_key
        Under one key a message is taken once, however often it is published.
    batch
        Each line is {"message": {…}, "orderingKey"?, "idempotencyKey"?, "account"?}; exit code 1 if one was refused.
    """
    if not batch:
        message = _read(str(file))
        with remote.operator() as client:
            published = client.publish(account, message, ordering_key=ordering_key, idempotency_key=idempotency_key)
        print_facts({"id": published.id, "duplicate": published.duplicate}, as_json=remote.as_json)
        return 0
    if ordering_key is not None or idempotency_key is not None:
        raise UsageError("with --batch each line has keys of its own: leave out --ordering-key and --idempotency-key")
    return publish_lines(str(file), "publish", lambda line: _message(line, account), remote)


_decode = msgspec.json.Decoder(Line).decode


def _message(line: bytes, account: str) -> BatchMessage:
    """The message of a line, byte for byte as it stands there; ValueError says what is wrong with it."""
    told = _decode(line)
    return BatchMessage(
        account=told.account or account,
        message=bytes(told.message),
        ordering_key=told.ordering_key,
        idempotency_key=told.idempotency_key,
    )


def _read(file: str) -> bytes:
    """The bytes of the message; UsageError if the service would refuse them for what they are."""
    name = "stdin" if file == STDIN else file
    with opened(file, "publish") as content:
        message = content.read(MESSAGE_LIMIT + 1)
    if len(message) > MESSAGE_LIMIT:
        raise UsageError(f"{name}: a message has at most {MESSAGE_LIMIT} bytes")
    try:
        parse_json(message)
    except MessageInvalid as error:
        raise UsageError(f"{name}: {error}") from error
    return message
