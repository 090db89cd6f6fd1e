"""Exit codes, and the one line that goes with them."""

import errno
import os

import pytest

from fotahook.cli.shared.errors import Failure, UsageError, describe
from fotahook.contract.errors import (
    ApiException,
    AuthenticationError,
    ConnectionFailed,
    FotaV2ResultException,
    LoginRefused,
    PermissionDenied,
    ResponseError,
    ServerError,
    TimedOut,
    TlsError,
)
from fotahook.store.records import StoreFull, StoreUnavailable

from .conftest import Run, is_one_line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("x"), 1),
        (UsageError("x"), 2),
        (ValueError("x"), 2),
        (ConnectionFailed("x"), 3),
        (TimedOut("x"), 3),
        (TlsError("x"), 3),
        (ApiException("x"), 4),
        (FotaV2ResultException("x"), 4),
        (AuthenticationError("x"), 4),
        (LoginRefused("x"), 4),
        (PermissionDenied("x"), 4),
        (ServerError("x"), 1),
        (ResponseError("x"), 1),
        (StoreFull("x"), 1),
        (StoreUnavailable("x"), 1),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1),
        (OSError("x"), 1),
        (KeyError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_failure_has_its_exit_code_and_one_line(error: Exception, code: int) -> None:
    told_code, line = describe(error)
    assert told_code == code
    assert line
    assert "x" in line
    assert "\n" not in line


def test_an_interrupted_command_says_so() -> None:
    assert describe(KeyboardInterrupt()) == (130, "interrupted")


def test_a_command_that_exits_keeps_its_code() -> None:
    assert describe(SystemExit(7)) == (7, None)


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("serve", "uvicorn", "service"),
        ("admin", "argon2", "service"),
        ("listen", "uvicorn", "listener"),
        ("listen", "asyncpg", "postgres"),
        ("doctor", "cryptography.x509", "cli"),
        ("simulate", "trustme", "testing"),
        ("demo", "starlette", "all"),
    ],
)
def test_a_missing_module_is_named_with_the_smallest_extra_that_helps(command: str, module: str, extra: str) -> None:
    error = ImportError("cannot import")
    error.__cause__ = ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert describe(error, command) == (1, f"this command needs {module}: pip install 'fotahook[{extra}]'")


def test_a_bug_is_reported_with_its_location() -> None:
    with pytest.raises(KeyError) as raised:
        dict[str, str]()["absent"]
    _, line = describe(raised.value)
    assert line is not None
    assert os.path.basename(__file__) in line
    assert "report it" in line


def test_foreign_text_cannot_break_the_line(run: Run) -> None:
    result = run("serve", "--first\nsecond\x1b[2J")
    assert (result.code, is_one_line(result.err), "\x1b" in result.err) == (2, True, False)
