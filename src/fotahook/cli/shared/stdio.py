"""stdin, stdout and stderr as they are found: closed, full, of another encoding, with nobody at the other end."""

import io
import os
import sys
from typing import Literal, TextIO

from fotahook.hosting.stdio import discard, discard_stdout


def open_missing() -> None:
    """Put the void where a stream was closed: the next file opened would else be in its place, and be printed into."""
    sys.stdin = sys.stdin or _void(0, "r")
    sys.stdout = sys.stdout or _void(1, "w")
    sys.stderr = sys.stderr or _void(2, "w")


def forgive(stream: object) -> None:
    """Print what the terminal's encoding lacks as an escape, rather than fail after the work was done."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def settle_output() -> None:
    """Print what is still to be printed, or into the void where that cannot be: Python would fail for it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def complain(*lines: str) -> None:
    """Lines on stderr, as far as it takes any."""
    try:
        for line in lines:
            print(line, file=sys.stderr)
    except OSError:
        discard(sys.stderr)


def _void(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    found = os.open(os.devnull, os.O_RDWR)
    if found != descriptor:
        os.dup2(found, descriptor)
        os.close(found)
    return open(descriptor, mode, encoding="utf-8", closefd=False)
