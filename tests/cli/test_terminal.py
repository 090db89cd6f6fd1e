"""What people see at a terminal, which is not what a pipe carries."""

import errno
import json
import os
import pty
import re
import subprocess
from pathlib import Path

from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE
from tests.testing.receivers import receiving

from .processes import FOTAHOOK, environment, fotahook, running

DOCS = Path(__file__).parents[2] / "docs"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def at_a_terminal(*arguments: str, cwd: Path, **variables: str) -> str:
    """What a command prints to a terminal; it must succeed."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*FOTAHOOK, *arguments],
            cwd=cwd,
            env=environment(**{"TERM": "xterm-256color", "COLUMNS": "120"} | variables),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError as error:
        # How a terminal says that nobody writes to it any more.
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(ours)
    assert process.wait(DEADLINE) == 0, printed
    return printed.decode()


def test_people_get_a_table(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        shown = at_a_terminal("callbacks", "list", "1", "--base-url", sandbox.base_url, "--dev", cwd=tmp_path)
    assert "┃ account ┃" in COLOUR.sub("", shown)


STEERING = "\x1b]0;title\x07 \x9b2J \u202e \u2066 \u200f"
"""Text that sets a terminal's title, clears it, and turns the direction of what follows."""


def test_no_text_of_a_message_steers_the_terminal(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        remote = ("--base-url", sandbox.base_url, "--dev")
        sandbox.register("1", "http://127.0.0.1:9/")
        body = json.dumps({"type": STEERING, "text": STEERING}, ensure_ascii=False).encode()
        message_id = sandbox.publish("1", body)
        (tmp_path / "m.ndjson").write_text(json.dumps({STEERING: 1}, ensure_ascii=False) + "\n")
        for command in (
            ("messages", "list", "1"),
            ("messages", "list", "1", "--json"),
            ("messages", "show", message_id),
            ("messages", "show", message_id, "--body"),
            ("messages", "show", message_id, "--as", "curl"),
            ("export", "1"),
            ("why", message_id),
        ):
            shown = COLOUR.sub("", at_a_terminal(*command, *remote, cwd=tmp_path))
            assert [char for char in shown if not char.isprintable() and char not in "\r\n"] == [], command
        refused = fotahook("publish", "1", "m.ndjson", "--batch", *remote, cwd=tmp_path)
        assert {char for char in refused.stderr if not char.isprintable()} == {"\n"}


def test_no_color_is_honoured(tmp_path: Path) -> None:
    colours = ("\x1b[3", "\x1b[9")
    shown = at_a_terminal("demo", "--devices", "1", cwd=tmp_path)
    assert any(colour in shown for colour in colours)
    plain = at_a_terminal("demo", "--devices", "1", cwd=tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[(3[0-8]|9[0-7])[;m]", plain)


def test_the_demo_shows_bars_and_a_table(tmp_path: Path) -> None:
    shown = COLOUR.sub("", at_a_terminal("demo", "--devices", "5", cwd=tmp_path))
    assert "15/15" in shown
    assert re.search(r"┃ accepted ┃ delivered ┃ handled ┃ duplicates ┃ lost ┃ +p50 +┃ +p99 +┃", shown)


def test_the_doctor_shows_the_fix_below_each_finding(tmp_path: Path) -> None:
    with receiving() as peer:
        shown = COLOUR.sub("", at_a_terminal("doctor", peer.url, "--dev", cwd=tmp_path))
    assert "┃ check      ┃ result ┃ found, and what to do" in shown
    assert re.search(r"│ url        │ warn   │ http://127.0.0.1:\d+/: nothing is encrypted", shown)
    assert re.search(r"│            │        │ ThingSpace, and fotahook serve without --dev", shown)
    assert "5 pass, 4 warn, 0 fail" in shown


def test_the_output_on_the_doctors_page_is_real(tmp_path: Path) -> None:
    (printed,) = re.findall(r"```text\n(┏.*?)```", (DOCS / "doctor.md").read_text(), re.DOTALL)
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        shown = at_a_terminal("doctor", listener.url, "--dev", cwd=tmp_path, COLUMNS="100")
    port = listener.url.split(":")[2].rstrip("/")
    assert words(printed) == words(COLOUR.sub("", shown[shown.index("┏") :]).replace(port, "8081"))


def words(shown: str) -> str:
    """What is printed but for widths and milliseconds."""
    milliseconds = re.compile(r"(?<=connect )\d+|(?<=firstByte )\d+|\d+(?= ms)")
    return milliseconds.sub("#", " ".join(re.sub("[^\\w\\s.,:;/()-]", " ", shown).split()))
