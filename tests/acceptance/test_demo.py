"""`fotahook demo` as a new user runs it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import FOTAHOOK, environment, fotahook
from tests.deadlines import DEADLINE


def figures(out: str) -> dict[str, str]:
    """The figures printed at the end."""
    return dict(re.findall(r"^(accepted|delivered|handled|duplicates|lost|p50|p99) +(\d+(?: ms)?)$", out, re.MULTILINE))


def test_the_demo_runs_the_whole_loop_and_proves_its_claims(tmp_path: Path) -> None:
    done = fotahook("demo", "--devices", "20", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    steps = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert steps[:6] == ["service", "listener", "list", "register", "list", "update"]
    assert "nothing is registered" in done.stdout.splitlines()[2]
    found = figures(done.stdout)
    assert {name: found[name] for name in ("accepted", "delivered", "handled", "duplicates", "lost")} == {
        "accepted": "60",
        "delivered": "60",
        "handled": "60",
        "duplicates": "0",
        "lost": "0",
    }
    assert found["p50"].endswith(" ms")
    assert found["p99"].endswith(" ms")
    assert [line.split()[0] for line in done.stdout.splitlines()[-5:]] == ["yes"] * 5
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo with a long campaign, which has just begun."""
    process = subprocess.Popen(
        [*FOTAHOOK, "demo", "--devices", "5000"],
        env=environment(TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("update"):
                break
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(
    demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    children = children_of(demo.pid)
    assert len(children) == 2
    demo.send_signal(number)
    _, err = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 130
    assert "Traceback" not in err
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_dies_is_named_and_everything_is_cleaned_up(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    service, listener = sorted(children_of(demo.pid))
    os.kill(listener, signal.SIGKILL)
    _, err = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 1
    assert "fotahook listen ended by itself" in err
    assert "Traceback" not in err
    assert not Path(f"/proc/{service}").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_demo_without_devices_is_a_usage_error() -> None:
    done = fotahook("demo", "--devices", "0")
    assert done.returncode == 2
    assert done.stderr.startswith('fotahook: Invalid value "0" for --devices')


def children_of(pid: int) -> list[int]:
    """The child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
