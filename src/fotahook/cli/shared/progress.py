"""Progress of long work: a bar for people, a line for every quarter where the output is piped."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .tables import on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[str, int], None]
"""Tells of how much a named part is done."""


@contextlib.contextmanager
def progress(total: int, *parts: str) -> Iterator[Advance]:
    """Show parts that all count up to the same total."""
    with _bars(total, parts) if on_terminal() else contextlib.nullcontext(_lines(total)) as advance:
        yield advance


@contextlib.contextmanager
def _bars(total: int, parts: tuple[str, ...]) -> Iterator[Advance]:
    with _progress(stderr=False) as shown:
        tasks = {part: shown.add_task(part, total=total) for part in parts}
        yield lambda part, done: shown.update(tasks[part], completed=done)


def _lines(total: int) -> Advance:
    told: dict[str, int] = {}

    def advance(part: str, done: int) -> None:
        quarter = 4 * done // total
        if quarter > told.get(part, 0):
            told[part] = quarter
            print(f"{part:<10}  {done} of {total}", flush=True)

    return advance


@contextlib.contextmanager
def counting(
    total: int | None, part: str, *, in_bytes: bool = False, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far one part has come, where a person looks at it; stdout is for what was asked for.

    `total` is None where nobody can know it beforehand.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda done: None
        return
    with _progress(stderr=True, in_bytes=in_bytes) as bar:
        task = bar.add_task(part, total=total)
        yield lambda done: bar.update(task, completed=done)


def _progress(*, stderr: bool, in_bytes: bool = False) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description:<10}"), BarColumn(), counted, TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=stderr))
