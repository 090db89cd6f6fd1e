"""Output streams that nobody reads any more."""

import contextlib
import io
import os
import sys
from typing import TextIO


def discard_stdout() -> None:
    """Send all further output to the null device, so that no work fails because its reader is gone."""
    discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Point a stream's file descriptor at the null device."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
