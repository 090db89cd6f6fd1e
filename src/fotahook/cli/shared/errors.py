"""How a command fails: an exit code, and one line that says what happened, to what, and what to do."""

# Every command loads this module, and so does --help: the rest is imported when something failed.
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130

_EXTRAS: Final = {
    "argon2": "service",
    "asyncpg": "postgres",
    "cryptography": "cli",
    "mcp": "mcp",
    "mcp_types": "mcp",
    "prometheus_client": "service",
    "trustme": "testing",
}
"""Modules of one extra only. The service and the listener share the others."""


class Failure(Exception):
    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


class UsageError(Failure):
    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)


@contextmanager
def flag_named(flag: str) -> Iterator[None]:
    """Turn a ValueError about a flag's value into a usage error that names the flag."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def describe(error: BaseException, command: str = "") -> tuple[int, str | None]:
    """The exit code for an error and its text, None for no text. `command` is the one that failed."""
    from asyncio import CancelledError

    from cyclopts.exceptions import CycloptsError

    from fotahook.contract import errors
    from fotahook.hosting import BadOption, HostingError
    from fotahook.hosting.flags import location
    from fotahook.store.records import StoreError, StoreFull

    text = str(error)
    match error:
        case SystemExit(code=code):
            return (FAILED, code) if isinstance(code, str) else (code if isinstance(code, int) else FAILED, None)
        case KeyboardInterrupt() | CancelledError():
            return INTERRUPTED, "interrupted"
        case BrokenPipeError():
            return FAILED, None
        case ImportError() if (module := _missing_module(error)) is not None:
            # The smallest extra with which the command works.
            extra = "service" if command in ("serve", "admin") else "listener"
            extra = "all" if command == "demo" else _EXTRAS.get(module.partition(".")[0], extra)
            return FAILED, f"this command needs {module}: pip install 'fotahook[{extra}]'"
        case Failure():
            return error.code, text
        case StoreError():
            return FAILED, text + "; make room on the disk of the store and run it again" * isinstance(error, StoreFull)
        case HostingError():
            return USAGE if isinstance(error, BadOption) else FAILED, text
        case CycloptsError():
            command = " ".join(["fotahook", *(error.command_chain or ())])
            # A list that is cut ends in dots, which stay.
            text = text.strip() if text.endswith("...") else text.strip().rstrip("., ")
            return USAGE, f"{text}{' ' if text.endswith('?') else '; '}see {command} --help"
        case errors.TransportError():
            return UNREACHABLE, f"{text.rstrip('.')}; check --base-url, and that the service runs"
        case errors.LoginRefused() | errors.AuthenticationError():
            advice = "check the credentials in the environment, or give --local for a service in --dev"
            return REFUSED, f"{text.rstrip('.')}; {advice}"
        case errors.PermissionDenied():
            return REFUSED, f"{text.rstrip('.')}; ask the service's operator for the account or the scope"
        case errors.ServerError():
            return FAILED, f"{text.rstrip('.')}; try again, or look into the service's log"
        case errors.FotahookError():
            return REFUSED if isinstance(error, errors.ApiException) else FAILED, text.rstrip(".")
        case OSError(filename=str() | bytes() as name):
            return FAILED, f"{os.fsdecode(name)}: {error.strerror}"
        case OSError(errno=errno.ENOSPC | errno.EFBIG | errno.EDQUOT):
            return FAILED, f"cannot write: {error.strerror}; make room and run it again"
        case OSError():
            return FAILED, error.strerror or text
        case ValueError():
            return USAGE, text
    return FAILED, f"a bug in fotahook: {type(error).__name__}: {error} ({location(error)}); please report it"


def _missing_module(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and not (error.name or "fotahook").startswith("fotahook"):
            return error.name
        error = error.__cause__
    return None
