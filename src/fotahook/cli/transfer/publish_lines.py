"""Files of messages, a line for each, handed over to a service: what `publish --batch` and `import` have in common."""

import os
import stat
import sys
from collections.abc import Callable
from typing import IO

from fotahook.contract.operator import BatchMessage, Published, Refused

from ..shared.progress import counting
from ..shared.remote import Remote
from ..shared.tables import print_facts, print_json
from .batches import Batches
from .line_files import STDIN, opened, read_lines

Read = Callable[[bytes], BatchMessage]
"""The message of a line; ValueError says what is wrong with it."""


class Tally:
    """What became of the lines so far; a refusal is told at once."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._as_json = as_json
        self.published = 0
        self.duplicates = 0
        self.refused = 0

    def count(self, line: int, answer: Published | Refused) -> None:
        match answer:
            case Published(id=message_id, duplicate=duplicate):
                self.duplicates += duplicate
                self.published += not duplicate
                if self._as_json:
                    print_json({"line": line, "id": message_id, "duplicate": duplicate})
            case Refused(error_code=code, error_message=text):
                self.refused += 1
                if self._as_json:
                    print_json({"line": line, "errorCode": code, "errorMessage": text})
                else:
                    print(f"fotahook: {self._name}, line {line}: {code}: {text}", file=sys.stderr)

    def show(self) -> None:
        if not self._as_json:
            facts = {"published": self.published, "duplicates": self.duplicates, "refused": self.refused}
            print_facts(facts, as_json=False)


def publish_lines(file: str, command: str, read: Read, remote: Remote) -> int:
    """Publish the message of each line, in order; the exit code. Blank lines are passed over."""
    tally = Tally("stdin" if file == STDIN else file, as_json=remote.as_json)
    with opened(file, command) as content, remote.operator() as client:
        batches = Batches(client, tally.count)
        try:
            with counting(_size(content), "published", in_bytes=True) as advance:
                done = 0
                for number, line in enumerate(read_lines(content), 1):
                    if line.strip():
                        _add(batches, number, line, read, tally)
                    done += len(line) + 1
                    advance(done)
                batches.flush()
        finally:
            # Also where it was cut short: what the service has, it has.
            tally.show()
    return 1 if tally.refused else 0


def _add(batches: Batches, number: int, line: bytes, read: Read, tally: Tally) -> None:
    try:
        batches.add(number, read(line))
    except ValueError as error:
        tally.count(number, Refused("INVALID_LINE", str(error)))


def _size(file: IO[bytes]) -> int | None:
    """The bytes of a regular file; None for what has an end only when it comes."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
