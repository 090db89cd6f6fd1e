"""`fotahook publish`: one message from a file or from stdin, or a message per line."""

from pathlib import Path

import msgspec

from fotahook.contract.messages import MESSAGE_LIMIT, MessageInvalid, parse_json
from fotahook.contract.operator import BatchMessage

from ..shared.arguments import Account
from ..shared.errors import UsageError
from ..shared.remote import DEFAULTS, Remote
from ..shared.tables import print_facts
from .batches import publish_lines
from .files import STDIO, FileArgument, open_input


class Line(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line of --batch, as in `POST /v1/messages`, but the account may be left out."""

    message: msgspec.Raw
    account: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None


def publish(
    account: Account,
    file: FileArgument = Path(STDIO),
    /,
    *,
    ordering_key: str | None = None,
    idempotency_key: str | None = None,
    batch: bool = False,
    remote: Remote = DEFAULTS,
) -> int:
    """Publish a message byte for byte; prints its id once the service has it on disk.

    Example: fotahook publish 0000123456-00001 message.json --ordering-key 990013907835573

    Parameters
    ----------
    file
        The message, a JSON object; - reads it from stdin. With --batch, one message per line.
    ordering_key
        Messages with the same key are delivered in the order in which they were published.
    idempotency_key
        A message is accepted once per key, however often it is published.
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
    """The message of a line, byte for byte; ValueError says what is wrong with it."""
    parsed = _decode(line)
    return BatchMessage(
        account=parsed.account or account,
        message=bytes(parsed.message),
        ordering_key=parsed.ordering_key,
        idempotency_key=parsed.idempotency_key,
    )


def _read(file: str) -> bytes:
    """The bytes of the message; UsageError if the service would refuse them."""
    name = "stdin" if file == STDIO else file
    with open_input(file, "publish") as content:
        message = content.read(MESSAGE_LIMIT + 1)
    if len(message) > MESSAGE_LIMIT:
        raise UsageError(f"{name}: a message has at most {MESSAGE_LIMIT} bytes")
    try:
        parse_json(message)
    except MessageInvalid as error:
        raise UsageError(f"{name}: {error}") from error
    return message
