"""Errors of a server that cannot start; the command line turns them into exit codes."""


class HostingError(Exception):
    """The server cannot start; the text says why and what to change."""


class BadOption(HostingError):
    """An option has an invalid value."""
