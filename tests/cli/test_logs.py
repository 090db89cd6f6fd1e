"""Logs are JSON lines on stderr, and hold no secrets."""

import io
import json
import logging
import sys

import pytest

from fotahook.hosting.logging import log_as_json


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)


def test_a_traceback_tells_where_and_not_what_was_in_hand(capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    token = "seeded-secret"
    try:
        _fail(token)
    except RuntimeError:
        logging.getLogger("fotahook.test").exception("it failed")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["message"], told["level"]) == ("it failed", "error")
    assert "on purpose" in line
    assert token not in line


def _fail(token: str) -> None:
    raise RuntimeError("on purpose")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_a_text_of_several_lines_can_be_read_and_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log_as_json()
    logging.getLogger("fotahook.test").warning("paste this:\n\n%s", "def handle(message):\n    print('\x1b[2J')\n")
    first, *more = terminal.getvalue().splitlines()
    assert json.loads(first)["message"] == "paste this:"
    assert more == ["", "def handle(message):", "    print('?[2J')", ""]


def test_elsewhere_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    logging.getLogger("fotahook.test").warning("one\ntwo")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "one\ntwo"
