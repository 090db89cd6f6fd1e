"""Standard streams in any state: closed, full, with another encoding, or without a reader."""

import io
import os
import sys
from typing import Literal, TextIO

from fotahook.hosting.stdio import discard


def open_missing() -> None:
    """Open the null device for each closed stream: else the next file opened would take its descriptor."""
    sys.stdin = sys.stdin or _null(0, "r")
    sys.stdout = sys.stdout or _null(1, "w")
    sys.stderr = sys.stderr or _null(2, "w")


def escape_unencodable(stream: object) -> None:
    """Print characters that the encoding lacks as escapes, rather than fail after the work is done."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def settle_output() -> None:
    """Flush stdout, or discard its content if that fails: else Python would fail for it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def print_error(line: str | None) -> None:
    """A line on stderr, if there is one and stderr accepts any."""
    try:
        if line:
            print(f"fotahook: {line}", file=sys.stderr)
    except OSError:
        discard(sys.stderr)


def _null(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    return open(descriptor, mode, encoding="utf-8", closefd=False)
