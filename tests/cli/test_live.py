"""`fotahook listen` at a terminal: a person at a pseudo-terminal reads the screen and presses keys."""

import base64
import contextlib
import io
import json
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from rich.console import Console

from fotahook.cli import live_screen
from fotahook.cli.curl import as_curl
from fotahook.cli.live_screen import Came, Handled, Opened, Pressed, Said, Screen
from fotahook.contract import signing
from fotahook.contract.keys import parse_secret_key, signing_seed
from fotahook.delivery import Outcome
from fotahook.testing import Simulation, upgrade_progress
from tests.delivery.conftest import a_delivery, a_lease
from tests.testing.receivers import receiving

from .processes import DEADLINE, FOTAHOOK, end, environment, fotahook

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
AWKWARD = (
    b'\xef\xbb\xbf{"accountName": "0000123456-00001",\r\n\t"password": "hush", '
    b'"x": "it\'s \xc3\xa9 \xc2\x9b31m %s \\n"}'
)


class Terminal:
    """A listener at work at a terminal of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", screen: int) -> None:
        self.process = process
        self._screen = screen
        self._raw = b""
        self._place = 0
        self.url = self.read(r"fotahook ready (\S+)")[1]

    @property
    def shown(self) -> str:
        """All that the screen has shown, but for colours and movements."""
        return ESCAPES.sub("", self._raw.decode(errors="ignore"))

    def read(self, expected: str, *, anew: bool = False) -> re.Match[str]:
        """Wait until something is shown, behind what was read before or, anew, anywhere."""
        self._place = 0 if anew else self._place
        pattern, until = re.compile(expected, re.DOTALL), time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(self._screen, selectors.EVENT_READ)
            while (found := pattern.search(self.shown, self._place)) is None:
                assert selector.select(until - time.monotonic()), f"never shown: {expected}\n{self.shown}"
                self._raw += os.read(self._screen, 65536)
        self._place = found.end()
        return found

    def press(self, key: str) -> None:
        os.write(self._screen, key.encode())

    def copied(self) -> bytes:
        """What c puts into the clipboard, which a terminal is asked for by a sequence of its own."""
        self.press("c")
        return base64.b64decode(self.read(r"\x1b\]52;c;(\S+)\x07")[1])

    def post(self, body: bytes) -> None:
        assert urllib3.request("POST", self.url, body=body, retries=False).status == 200

    def gives_lines(self) -> bool:
        """Whether the terminal hands over what is typed by the line, as it does for everybody else."""
        return bool(termios.tcgetattr(self._screen)[3] & termios.ICANON)


IN_SESSION = """\
import fcntl, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
command = subprocess.Popen(sys.argv[2:], process_group=0 if sys.argv[1] == "background" else None)
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: command.terminate())
sys.exit(command.wait())
"""
"""A shell's part: a session whose terminal this is, and a command in its foreground or in its background."""


