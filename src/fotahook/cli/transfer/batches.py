"""Publishing the lines of a file in order and in batches: what `publish --batch` and `import` share."""

import os
import stat
from collections.abc import Callable
from typing import IO, Final

import msgspec

from fotahook.client import OperatorClient
from fotahook.contract.errors import ApiException
from fotahook.contract.operator import BatchMessage, Published, Refused
from fotahook.contract.operator_calls import batch_line

from ..shared.progress import counting
from ..shared.remote import Remote
from ..shared.tables import note, print_facts, print_json
from .files import STDIO, open_input, read_lines

BATCH_MESSAGES: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024

# Refusals of a single message; any other status refuses all of them.
_OF_ONE_MESSAGE: Final = (400, 409, 413)

Parse = Callable[[bytes], BatchMessage]
"""The message of a line; ValueError says what is wrong with it."""


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
