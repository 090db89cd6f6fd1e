"""What `fotahook listen` prints for each message at a terminal."""

import io
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fotahook.cli.listen import print_json_line, print_readable
from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.listener import Context

ACCOUNT = "0000123456-00001"
CONTEXT = Context(id="m1", attempt=1, received_at=1_800_000_000.0)
RED, GREEN, YELLOW, CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1;36m"


class Terminal(io.TextIOWrapper):
    """A stdout that is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8")

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


Show = Callable[[CallbackMessage], str]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    """Prints a message at a terminal, and returns what the terminal got."""
    for name in ("NO_COLOR", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def show(message: CallbackMessage) -> str:
        terminal = Terminal()
        # pytest sets it anew before each test.
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            print_readable(message, CONTEXT)
        return terminal.text()

    return show


def message(body: str) -> CallbackMessage:
    return parse_message(body.encode())


def progress(*devices: str) -> CallbackMessage:
    """An upgradeProgress message with these members of deviceList."""
    part = f'{{"campaignId": "c1", "deviceList": [{", ".join(devices)}]}}'
    return message(f'{{"accountName": "{ACCOUNT}", "type": "upgradeProgress", "upgradeProgress": {part}}}')


def device(number: int, status: str = "UpgradeSuccess", reason: str = "") -> str:
    return f'{{"deviceId": "{number:015}", "status": "{status}", "resultReason": "{reason}"}}'


def plain(text: str) -> list[str]:
    """The lines without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_a_message_is_a_line_and_each_device_another(show: Show) -> None:
    assert plain(show(progress(device(1, "UpgradeSuccess", "Done"), device(2, "UpgradePending")))) == [
        f"08:00:00Z  upgradeProgress  {ACCOUNT}  c1",
        "    000000000000001  UpgradeSuccess  Done",
        "    000000000000002  UpgradePending",
    ]


@pytest.mark.parametrize(
    ("status", "colour"),
    [
        ("UpgradeSuccess", GREEN),
        ("CampaignEnded", GREEN),
        ("DownloadFailed", RED),
        ("RequestRejected", RED),
        ("UpgradePending", YELLOW),
        ("Whatever", YELLOW),
    ],
)
def test_the_colour_of_a_status_says_how_it_went(show: Show, status: str, colour: str) -> None:
    shown = show(progress(device(1, status)))
    assert f"{colour}{status}" in shown
    assert f"{CYAN}  upgradeProgress" in shown


def test_no_color_is_honoured(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", show(progress(device(1, "DownloadFailed"))))


@pytest.mark.parametrize(
    ("count", "more"), [(10, None), (11, "    and 1 more devices"), (500, "    and 490 more devices")]
)
def test_only_ten_devices_are_printed(show: Show, count: int, more: str | None) -> None:
    lines = plain(show(progress(*map(device, range(count)))))
    assert len(lines) == 1 + 10 + (more is not None)
    assert more is None or lines[-1] == more


def test_control_characters_and_markup_of_a_message_reach_no_terminal(show: Show) -> None:
    (line,) = plain(show(message('{"accountName": "[red]\\u001b[2J\\n\\u202e", "type": "a\\u0007b\\u009b31m"}')))
    assert "[red]" in line
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", line)


def test_long_text_is_cut(show: Show) -> None:
    assert max(map(len, plain(show(progress(device(1, "s" * 5000, "r" * 5000)))))) < 300


@pytest.mark.parametrize(
    "body", ["[]", "7", "{}", '{"type": 7, "upgradeProgress": 1}', '{"campaign": {"deviceList": [7, null, {}]}}']
)
def test_a_message_of_any_shape_is_printed(show: Show, body: str) -> None:
    assert plain(show(message(body)))[0].startswith("08:00:00Z  ")


def test_json_hides_the_password_and_carries_the_whole_message(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line(message(f'{{"accountName": "{ACCOUNT}", "password": "hunter2", "extra": [1]}}'), CONTEXT)
    printed = capsys.readouterr().out
    assert '"extra": [1]' in printed
    assert '"password": "(hidden)"' in printed
    assert "hunter2" not in printed


class Closed(Terminal):
    """A stdout whose reader has gone."""

    def write(self, text: str) -> int:
        if text:
            raise BrokenPipeError
        return 0

    def fileno(self) -> int:
        raise io.UnsupportedOperation


@contextmanager
def terminated() -> Iterator[list[int]]:
    """The SIGTERMs that this process sends itself."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("handler", [print_readable, print_json_line])
def test_without_a_reader_the_listener_stops_and_the_message_stays_unhandled(
    monkeypatch: pytest.MonkeyPatch, handler: object
) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    assert callable(handler)
    with terminated() as received, pytest.raises(BrokenPipeError):
        handler(progress(device(1)), CONTEXT)
    assert received == [signal.SIGTERM]
