"""What goes wrong: faults that a test requests, and scripts, TOML files of faults in the course of a campaign."""

import re
import threading
import tomllib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Final, Protocol, get_args

import msgspec
from msgspec import Meta

from .campaign import CampaignMessage

CALLBACK_CALLS: Final = "/api/fota/v2/callbacks/"


class ScriptInvalid(ValueError):
    """The text is not a fault script; the message names the line and the field."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """Something that happens once `after` messages have been sent."""

    after: Annotated[int, Meta(ge=0)] = 0


class _Repeated(Step, frozen=True, kw_only=True):
    times: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class ErrorResponse(_Repeated, frozen=True, kw_only=True, tag="error"):
    """The receiver answers the next `times` attempts with `status`; `retry_after` seconds become its header."""

    status: Annotated[int, Meta(ge=300, le=599)] = 500
    retry_after: Annotated[float, Meta(ge=0, le=86400)] | None = None


class Drop(_Repeated, frozen=True, kw_only=True, tag="drop"):
    """The receiver closes the connection of the next `times` attempts without an answer."""


class Delay(_Repeated, frozen=True, kw_only=True, tag="delay"):
    """The next `times` attempts arrive late by this many real seconds."""

    seconds: Annotated[float, Meta(ge=0, le=60)]


class Duplicate(_Repeated, frozen=True, kw_only=True, tag="duplicate"):
    """The next `times` messages arrive twice."""


class UntrustedCertificate(_Repeated, frozen=True, kw_only=True, tag="certificate"):
    """The receiver shows an untrusted certificate for the next `times` attempts."""


class Reorder(Step, frozen=True, kw_only=True, tag="reorder"):
    """The next `messages` messages are sent in another order."""

    messages: Annotated[int, Meta(ge=2, le=100_000)]


class Pause(Step, frozen=True, kw_only=True, tag="pause"):
    """Nothing is sent for this many seconds: of the sandbox's clock in tests, of real time otherwise."""

    seconds: Annotated[float, Meta(ge=0, le=30 * 24 * 3600)]


Fault = ErrorResponse | Drop | Delay | Duplicate | UntrustedCertificate
AnyStep = Fault | Reorder | Pause


