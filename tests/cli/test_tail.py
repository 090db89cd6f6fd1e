"""`fotahook tail` against a running service."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from fotahook import OperatorClient
from fotahook.cli.operate import describe
from fotahook.service.event_feed import Cursors
from fotahook.store.events import EventCursor
from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE

from .conftest import Run, is_one_line
from .processes import FOTAHOOK, end, environment

ACCOUNT = "0000123456-00001"
ON = re.compile(rf"fotahook: interrupted; fotahook tail {ACCOUNT} --after (\S+) continues from here\n")


def cursor_of(sandbox: Sandbox, messages: int = 0) -> str:
    """A cursor of the sandbox's events, its first one unless it is after so many messages."""
    return Cursors(sandbox._secret_key).seal_events(EventCursor(messages=messages))


class Tail:
    """A tail that runs, whose lines are read as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self) -> list[str]:
        return self._lines.get(timeout=DEADLINE).rstrip("\n").split("\t")

    def interrupt(self) -> str:
        """The cursor that it prints when it is interrupted."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr is not None
        result = self.process.stderr.read()
        assert self.process.wait(DEADLINE) == 130, result
        found = ON.fullmatch(result)
        assert found, result
        return found[1]

    def end(self) -> None:
        self.process.kill()
        self._reader.join(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        end(self.process)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


@contextmanager
def tailing(sandbox: Sandbox, *arguments: str, cwd: Path) -> Iterator[Tail]:
    tail = Tail(
        subprocess.Popen(
            [*FOTAHOOK, "tail", ACCOUNT, *arguments, "--base-url", sandbox.base_url, "--dev"],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    try:
        yield tail
    finally:
        tail.end()


def test_events_are_printed_and_a_later_tail_continues_from_the_cursor_of(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    with tailing(sandbox, "--after", cursor_of(sandbox), cwd=tmp_path) as first:
        sandbox.register(ACCOUNT)
        assert first.line() == ["time", "event", "account", "state", "message", "what"]
        assert [first.line()[1:] for _ in range(2)] == [
            ["callback.changed", ACCOUNT, "registered", "", f"{sandbox.receiver.url} by sandbox"],
            ["lane.changed", ACCOUNT, "open", "", f"lane {ACCOUNT}"],
        ]
        message_id = sandbox.publish(ACCOUNT, {"type": "upgradeProgress"}, ordering_key="k")
        assert first.line()[1:] == [
            "message.accepted",
            ACCOUNT,
            "accepted",
            message_id,
            "upgradeProgress, 26 bytes, key k",
        ]
        assert first.line()[1:5] == ["attempt.finished", ACCOUNT, "delivered", message_id]
        cursor = first.interrupt()
    missed = sandbox.publish(ACCOUNT, {})
    with tailing(sandbox, "--after", cursor, "--json", cwd=tmp_path) as second:
        accepted = json.loads("\t".join(second.line()))
        assert (accepted["event"], accepted["id"], accepted["size"]) == ("message.accepted", missed, 2)
        delivered = json.loads("\t".join(second.line()))
        assert (delivered["event"], delivered["state"], delivered["number"]) == ("attempt.finished", "delivered", 1)
        assert second.interrupt() == delivered["cursor"]


def test_every_kind_of_event_is_described(run: Run, sandbox: Sandbox) -> None:
    sandbox.reset()
    sandbox.register(ACCOUNT)
    sandbox.faults.answer_deliveries(500, times=20)
    message_id = sandbox.publish(ACCOUNT, {})
    sandbox.drain()
    with OperatorClient(sandbox.base_url, "dev", "dev-secret", proxy="") as client:
        client.pause(ACCOUNT)
        described = []
        for event in client.events(after=cursor_of(sandbox), timeout=DEADLINE):
            described.append(describe(event.data))
            if described[-1][0] == "paused":
                break
    assert ("accepted", message_id, "no type, 2 bytes") in described
    assert ("dead", message_id, "dead: http_500") in described
    assert ("paused", "", f"lane {ACCOUNT}") in described
    assert any(what.startswith("attempt 8: http_500, ") for state, _, what in described if state == "dead")


def test_a_service_that_is_not_there_is_unreachable(run: Run) -> None:
    result = run("tail", "--base-url", "http://127.0.0.1:1", "--dev")
    assert (result.code, result.out) == (3, "")
    assert is_one_line(result.err)


@pytest.mark.parametrize("messages", [None, 99_999])
def test_an_invalid_cursor_is_refused(run: Run, sandbox: Sandbox, messages: int | None) -> None:
    after = "nonsense" if messages is None else cursor_of(sandbox, messages)
    result = run("tail", "--after", after, "--base-url", sandbox.base_url, "--dev")
    assert (result.code, result.out) == (4, "")
    assert is_one_line(result.err)
    assert "begin without one" in result.err
