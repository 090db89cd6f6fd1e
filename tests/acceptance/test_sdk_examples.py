"""The SDK's examples run as they stand, each as a program of its own against a real service."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from verizon.configuration import Configuration

from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples"
ACCOUNT = "0000123456-00001"
REGISTERED = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
MOVED = "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def run(sandbox: Sandbox, folder: Path, name: str, *arguments: str) -> list[str]:
    """What an example prints; it knows the service by its variables alone."""
    variables = {
        "THINGSPACE_BASE_URL": sandbox.base_url,
        "THINGSPACE_OAUTH_OAUTH_CLIENT_ID": DEV_CLIENT[0],
        "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": DEV_CLIENT[1],
        "VZ_M2M_USERNAME": DEV_USER[0],
        "VZ_M2M_PASSWORD": DEV_USER[1],
    }
    program = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        program, cwd=folder, env=variables, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_four_calls(sandbox: Sandbox, tmp_path: Path) -> None:
    assert run(sandbox, tmp_path, "sdk_callbacks.py", ACCOUNT) == [
        "registered: nothing",
        f"registered: {REGISTERED}",
        f"updated: {MOVED}",
        f"registered: {MOVED}",
        "deregistered: True",
    ]


def test_many_accounts_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    printed = run(sandbox, tmp_path, "sdk_async.py", ACCOUNT, "another")
    assert printed == [f"{ACCOUNT}: nothing registered", "another: nothing registered"]


def test_a_token_kept_between_processes(sandbox: Sandbox, tmp_path: Path) -> None:
    first, second = (run(sandbox, tmp_path, "sdk_tokens.py", ACCOUNT, "token.json") for _ in range(2))
    assert sum("oauth2/token" in line for line in first) == 1
    assert not any("oauth2/token" in line for line in second)


@pytest.mark.parametrize("kept", [False, True], ids=["fetched token", "kept token"])
def test_a_program_of_the_official_sdk_and_its_port_print_the_same(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kept: bool,
) -> None:
    sandbox.point_official_sdk(Configuration)
    variables = {
        "THINGSPACE_OAUTH_OAUTH_CLIENT_ID": DEV_CLIENT[0],
        "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": DEV_CLIENT[1],
        "VZ_M2M_USERNAME": DEV_USER[0],
        "VZ_M2M_PASSWORD": DEV_USER[1],
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    printed = []
    for program in ("official.py", "ported.py"):
        # Only the port needs it: the official SDK has no variable for it.
        monkeypatch.setenv("THINGSPACE_BASE_URL", sandbox.base_url)
        main = runpy.run_path(str(EXAMPLES / "official_sdk" / program))["main"]
        for _ in range(2 if kept else 1):
            main(ACCOUNT, REGISTERED, str(tmp_path / f"{program}.json"))
            printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == [
        "refused: 400 INVALID_PARAMETER",
        f"registered: {REGISTERED}",
        f"updated: {REGISTERED}",
        f"listed: 200 True {REGISTERED}",
        "deregistered: True",
        "login: 400",
    ]
    assert all(lines == printed[0] for lines in printed)
