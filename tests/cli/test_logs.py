"""Logs are JSON lines on stderr, and hold no secrets."""

import json
import logging

import pytest

from fotahook.cli.logs import log_as_json


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
