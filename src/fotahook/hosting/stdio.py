"""Output whose reader has gone."""

import contextlib
import io
import os
import sys
from typing import TextIO


def discard_stdout() -> None:
    """Send all further output to the null device: the reader has gone, and no work may fail for that."""
    discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Point a stream's file descriptor at the null device."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
