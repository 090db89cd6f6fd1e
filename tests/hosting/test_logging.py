"""Logs go to stderr as readable lines at a terminal, as JSON elsewhere, and never contain frame locals."""

import io
import json
import logging
import os
import re
import sys

import pytest

from fotahook.hosting.logging import LogFormat, QueuedHandler, configure_logging

log = logging.getLogger("fotahook.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stderr, set in the test itself, since pytest replaces what a fixture sets."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def fail(token: str) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_where_it_failed_but_no_locals(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging(log_format)
    token = "seeded-secret"
    try:
        fail(token)
    except RuntimeError:
        log.exception("it failed")
    text = capsys.readouterr().err
    assert "it failed" in text
    assert "on purpose" in text
    assert "test_logging.py" in text
    assert token not in text


def test_json_is_one_object_a_line_whatever_the_message_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log.warning("one\ntwo")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"message": "one\ntwo", "level": "warning", "logger": "fotahook.test"}


def test_a_terminal_shows_time_level_logger_message_and_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    configure_logging()
    log.warning("GET: %s", 503, extra={"method": "GET", "path": None, "client": "a b", "milliseconds": 1.5})
    (line,) = terminal.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert rest == 'WARNING  fotahook.test: GET: 503 method=GET milliseconds=1.5 client="a b"'


def test_a_terminal_shows_further_lines_below_ready_to_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    configure_logging()
    log.warning("paste this:\n\n%s", "def handle(message):\n    print('\x1b[2J')\n")
    first, *below = terminal.getvalue().splitlines()
    assert first.endswith("paste this:")
    assert below == ["", "def handle(message):", "    print('?[2J')", ""]


def test_json_can_be_chosen_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    configure_logging("json")
    log.warning("at a terminal")
    assert json.loads(terminal.getvalue())["message"] == "at a terminal"


def test_text_can_be_chosen_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    log.warning("piped")
    assert capsys.readouterr().err.endswith("Z WARNING  fotahook.test: piped\n")


def test_a_pipe_that_nobody_reads_holds_up_only_the_log() -> None:
    reading, writing = os.pipe()
    handler = QueuedHandler(writing, limit=10)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("full")
    logger.addHandler(handler)
    for number in range(300):
        # The pipe has room for 16 of them, the queue for 10.
        logger.info("%d %s", number, "x" * 4096)
    with open(reading, encoding="ascii") as lines:
        told = 0
        written: list[str] = []
        while told + len(written) < 300:
            first, *rest = lines.readline().split(" ")
            if "dropped:" in rest:
                told += int(first)
            else:
                written.append(first)
        assert told > 200
        assert written[0] == "0"
        logger.info("the end")
        assert lines.readline() == "the end\n"
    os.close(writing)
