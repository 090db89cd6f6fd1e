"""Fault scripts: what goes wrong in the course of a campaign, as a TOML file that people write."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

LONGEST_PAUSE: Final = 30 * 24 * 3600.0
LONGEST_DELAY: Final = 60.0
MOST: Final = 1_000_000

Times = Annotated[int, Meta(ge=1, le=MOST)]


class ScriptInvalid(ValueError):
    """The text is no fault script; it says where and why."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """Something that goes wrong once `after` messages have been sent."""

    after: Annotated[int, Meta(ge=0)] = 0


class ErrorStep(Step, frozen=True, kw_only=True, tag="error"):
    """The receiver answers the next `times` attempts with `status`; `retry_after` seconds become its header."""

    status: Annotated[int, Meta(ge=300, le=599)] = 500
    times: Times = 1
    retry_after: Annotated[int, Meta(ge=0, le=86400)] | None = None


class DropStep(Step, frozen=True, kw_only=True, tag="drop"):
    """The receiver closes the connection of the next `times` attempts without an answer."""

    times: Times = 1


class DelayStep(Step, frozen=True, kw_only=True, tag="delay"):
    """The next `times` attempts arrive so many real seconds late."""

    seconds: Annotated[float, Meta(ge=0, le=LONGEST_DELAY)]
    times: Times = 1


class DuplicateStep(Step, frozen=True, kw_only=True, tag="duplicate"):
    """The next `times` messages arrive twice."""

    times: Times = 1


class CertificateStep(Step, frozen=True, kw_only=True, tag="certificate"):
    """The receiver's certificate is another one, which nobody trusts, for the next `times` attempts."""

    times: Times = 1


class ReorderStep(Step, frozen=True, kw_only=True, tag="reorder"):
    """The next `messages` messages are sent in another order."""

    messages: Annotated[int, Meta(ge=2, le=100_000)]


class PauseStep(Step, frozen=True, kw_only=True, tag="pause"):
    """Nothing is sent for so many seconds: of the sandbox's clock in tests, real ones otherwise."""

    seconds: Annotated[float, Meta(ge=0, le=LONGEST_PAUSE)]


ReceiverStep = ErrorStep | DropStep | DelayStep | DuplicateStep | CertificateStep
AnyStep = ReceiverStep | ReorderStep | PauseStep


class FaultScript(msgspec.Struct, frozen=True):
    """Steps in the order in which they begin."""

    steps: tuple[AnyStep, ...] = ()


def read_fault_script(path: str | Path) -> FaultScript:
    """The script in a file; ScriptInvalid names the file, the line and the field. OSError as for any file."""
    with Path(path).open("rb") as opened:
        content = opened.read()
    try:
        return parse_fault_script(content.decode())
    except UnicodeDecodeError as error:
        raise ScriptInvalid(f"{path}: not UTF-8") from error
    except ScriptInvalid as error:
        raise ScriptInvalid(f"{path}, {error}") from error


def parse_fault_script(text: str) -> FaultScript:
    """The script in this text: ``[[step]]`` tables, each with ``do`` and ``after``. ScriptInvalid."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScriptInvalid(_told_toml(str(error))) from error
    if unknown := sorted(set(content) - {"step"}):
        line = _line_of(text.splitlines(), unknown[0], 0)
        raise ScriptInvalid(f"line {line}: {unknown[0]}: a script has only [[step]] tables")
    tables = content.get("step", [])
    if not isinstance(tables, list):
        raise ScriptInvalid("line 1: step: write [[step]], in double brackets, for each step")
    steps = [_step(table, text, number) for number, table in enumerate(tables)]
    return FaultScript(tuple(sorted(steps, key=lambda step: step.after)))


def _step(table: object, text: str, number: int) -> AnyStep:
    try:
        step: AnyStep = msgspec.convert(table, AnyStep)
    except msgspec.ValidationError as error:
        said, field = _told(str(error))
        lines = text.splitlines()
        header = _header(lines, number)
        line = header if field is None else _line_of(lines, field, header)
        raise ScriptInvalid(f"line {line}: {f'{field}: ' if field else ''}{said}") from error
    return step


_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED: Final = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_AT: Final = re.compile(r"(.*) \(at line (\d+), column \d+\)")


def _told(error: str) -> tuple[str, str | None]:
    """What is wrong, and with which field."""
    found = _PATH.search(error)
    said, field = (error[: found.start()], found[1] or None) if found else (error, None)
    if named := _NAMED.match(said):
        return ("is missing" if "missing" in named[1] else "is no field of this step"), named[2]
    if field == "do":
        return f"{said}; choose {', '.join(DOINGS)}", field
    return said, field


def _told_toml(error: str) -> str:
    found = _AT.fullmatch(error)
    return f"line {found[2]}: {found[1]}" if found else f"at its end: {error.removesuffix(' (at end of document)')}"


def _header(lines: list[str], number: int) -> int:
    """The line of a step's header, counted from one; the first where steps are written in another way."""
    headers = [place for place, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*[\"']?step", line)]
    return headers[number] if number < len(headers) else 1


def _line_of(lines: list[str], field: str, header: int) -> int:
    """The line of a field behind its step's header; that of the header if it is not there."""
    for place, line in enumerate(lines[header:], header + 1):
        if re.match(rf"\s*\[?\[?\s*[\"']?{re.escape(field)}\b", line):
            return place
        if re.match(r"\s*\[\[", line):
            break
    return max(header, 1)


DOINGS: Final = tuple(
    str(step.__struct_config__.tag)
    for step in (ErrorStep, DropStep, DelayStep, DuplicateStep, CertificateStep, ReorderStep, PauseStep)
)
