"""Runs an ASGI app on uvicorn: sockets, TLS, connection limits, signals and logging."""

import contextlib
import io
import os
from typing import TextIO


class HostingError(Exception):
    """The server cannot start; the text says why and what to change."""


class BadOption(HostingError):
    """An option has an invalid value."""


def discard(stream: TextIO) -> None:
    """Send all further output of a stream to the null device, so that no work fails because its reader is gone."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
