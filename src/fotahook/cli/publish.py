"""`fotahook publish`: one message from a file or from stdin, or a message per line."""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Final, TypeAlias

import msgspec
from cyclopts import Parameter

from fotahook.client import OperatorClient
from fotahook.contract.errors import ApiException
from fotahook.contract.messages import MESSAGE_LIMIT, MessageInvalid, parse_json
from fotahook.contract.operator import BatchMessage, Published, Refused
from fotahook.contract.operator_calls import batch_line

from .shared.arguments import Account
from .shared.errors import Failure, UsageError
from .shared.output import counting, note, print_facts, print_json
from .shared.remote import DEFAULTS, Remote

STDIO: Final = "-"
FileArgument: TypeAlias = Annotated[Path, Parameter(allow_leading_hyphen=True)]
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


class Publisher:
    """Publishes the messages of a file's lines in batches. Prints each result with --json, otherwise each refusal."""

    def __init__(self, client: OperatorClient, name: str, *, as_json: bool) -> None:
        self._client = client
        self._name = name
        self._as_json = as_json
        self._pending: list[tuple[int, BatchMessage]] = []
        self._bytes = 0
        self.counts = {"published": 0, "duplicates": 0, "refused": 0}

    def add(self, line: int, message: BatchMessage) -> None:
        """Add the message of a line; ValueError for an invalid one."""
        assert isinstance(message.message, bytes)  # as both commands make them
        if b"\n" in message.message:
            # A batch is lines, so this one goes alone.
            self.flush()
            self.count(line, self._publish(message.message, message))
            return
        size = len(batch_line(message, lambda: "k"))
        if self._bytes + size > BATCH_BYTES or len(self._pending) == BATCH_MESSAGES:
            self.flush()
        self._pending.append((line, message))
        self._bytes += size

    def flush(self) -> None:
        """Publish what is pending."""
        pending, self._pending, self._bytes = self._pending, [], 0
        if pending:
            results = self._client.publish_batch([message for _, message in pending])
            for (line, _), result in zip(pending, results, strict=True):
                self.count(line, result)

    def count(self, line: int, result: Published | Refused) -> None:
        """Count the result of a line."""
        match result:
            case Published(duplicate=duplicate):
                self.counts["duplicates" if duplicate else "published"] += 1
            case Refused(error_code=code, error_message=text):
                self.counts["refused"] += 1
                if not self._as_json:
                    note(f"{self._name}, line {line}: {code}: {text}")
        if self._as_json:
            print_json({"line": line, **msgspec.to_builtins(result)})

    def _publish(self, body: bytes, message: BatchMessage) -> Published | Refused:
        try:
            return self._client.publish(
                message.account,
                body,
                ordering_key=message.ordering_key,
                idempotency_key=message.idempotency_key,
            )
        except ApiException as error:
            if error.status_code not in _OF_ONE_MESSAGE:
                raise
            return Refused(error.error_code or "", error.error_message or str(error))


def publish_lines(file: str, command: str, parse: Parse, remote: Remote) -> int:
    """Publish the message of each line, in order, without blank lines; the exit code."""
    with open_input(file, command) as content, remote.operator() as client:
        publisher = Publisher(client, "stdin" if file == STDIO else file, as_json=remote.as_json)
        try:
            with counting(_size(content), "published", in_bytes=True) as advance:
                done = 0
                for number, line in enumerate(read_lines(content), 1):
                    if line.strip():
                        try:
                            publisher.add(number, parse(line))
                        except ValueError as error:
                            publisher.count(number, Refused("INVALID_LINE", str(error)))
                    done += len(line) + 1
                    advance(done)
                publisher.flush()
        finally:
            # Also if it was cut short: what the service has, it has.
            if not remote.as_json:
                print_facts(publisher.counts, as_json=False)
    return 1 if publisher.counts["refused"] else 0


def _size(file: IO[bytes]) -> int | None:
    """The bytes of a regular file; None for a pipe."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def check_file_name(name: str, command: str) -> None:
    """A usage error for an unknown option: since - is allowed, cyclopts takes all that begin like it for files."""
    if name.startswith("-") and name != STDIO:
        raise UsageError(f"Unknown option: {name}; see fotahook {command} --help")


@contextlib.contextmanager
def open_input(name: str, command: str) -> Iterator[IO[bytes]]:
    """The file of that name, or stdin for -."""
    check_file_name(name, command)
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file without their ends; Failure for one that is too long."""
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise Failure(f"line {number} has more than {LINE_LIMIT} bytes; a line is one message")
        yield line.removesuffix(b"\n").removesuffix(b"\r")
