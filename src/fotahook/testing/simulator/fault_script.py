"""Fault scripts: TOML files that say which faults happen in the course of a campaign."""

import re
import tomllib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Final, Protocol, get_args

import msgspec
from msgspec import Meta

from .campaign import CampaignMessage

Times = Annotated[int, Meta(ge=1, le=1_000_000)]


class ScriptInvalid(ValueError):
    """The text is not a fault script; the message names the line and the field."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """Something that happens once `after` messages have been sent."""

    after: Annotated[int, Meta(ge=0)] = 0


class ErrorResponse(Step, frozen=True, kw_only=True, tag="error"):
    """The receiver answers the next `times` attempts with `status`; `retry_after` seconds become its header."""

    status: Annotated[int, Meta(ge=300, le=599)] = 500
    times: Times = 1
    retry_after: Annotated[int, Meta(ge=0, le=86400)] | None = None


class Drop(Step, frozen=True, kw_only=True, tag="drop"):
    """The receiver closes the connection of the next `times` attempts without an answer."""

    times: Times = 1


class Delay(Step, frozen=True, kw_only=True, tag="delay"):
    """The next `times` attempts arrive late by this many real seconds."""

    seconds: Annotated[float, Meta(ge=0, le=60)]
    times: Times = 1


class Duplicate(Step, frozen=True, kw_only=True, tag="duplicate"):
    """The next `times` messages arrive twice."""

    times: Times = 1


class UntrustedCertificate(Step, frozen=True, kw_only=True, tag="certificate"):
    """The receiver shows an untrusted certificate for the next `times` attempts."""

    times: Times = 1


class Reorder(Step, frozen=True, kw_only=True, tag="reorder"):
    """The next `messages` messages are sent in another order."""

    messages: Annotated[int, Meta(ge=2, le=100_000)]


class Pause(Step, frozen=True, kw_only=True, tag="pause"):
    """Nothing is sent for this many seconds: of the sandbox's clock in tests, of real time otherwise."""

    seconds: Annotated[float, Meta(ge=0, le=30 * 24 * 3600)]


Fault = ErrorResponse | Drop | Delay | Duplicate | UntrustedCertificate
"""What goes wrong at the receiver of a request, for the next `times` of them."""
AnyStep = Fault | Reorder | Pause


class FaultScript(msgspec.Struct, frozen=True):
    """Steps, ordered by `after`."""

    steps: tuple[AnyStep, ...] = ()


def read_fault_script(path: str | Path) -> FaultScript:
    """The script in a file. Raises ScriptInvalid, which names the file, the line and the field, and OSError."""
    try:
        return parse_fault_script(Path(path).read_bytes().decode())
    except UnicodeDecodeError as error:
        raise ScriptInvalid(f"{path}: not UTF-8") from error
    except ScriptInvalid as error:
        raise ScriptInvalid(f"{path}, {error}") from error


def parse_fault_script(text: str) -> FaultScript:
    """The script in a text: ``[[step]]`` tables, each with ``do`` and ``after``. Raises ScriptInvalid."""
    lines = text.splitlines()
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScriptInvalid(_toml_message(str(error))) from error
    if unknown := sorted(set(content) - {"step"}):
        line = _line_of(lines, -1, unknown[0])
        raise ScriptInvalid(f"line {line}: {unknown[0]}: a script has only [[step]] tables")
    tables = content.get("step", [])
    if not isinstance(tables, list):
        raise ScriptInvalid("line 1: step: write [[step]], in double brackets, for each step")
    steps = [_step(table, lines, number) for number, table in enumerate(tables)]
    return FaultScript(tuple(sorted(steps, key=lambda step: step.after)))


class ScriptTarget(Protocol):
    """Where a campaign is sent, and where its faults are injected."""

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        """Send messages in order; returns how many."""

    def pause(self, seconds: float) -> None:
        """Send nothing for this long."""

    def inject(self, fault: Fault) -> None:
        """Let the receiver fail in this way."""


def run_script(
    messages: Iterable[CampaignMessage], script: FaultScript, target: ScriptTarget, *, seed: int | str = 0
) -> int:
    """Send a campaign and inject the script's faults on the way; returns how many messages were sent.

    `seed` determines the order of messages in a reorder step. Steps after the last message are skipped.
    """
    stream, sent = iter(messages), 0
    rng = Random(f"fotahook play {seed}")
    for step in script.steps:
        sent += target.send(islice(stream, max(0, step.after - sent)))
        if sent < step.after:
            return sent
        match step:
            case Reorder():
                window = list(islice(stream, step.messages))
                rng.shuffle(window)
                sent += target.send(window)
            case Pause():
                target.pause(step.seconds)
            case _:
                target.inject(step)
    return sent + target.send(stream)


ACTIONS: Final = tuple(str(step.__struct_config__.tag) for step in get_args(AnyStep))
"""The values of ``do``."""

_FIELD: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING_OR_UNKNOWN: Final = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_TOML_LINE: Final = re.compile(r"(.*) \(at line (\d+), column \d+\)")


def _step(table: object, lines: list[str], number: int) -> AnyStep:
    try:
        step: AnyStep = msgspec.convert(table, AnyStep)
    except msgspec.ValidationError as error:
        problem, field = _problem(str(error))
        line = _line_of(lines, number, field)
        raise ScriptInvalid(f"line {line}: {f'{field}: ' if field else ''}{problem}") from error
    return step


def _problem(error: str) -> tuple[str, str | None]:
    """What msgspec found wrong, and in which field."""
    found = _FIELD.search(error)
    problem, field = (error[: found.start()], found[1] or None) if found else (error, None)
    if named := _MISSING_OR_UNKNOWN.match(problem):
        return ("is missing" if "missing" in named[1] else "is no field of this step"), named[2]
    if field == "do":
        return f"{problem}; choose {', '.join(ACTIONS)}", field
    return problem, field


def _toml_message(error: str) -> str:
    found = _TOML_LINE.fullmatch(error)
    return f"line {found[2]}: {found[1]}" if found else f"at its end: {error.removesuffix(' (at end of document)')}"


def _line_of(lines: list[str], number: int, field: str | None = None) -> int:
    """The line of a field of a step, else of the step's header, counted from 1; line 1 for steps in an inline array.

    Step -1 is what stands before the first one.
    """
    step, found = -1, 1
    for line, text in enumerate(lines, 1):
        if re.match(r"\s*\[\[", text):
            step, found = step + 1, line if step + 1 == number else found
        if step == number and field and re.match(rf"\s*(?:\[\[?\s*)?[\"']?{re.escape(field)}\b", text):
            return line
    return found
