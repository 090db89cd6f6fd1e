"""Files of lines, read a line at a time: from the front, up to a limit, and from the back."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ..shared.errors import Failure, UsageError

STDIN: Final = "-"
LINE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes in one line: a message in whatever way JSON may write it down."""

_BLOCK: Final = 256 * 1024


@contextmanager
def opened(name: str, command: str) -> Iterator[IO[bytes]]:
    """The file of that name, - for stdin; UsageError for an option that no command has."""
    if name == STDIN:
        yield sys.stdin.buffer
        return
    if name.startswith("-"):
        # For the sake of - alone cyclopts lets everything through that begins like an option.
        raise UsageError(f"Unknown option: {name}; see fotahook {command} --help")
    with Path(name).open("rb") as file:
        yield file


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file without their ends; Failure for one that is too long to be meant."""
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise Failure(f"line {number} has more than {LINE_LIMIT} bytes; a line is one message")
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def read_backwards(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file from the last to the first, each without its end."""
    place, rest = file.seek(0, os.SEEK_END), b""
    while place > 0:
        size = min(_BLOCK, place)
        place -= size
        file.seek(place)
        first, *others = (file.read(size) + rest).split(b"\n")
        yield from (line for line in reversed(others) if line)
        rest = first
    if rest:
        yield rest
