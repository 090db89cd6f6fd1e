"""Runs an ASGI app on uvicorn: sockets, TLS, connection limits, signals and logging."""


class HostingError(Exception):
    """The server cannot start; the text says why and what to change."""


class BadOption(HostingError):
    """An option has an invalid value."""
