"""Output streams that nobody reads any more."""

import contextlib
import io
import os
from typing import TextIO


def discard(stream: TextIO) -> None:
    """Send all further output of a stream to the null device, so that no work fails because its reader is gone."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