class FaultQueue:
    """Faults in the order in which they were requested. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._planned = threading.Lock(), list[tuple[Fault, Callable[[str], bool]]]()

    def add(self, fault: Fault, matches: Callable[[str], bool] = lambda _: True) -> None:
        """Inject a fault into the next `fault.times` subjects that match."""
        if fault.times < 1:
            raise ValueError(f"a fault is injected at least once, not {fault.times} times")
        if isinstance(fault, ErrorResponse) and not (200 <= fault.status <= 599 and (fault.retry_after or 0) >= 0):
            given = f"{fault.status} and {fault.retry_after}"
            raise ValueError(f"a status is 200 to 599, and retry_after 0 or more seconds, not {given}")
        if isinstance(fault, Delay) and not 0 <= fault.seconds <= 60:
            raise ValueError(f"a delay is 0 to 60 seconds, not {fault.seconds}")
        with self._lock:
            self._planned += [(fault, matches)] * fault.times

    def take(self, subject: str = "") -> Fault | None:
        """The first fault left that matches, used up by one; None if there is none."""
        with self._lock:
            for place, (fault, matches) in enumerate(self._planned):
                if matches(subject):
                    del self._planned[place]
                    return fault
        return None

    @property
    def left(self) -> int:
        return len(self._planned)

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()


class Faults:
    """Faults that a test requests, of the next `times` deliveries or API calls.

    Deliveries: attempts, to one `account` or to all. Calls: requests whose path contains `path`. By default these are
    ThingSpace's four calls; with `path=""` every request to the service, including those for tokens and
    ``Sandbox.publish``. Faults are injected in the order in which they were requested.
    """

    def __init__(self, expire: Callable[[str], None]) -> None:
        self.deliveries, self.calls, self._expire = FaultQueue(), FaultQueue(), expire

    @property
    def left(self) -> int:
        """The number of faults that are still to be injected."""
        return self.deliveries.left + self.calls.left

    def clear(self) -> None:
        """Drop the faults that are left."""
        self.deliveries.clear()
        self.calls.clear()

    def answer_deliveries(
        self, status: int = 500, *, times: int = 1, retry_after: float | None = None, account: str | None = None
    ) -> None:
        """The receiver gets nothing and answers with this status; `retry_after` seconds become its header."""
        self._add_delivery(ErrorResponse(status=status, retry_after=retry_after, times=times), account)

    def drop_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets nothing and closes the connection."""
        self._add_delivery(Drop(times=times), account)

    def delay_deliveries(self, seconds: float, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it late by this many real seconds."""
        self._add_delivery(Delay(seconds=seconds, times=times), account)

    def duplicate_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it twice, under the same id."""
        self._add_delivery(Duplicate(times=times), account)

    def distrust_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver shows an untrusted certificate. Needs `pip install 'fotahook[testing]'`."""
        self._add_delivery(UntrustedCertificate(times=times), account)

    def answer_calls(
        self, status: int = 503, *, times: int = 1, retry_after: float | None = None, path: str = CALLBACK_CALLS
    ) -> None:
        """The service does nothing and answers with this status; `retry_after` seconds become its header."""
        self.calls.add(ErrorResponse(status=status, retry_after=retry_after, times=times), lambda url: path in url)

    def drop_calls(self, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service does nothing and closes the connection.

        A client sends a call once more if its connection was kept from an earlier one: then two drops make it fail.
        """
        self.calls.add(Drop(times=times), lambda url: path in url)

    def delay_calls(self, seconds: float, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service begins late by this many real seconds."""
        self.calls.add(Delay(seconds=seconds, times=times), lambda url: path in url)

    def expire_tokens(self) -> None:
        """End every access token now. The clock advances by a second, for which a service caches tokens."""
        self._expire("token")

    def expire_sessions(self) -> None:
        """End every session now. The clock advances by a second, for which a service caches sessions."""
        self._expire("session")

    def _add_delivery(self, fault: Fault, account: str | None) -> None:
        self.deliveries.add(fault, lambda delivered: account in (None, delivered))


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
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = re.sub(r"^(.*) \(at line (\d+), column \d+\)", r"line \2: \1", str(error))
        problem = re.sub(r"^(.*) \(at end of document\)", r"at its end: \1", problem)
        raise ScriptInvalid(problem) from error
    if unknown := sorted(set(content) - {"step"}):
        raise ScriptInvalid(f"line {_line_of(text, -1, unknown[0])}: {unknown[0]}: a script has only [[step]] tables")
    tables = content.get("step", [])
    if not isinstance(tables, list):
        raise ScriptInvalid("line 1: step: write [[step]], in double brackets, for each step")
    steps = [_step(table, text, number) for number, table in enumerate(tables)]
    return FaultScript(tuple(sorted(steps, key=lambda step: step.after)))


class ScriptTarget(Protocol):
    """Where a campaign is sent, and where its faults are injected. `send` returns how many messages it sent."""

    def send(self, messages: Iterable[CampaignMessage]) -> int: ...
    def pause(self, seconds: float) -> None: ...
    def inject(self, fault: Fault) -> None: ...


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

_FIELD: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING_OR_UNKNOWN: Final = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")


def _step(table: object, text: str, number: int) -> AnyStep:
    try:
        step: AnyStep = msgspec.convert(table, AnyStep)
    except msgspec.ValidationError as error:
        problem, field = str(error), None
        if found := _FIELD.search(problem):
            problem, field = problem[: found.start()], found[1]
        if named := _MISSING_OR_UNKNOWN.match(problem):
            problem, field = "is missing" if named[1] == "missing required" else "is no field of this step", named[2]
        elif field == "do":
            problem += f"; choose {', '.join(ACTIONS)}"
        place = f"line {_line_of(text, number, field)}: {f'{field}: ' if field else ''}"
        raise ScriptInvalid(place + problem) from error
    return step


def _line_of(text: str, number: int, field: str | None) -> int:
    """The line of a step's field, else of its header; 1 in an inline array. Step -1 is what stands before the first."""
    parts = re.split(r"(?m)^(?=[ \t]*\[\[)", text)[: number + 2]
    if len(parts) < number + 2:
        return 1
    found = re.search(rf"(?m)^[ \t]*(?:\[\[?\s*)?[\"']?{re.escape(field)}\b", parts[-1]) if field else None
    return 1 + "".join(parts[:-1]).count("\n") + (parts[-1].count("\n", 0, found.start()) if found else 0)
