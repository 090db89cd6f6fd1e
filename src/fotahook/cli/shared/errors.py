"""How a command fails: an exit code, and one line that says what happened, to what, and what to do."""

# Whatever is loaded here, every command waits for, and so does --help: the rest is loaded when something failed.
import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cyclopts.exceptions import CycloptsError

    from fotahook.contract.errors import FotahookError

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130


class Failure(Exception):
    """The command failed; the text is for the person who typed it, `details` are lines to show before it."""

    code = FAILED

    def __init__(self, text: str, *, details: str = "") -> None:
        super().__init__(text)
        self.details = details


class UsageError(Failure):
    """The command cannot be meant like this."""

    code = USAGE


class Interrupted(Failure):
    """Ctrl-C ended it; the text says how to go on."""

    code = INTERRUPTED


def told(error: BaseException) -> tuple[int, str | None]:
    """The exit code for what was raised, and its line; None where nothing need be said."""
    from asyncio import CancelledError

    from fotahook.contract.error_responses import one_line

    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else FAILED, None
        case KeyboardInterrupt() | CancelledError():
            return INTERRUPTED, "interrupted"
        case BrokenPipeError():
            return FAILED, None
    code, line = _told(error)
    return code, one_line(line)


def _told(error: BaseException) -> tuple[int, str]:
    from cyclopts.exceptions import CycloptsError

    from fotahook.contract.errors import FotahookError
    from fotahook.hosting.errors import BadOption, HostingError
    from fotahook.store.records import StoreError, StoreFull

    match error:
        case StoreFull():
            return FAILED, f"{error}; make room on the disk of the store and run it again"
        case StoreError():
            return FAILED, str(error)
        case Failure():
            return error.code, str(error)
        case HostingError():
            return USAGE if isinstance(error, BadOption) else FAILED, str(error)
        case CycloptsError():
            return USAGE, _told_usage(error)
        case FotahookError():
            return _told_sdk(error)
        case ImportError() if (missing := _missing_module(error)) is not None:
            return FAILED, f"this command needs {missing}: pip install 'fotahook[all]'"
        case OSError(filename=str() | bytes() as name):
            return FAILED, f"{os.fsdecode(name)}: {error.strerror}"
        case OSError(errno=errno.ENOSPC | errno.EFBIG | errno.EDQUOT):
            return FAILED, f"cannot write: {error.strerror}; make room and run it again"
        case OSError():
            return FAILED, error.strerror or str(error)
        case ValueError():
            return USAGE, str(error)
    return FAILED, _told_bug(error)


def _told_usage(error: "CycloptsError") -> str:
    command = " ".join(["fotahook", *(error.command_chain or ())])
    said = str(error).strip().rstrip("., ")
    return f"{said}{' ' if said.endswith('?') else '; '}see {command} --help"


def _told_sdk(error: "FotahookError") -> tuple[int, str]:
    from fotahook.contract.errors import (
        ApiException,
        AuthenticationError,
        LoginRefused,
        PermissionDenied,
        ServerError,
        TransportError,
    )

    said = str(error).rstrip(".")
    match error:
        case TransportError():
            return UNREACHABLE, f"{said}; check --base-url, and that the service runs"
        case LoginRefused() | AuthenticationError():
            return REFUSED, f"{said}; check the credentials in the environment, or give --dev for a service in --dev"
        case PermissionDenied():
            return REFUSED, f"{said}; ask who runs the service for the account or the scope"
        case ServerError():
            return FAILED, f"{said}; try again, or look into the service's log"
        case ApiException():
            return REFUSED, said
    return FAILED, said


def _missing_module(error: BaseException | None) -> str | None:
    """The module of an extra that is not installed, from anywhere in the chain of causes."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and not (error.name or "fotahook").startswith("fotahook"):
            return error.name
        error = error.__cause__
    return None


def _told_bug(error: BaseException) -> str:
    return f"a fault in fotahook itself: {type(error).__name__}: {error} ({where(error)}); please report it"


def where(error: BaseException) -> str:
    """File and line that raised an error."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return f"{getattr(error, 'filename', None)}, line {getattr(error, 'lineno', None)}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}"
