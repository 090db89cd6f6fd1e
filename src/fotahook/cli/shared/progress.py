"""Progress of long work."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counting(
    total: int | None, part: str, *, in_bytes: bool = False, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, only at a terminal: stdout is for results. `total` None: unknown."""
    if not shown or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description:<10}"), BarColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(part, total=total)
        yield lambda done: bars.update(task, completed=done)
