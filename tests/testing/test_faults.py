"""Fault scripts: what they may say, and how they complain."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from fotahook.testing import CampaignMessage, FaultScript, ScriptInvalid, parse_fault_script, read_fault_script
from fotahook.testing.simulator.faults import (
    Delay,
    Drop,
    Duplicate,
    ErrorResponse,
    Fault,
    Pause,
    Reorder,
    UntrustedCertificate,
    run_script,
)

EVERYTHING = """
# what a bad day looks like
[[step]]
after = 20
do = "error"
status = 503
times = 2
retry_after = 30

[[step]]
do = "drop"

[[step]]
after = 30
do = "delay"
seconds = 0.5

[[step]]
after = 40
do = "duplicate"
times = 5

[[step]]
after = 60
do = "reorder"
messages = 30

[[step]]
after = 90
do = "pause"
seconds = 2

[[step]]
after = 100
do = "certificate"
"""


def test_steps_are_read_and_sorted() -> None:
    assert parse_fault_script(EVERYTHING).steps == (
        Drop(after=0, times=1),
        ErrorResponse(after=20, status=503, times=2, retry_after=30),
        Delay(after=30, seconds=0.5, times=1),
        Duplicate(after=40, times=5),
        Reorder(after=60, messages=30),
        Pause(after=90, seconds=2),
        UntrustedCertificate(after=100, times=1),
    )


def test_an_empty_script_has_no_steps() -> None:
    assert parse_fault_script("") == FaultScript(())


STEP = "\n[[step]]\nafter = 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[step", r"at its end: Expected '\]\]'"),
        ("a = 1\nb =\n", "line 2: Invalid value"),
        ('a = "', "line 1: |at its end: "),
        ("x = 1\n", r"line 1: x: a script has only \[\[step\]\] tables"),
        ("[step]\ndo = 'drop'\n", r"line 1: step: write \[\[step\]\]"),
        ("step = 3\n", r"line 1: step: write \[\[step\]\]"),
        (STEP, "line 2: do: is missing"),
        (STEP + "do = 'explode'\n", "line 4: do: Invalid value 'explode'; choose error, drop, delay, duplicate,"),
        (STEP + "do = 3\n", "line 4: do: Expected `str`"),
        (STEP + "do = 'drop'\ntimes = 0\n", "line 5: times: Expected `int` >= 1"),
        (STEP + "do = 'drop'\ntimes = 'two'\n", "line 5: times: Expected `int`, got `str`"),
        (STEP + "do = 'drop'\n" + STEP + "do = 'error'\nstatus = 200\n", "line 9: status: Expected `int` >= 300"),
        (STEP + "do = 'pause'\n", "line 2: seconds: is missing"),
        (STEP + "do = 'pause'\nseconds = nan\n", "line 5: seconds: "),
        (STEP + "do = 'reorder'\nmessages = 2\nstatus = 5\n", "line 6: status: is no field of this step"),
        (STEP + "do = 'drop'\nafter.x = 1\n", "line "),
        ("[[step]]\nafter = -1\ndo = 'drop'\n", "line 2: after: Expected `int` >= 0"),
        ("step = [{do = 'drop', times = 0}]\n", "line 1: times: Expected `int` >= 1"),
        ("step = ['drop']\n", "line 1: Expected `object`"),
    ],
)
def test_an_invalid_script_names_the_line_and_the_field(text: str, message: str) -> None:
    with pytest.raises(ScriptInvalid, match=rf"^({message})"):
        parse_fault_script(text)


def test_an_invalid_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(STEP + "do = 'drop'\ntimes = 0\n")
    with pytest.raises(ScriptInvalid, match=r"bad\.toml, line 5: times: "):
        read_fault_script(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ScriptInvalid, match=r"bad\.toml: not UTF-8"):
        read_fault_script(path)
    path.write_text(EVERYTHING)
    assert len(read_fault_script(path).steps) == 7


class RecordingTarget:
    """A target that records the calls."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        sent = [message.step for message in messages]
        self.calls.append(sent)
        return len(sent)

    def pause(self, seconds: float) -> None:
        self.calls.append(seconds)

    def inject(self, fault: Fault) -> None:
        self.calls.append(fault)


def numbered(count: int) -> Iterable[CampaignMessage]:
    return (CampaignMessage(device="d", step=step, body=b"{}") for step in range(count))


def test_steps_happen_after_their_number_of_messages() -> None:
    target, drop, twice = RecordingTarget(), Drop(after=2), Duplicate(after=2)
    assert run_script(numbered(6), FaultScript((drop, twice, Pause(after=5, seconds=1.5))), target) == 6
    assert target.calls == [[0, 1], drop, [], twice, [2, 3, 4], 1.5, [5]]


def test_reordered_messages_are_all_sent() -> None:
    runs = []
    for seed in (1, 1, 2):
        target = RecordingTarget()
        assert run_script(numbered(30), FaultScript((Reorder(after=5, messages=20),)), target, seed=seed) == 30
        runs.append(target.calls)
    before, window, after = runs[0]
    assert (before, after) == (list(range(5)), list(range(25, 30)))
    assert isinstance(window, list)
    assert sorted(window) == list(range(5, 25)) != window
    assert runs[0] == runs[1] != runs[2]


def test_a_step_inside_reordered_messages_happens_after_them() -> None:
    target, drop = RecordingTarget(), Drop(after=4)
    script = FaultScript((Reorder(after=2, messages=4), drop))
    assert run_script(numbered(8), script, target) == 8
    assert [len(call) if isinstance(call, list) else call for call in target.calls] == [2, 4, 0, drop, 2]


def test_a_step_after_the_last_message_is_skipped() -> None:
    target = RecordingTarget()
    assert run_script(numbered(3), FaultScript((Drop(after=4),)), target) == 3
    assert target.calls == [[0, 1, 2]]
