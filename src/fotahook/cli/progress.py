"""Progress of long work: a bar for people, a line for every quarter where the output is piped."""

import contextlib
from collections.abc import Callable, Iterator

from .output import on_terminal

Advance = Callable[[str, int], None]
"""Tells of how much a named part is done."""


@contextlib.contextmanager
def progress(total: int, *parts: str) -> Iterator[Advance]:
    """Show parts that all count up to the same total."""
    with _bars(total, parts) if on_terminal() else contextlib.nullcontext(_lines(total)) as advance:
        yield advance


@contextlib.contextmanager
def _bars(total: int, parts: tuple[str, ...]) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as shown:
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
