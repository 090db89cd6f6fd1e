"""What hosting raises when a server cannot start. The command line turns it into an exit code."""


class HostingError(Exception):
    """The server cannot start; the text says what failed and what to change."""


class BadOption(HostingError):
    """An option has a value that cannot be used."""
