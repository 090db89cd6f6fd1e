"""Files of lines: written whole or not at all, read line by line from the front or the back."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final, TypeAlias

from cyclopts import Parameter

from .errors import Failure, UsageError

STDIO: Final = "-"
FileArgument: TypeAlias = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file name, or - for stdin or stdout."""
LINE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes in one line: a message, in any spelling of its JSON."""

_BLOCK: Final = 256 * 1024


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


@contextlib.contextmanager
def open_output(name: str, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A new file, or stdout for -. If the block raises, the file stays as it was.

    Only its owner can read the file. Devices and pipes are written to directly. UsageError for an existing file unless
    `overwrite`.
    """
    if name == STDIO:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as opened:
            yield opened
        return
    if path.exists() and not overwrite:
        raise UsageError(f"{name} exists; give --force to overwrite it, or another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    except OSError as error:
        # The name that was given, not that of the temporary file.
        raise Failure(f"{name}: {error.strerror or error}; nothing of it was written") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file without their ends; Failure for one that is too long."""
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise Failure(f"line {number} has more than {LINE_LIMIT} bytes; a line is one message")
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def read_backwards(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file from last to first, without their ends."""
    position, rest = file.seek(0, os.SEEK_END), b""
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        first, *others = (file.read(size) + rest).split(b"\n")
        yield from (line for line in reversed(others) if line)
        rest = first
    if rest:
        yield rest