@contextlib.contextmanager
def listening(
    folder: Path, *arguments: str, stdin: int | None = None, session: str | None = None
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    shell = () if session is None else (sys.executable, "-c", IN_SESSION, session)
    try:
        process = subprocess.Popen(
            [*shell, *FOTAHOOK, "listen", *arguments, "--port", "0"],
            cwd=folder,
            env=environment(TERM="xterm-256color", COLUMNS="160"),
            stdin=theirs if stdin is None else stdin,
            stdout=theirs,
            stderr=theirs,
            start_new_session=session is not None,
        )
    finally:
        os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if session is not None:
            process.terminate()
            process.wait(DEADLINE)
        end(process)
        os.close(ours)


def test_messages_are_shown_with_what_they_say_of_devices(tmp_path: Path) -> None:
    messages = list(Simulation("0000123456-00001", devices=2, failures=0.5))
    with listening(tmp_path) as terminal:
        terminal.read("waiting for messages at http://127", anew=True)
        for message in (messages[0], messages[-2], messages[-3]):
            terminal.post(message.body)
        terminal.read(r"#1  \d\d:\d\d:\d\d  softwareList  0000123456-00001  \d+ bytes  not proved")
        for number in "23":
            entry = (
                rf"#{number}  \S+  upgradeProgress  0000123456-00001  campaign [0-9a-f-]{{36}}  \d+ bytes  not proved"
            )
            terminal.read(
                entry + r"\s+\d{15}  (UpgradeSuccess  DownloadInstallSucceeded|UpgradedFailed  RovaClient\w+)"
            )
        terminal.post(b'{"upgradeScheduled": {"upgradeId": "u-1", "firmwareName": "f"}}')
        terminal.read(r"#4  \S+  upgradeScheduled \(no type\)  no account  campaign u-1")
        terminal.post(b"[1]")
        terminal.read(r"#5  \S+  of unknown kind  no account  3 bytes")


def test_the_docs_show_what_is_shown(tmp_path: Path) -> None:
    assert "`fotahook simulate 0000123456-00001 --devices 1 --to http://127.0.0.1:8081/`" in DOCS.read_text()
    (printed,) = re.findall(r"```text\nfotahook ready \S+ inbox=\S+\n(#1 .*?)\n```", DOCS.read_text(), re.DOTALL)
    *entries, last = re.split(r"\n(?=#)", printed)
    with listening(tmp_path) as terminal:
        # One after the other, since there is no order between a campaign and its devices.
        for message, entry in zip(Simulation("0000123456-00001", devices=1, seed="7"), entries, strict=True):
            terminal.post(message.body)
            shown = r"\d\d:\d\d:\d\d".join(map(re.escape, entry.split("08:30:11")))
            terminal.read(shown.replace("\\\n", r"\r?\n"))
        terminal.read(r"\d\d:\d\d:\d\d".join(map(re.escape, last.split("08:30:11"))))


def test_what_senders_had_to_show_is_told(tmp_path: Path) -> None:
    flags = ("--source", "127.0.0.0/8", "--basic", "user:hush")
    with listening(tmp_path, *flags) as terminal:
        terminal.post(b'{"username": "user", "password": "hush"}')
        terminal.read("from a known address, with its password")


@pytest.mark.usefixtures("curl")
def test_a_message_is_chosen_read_and_copied_byte_for_byte(tmp_path: Path) -> None:
    with listening(tmp_path) as terminal:
        terminal.press("b")  # nothing has come yet
        terminal.post(json.dumps(upgrade_progress()).encode())
        terminal.read("#1 .*#1 ")
        terminal.post(AWKWARD)
        terminal.read("#2 .*#2 ")
        terminal.press("b")
        read = terminal.read(r'"accountName": "0000123456-00001",.*\}')
        assert '"password": "(hidden)"' in read[0]
        assert r"it's é \u009b31m %s \n" in read[0]
        command = terminal.copied()
        assert command.isascii()
        with receiving() as peer:
            replaced = command.replace(terminal.url.encode(), peer.url.encode())
            subprocess.run(["/bin/sh", "-c", replaced], check=True, timeout=DEADLINE, capture_output=True)
            assert peer.bodies == [AWKWARD]
        terminal.press("\x1b[A")
        terminal.read(r"#1  \S+  upgradeProgress   ↑↓")
        assert b"UpgradeSuccess" in terminal.copied()
        terminal.press("kjj")  # no further than to either end
        terminal.read(r"#2  \S+  of unknown kind   ↑↓")
        terminal.press("r")
        terminal.read("start with --replay-to URL")
        assert not terminal.gives_lines()
        terminal.press("q")
        assert terminal.process.wait(DEADLINE) == 0
        assert terminal.gives_lines()


def test_a_message_is_replayed_as_forwards_are_sent(tmp_path: Path) -> None:
    with receiving() as peer, listening(tmp_path, "--replay-to", peer.url) as terminal:
        terminal.post(AWKWARD)
        terminal.read("c curl  r replay")
        terminal.press("r")
        terminal.read(rf"#1  replayed to {peer.url}: 200 in \d+ ms")
        assert peer.bodies == [AWKWARD]
        (headers,) = peer.headers
        assert headers["fotahook-account"] == "0000123456-00001"
        seed = signing_seed(parse_secret_key((tmp_path / "inbox.db.key").read_text()))
        public_key = signing.parse_public_key(signing.format_public_key(seed))
        signing.verify(headers, AWKWARD, public_keys=[public_key], now=time.time())


def test_what_came_of_a_replay_is_told_with_its_fix(tmp_path: Path) -> None:
    with listening(tmp_path, "--replay-to", "http://127.0.0.1:9/") as terminal:
        terminal.post(b"{}")
        terminal.read("c curl  r replay")
        terminal.press("r")
        terminal.read("#1  replayed to http://127.0.0.1:9/: connection_refused. Nothing listens on that port")
        assert b" http://127.0.0.1:9/\n" in terminal.copied()


def test_what_handlers_print_raise_and_log_stands_among_the_messages(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "import fotahook\n"
        "listener = fotahook.Listener(schedule=[0, 0])\n"
        "@listener.on_any\n"
        "def handle(message, context):\n"
        "    print('handling', message.account_name)\n"
        "    if context.attempt == 1:\n"
        "        raise ValueError('\\x1b[31mnot \\x9bnow')\n"
    )
    with receiving() as peer, listening(tmp_path, "handlers:listener", "--print", "--forward-to", peer.url) as terminal:
        terminal.post(b'{"accountName": "a-1"}')
        for expected in (
            "handling a-1.*handling a-1",
            r"#1  \S+  of unknown kind  a-1",
            r"Traceback \(most recent call last\)",
            r"#1  handler_error: ValueError: .*not",
            rf"#1  forwarded to {peer.url}: 200 in \d+ ms",
            r"#1  handled in \d+ ms at attempt 2",
        ):
            terminal.read(expected, anew=True)
        assert "\x9b" not in terminal.shown
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(DEADLINE) == 130
        assert terminal.gives_lines()


def test_without_a_keyboard_messages_are_shown_all_the_same(tmp_path: Path) -> None:
    with open(os.devnull) as nothing, listening(tmp_path, stdin=nothing.fileno()) as terminal:
        terminal.post(b'{"accountName": "a-1"}')
        terminal.read(r"#1  \S+  of unknown kind  a-1")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(DEADLINE) == 0
        assert "q quit" not in terminal.shown


def test_in_the_foreground_ctrl_c_is_what_it_is_everywhere(tmp_path: Path) -> None:
    with listening(tmp_path, session="foreground") as terminal:
        terminal.read("waiting for messages at", anew=True)
        terminal.press("\x03")
        assert terminal.process.wait(DEADLINE) == 130
        assert terminal.gives_lines()


def test_in_the_background_it_leaves_the_keyboard_alone(tmp_path: Path) -> None:
    with listening(tmp_path, session="background") as terminal:
        terminal.post(b'{"accountName": "a-1"}')
        terminal.read(r"#1  \S+  of unknown kind  a-1")
        assert terminal.gives_lines()
        assert "q quit" not in terminal.shown


def test_replaying_needs_somebody_to_press_the_key(tmp_path: Path) -> None:
    said = fotahook("listen", "--port", "0", "--replay-to", "http://127.0.0.1:9/", cwd=tmp_path)
    assert said.returncode == 2
    assert "--replay-to needs a terminal" in said.stderr


# The screen


def a_screen(**changes: object) -> tuple[Screen, io.StringIO]:
    shown = io.StringIO()
    facts = {"proof": "signed", "handlers": False, "keys": False, "replay_to": None, "replay": None, "leave": None}
    return Screen(Console(file=shown, width=200), **facts | changes), shown  # type: ignore[arg-type]


def test_only_so_many_messages_are_kept_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_screen, "MOST_KEPT", 3)
    monkeypatch.setattr(live_screen, "MOST_BYTES", 100)
    screen, shown = a_screen()
    with screen.showing():
        for number in range(5):
            screen.tell(Came(a_lease(), a_delivery(message=str(number))))
        screen.tell(Came(a_lease(), a_delivery(message="4", attempts=1)))
        # By now the first is forgotten: it is shown as one that has come.
        screen.tell(Handled(a_lease(), a_delivery(message="0"), Outcome(code="handler_error"), 0.1))
        screen.tell(Came(a_lease(), a_delivery(message="big", body=b'"%b"' % (b"x" * 200))))
        for _ in range(9):
            screen.tell(Pressed("up"))
        screen.tell(Pressed("b"))
    numbers = re.findall(r"^#(\d+)", shown.getvalue(), re.MULTILINE)
    assert numbers == ["1", "2", "3", "4", "5", "6", "6", "7", "7"]


def test_a_terminal_that_stands_still_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_screen, "MOST_WAITING", 2)
    screen, shown = a_screen()
    for number in range(10):
        screen.tell(Said(str(number)))
    with screen.showing():
        screen.tell(Opened("http://127.0.0.1/"))
    assert "8 more were not shown" in shown.getvalue() or "9 more were not shown" in shown.getvalue()


# curl


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        AWKWARD,
        b'{"x": "it\'s \\u0041 %s %% \\\\ $HOME `id` \xc3\xa9"}\n',
        b'{\n  "x": "-n"\n}',
        b'"\x7f"',
        b'"\xe2\x80\xae0123"',
        b'["%b"]' % (b"x" * 300_000),
        b'["\x7f%b"]' % (b"x" * 300_000),
    ],
    ids=range(8),
)
def test_the_shell_prints_the_very_bytes(body: bytes) -> None:
    command, _, rest = as_curl("https://x/", {"a": "b"}, body).rpartition(b" | curl ")
    assert rest == b"-sS --data-binary @- -H 'a: b' https://x/\n"
    assert command.decode().replace("\n", "").isprintable()
    printed = subprocess.run(["/bin/sh"], input=command, capture_output=True, check=True, timeout=DEADLINE)
    assert printed.stdout == body
