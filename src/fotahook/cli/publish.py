"""`fotahook publish`: one message from a file or from stdin, or a message per line."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Final, TypeAlias

import msgspec
from cyclopts import Parameter

from fotahook.client import OperatorClient
from fotahook.contract.calls import batch_line
from fotahook.contract.errors import ApiException
from fotahook.contract.messages import MESSAGE_LIMIT, parse_json
from fotahook.contract.operator import BatchMessage, Published, Refused

from .shared.arguments import Account
from .shared.errors import Failure, UsageError, flag_named
from .shared.output import counting, note, print_facts, print_json
from .shared.remote import DEFAULTS, Remote

STDIO: Final = "-"


def _refuse_option(_: object, file: Path) -> None:
    """Since - is allowed, cyclopts takes all that begin like it for files."""
    if str(file).startswith("-") and str(file) != STDIO:
        raise ValueError("Unknown option")


FileArgument: TypeAlias = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]
"""A file name, or - for stdin or stdout."""
LINE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes in one line: a message, in any spelling of its JSON."""
BATCH_MESSAGES: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024

# Refusals of a single message; any other status refuses all of them.
_OF_ONE_MESSAGE: Final = (400, 409, 413)

Parse = Callable[[bytes], BatchMessage]
"""The message of a line; ValueError says what is wrong with it."""


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

    Args:
        file: The message, a JSON object; - reads it from stdin. With --batch, one message per line.
        ordering_key: Messages with the same key are delivered in the order in which they were published.
        idempotency_key: A message is accepted once per key, however often it is published.
        batch: Each line is {"message": {…}, "orderingKey"?, "idempotencyKey"?, "account"?}; exit code 1 if one was
            refused.
    """
    if not batch:
        message = _read(str(file))
        with remote.operator() as client:
            published = client.publish(account, message, ordering_key=ordering_key, idempotency_key=idempotency_key)
        print_facts({"id": published.id, "duplicate": published.duplicate}, as_json=remote.as_json)
        return 0
    if ordering_key is not None or idempotency_key is not None:
        raise UsageError("with --batch each line has keys of its own: leave out --ordering-key and --idempotency-key")
    return publish_lines(str(file), lambda line: _message(line, account), remote)


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
    with open_input(file) as content:
        message = content.read(MESSAGE_LIMIT + 1)
    if len(message) > MESSAGE_LIMIT:
        raise UsageError(f"{name}: a message has at most {MESSAGE_LIMIT} bytes")
    with flag_named(name):
        parse_json(message)
    return message


def publish_lines(file: str, parse: Parse, remote: Remote) -> int:
    """Publish the message of each line, in order, without blank lines; the exit code.

    Prints the result of each with --json, otherwise each refusal, and how many there are of each kind.
    """
    name, counts = "stdin" if file == STDIO else file, {"published": 0, "duplicates": 0, "refused": 0}

    def report(line: int, result: Published | Refused) -> None:
        if isinstance(result, Published):
            counts["duplicates" if result.duplicate else "published"] += 1
        else:
            counts["refused"] += 1
            if not remote.as_json:
                note(f"{name}, line {line}: {result.error_code}: {result.error_message}")
        if remote.as_json:
            print_json({"line": line, **msgspec.to_builtins(result)})

    with open_input(file) as content, remote.operator() as client:
        try:
            total = os.fstat(content.fileno()).st_size if content.seekable() else None
            with counting(total, "published", in_bytes=True) as advance:
                for batch in _batches(content, parse, report, advance):
                    for line, result in zip(batch, _publish(client, list(batch.values())), strict=True):
                        report(line, result)
        finally:
            # Also if it was cut short: what the service has, it has.
            if not remote.as_json:
                print_facts(counts, as_json=False)
    return 1 if counts["refused"] else 0


def _batches(
    file: IO[bytes], parse: Parse, refuse: Callable[[int, Refused], None], advance: Callable[[int], None]
) -> Iterator[dict[int, BatchMessage]]:
    """The messages of a file in batches, by their lines. A message with a line feed is alone in its batch."""
    batch: dict[int, BatchMessage] = {}
    size = done = 0
    for number, line in enumerate(read_lines(file), 1):
        done += len(line) + 1
        advance(done)
        if not line.strip():
            continue
        try:
            message = parse(line)
            length = BATCH_BYTES if _is_alone(message) else len(batch_line(message, lambda: "k"))
        except ValueError as error:
            refuse(number, Refused("INVALID_LINE", str(error)))
            continue
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_MESSAGES):
            yield batch
            batch, size = {}, 0
        batch[number], size = message, size + length
    if batch:
        yield batch


def _is_alone(message: BatchMessage) -> bool:
    """Whether the message cannot be part of a batch, which is lines."""
    return isinstance(message.message, bytes) and b"\n" in message.message


def _publish(client: OperatorClient, batch: list[BatchMessage]) -> Sequence[Published | Refused]:
    one = batch[0]
    if not _is_alone(one):
        return client.publish_batch(batch)
    try:
        published = client.publish(
            one.account, one.message, ordering_key=one.ordering_key, idempotency_key=one.idempotency_key
        )
        return [published]
    except ApiException as error:
        if error.status_code not in _OF_ONE_MESSAGE:
            raise
        return [Refused(error.error_code or "", error.error_message or str(error))]


@contextlib.contextmanager
def open_input(name: str) -> Iterator[IO[bytes]]:
    """The file of that name, or stdin for -."""
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file without their ends; Failure for one that is too long."""
    for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise Failure(f"line {number} has more than {LINE_LIMIT} bytes; a line is one message")
        yield line.removesuffix(b"\n").removesuffix(b"\r")
