"""Output of commands: tables at a terminal, tab-separated rows in a pipe, JSON with --json."""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, zip_longest
from operator import attrgetter
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from cyclopts import Parameter

from fotahook.contract.errors import one_line

T = TypeVar("T")
Columns: TypeAlias = Mapping[str, Callable[[T], object]]
"""The column names of a table of records, and each one's cell in the row of a record."""
Advance: TypeAlias = Callable[[int], None]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", help="Print JSON.")]

PAGE: Final = 200
WIDEST: Final = 4096
"""Columns: the terminal wraps long lines, so that an id can be copied whole."""
_STYLES: Final = {
    **dict.fromkeys(("delivered", "open", "pass"), "green"),
    **dict.fromkeys(("pending", "waiting", "held", "paused", "warn"), "yellow"),
    **dict.fromkeys(("dead", "fail"), "bold red"),
}


def fields(names: str) -> Columns[object]:
    """A column for each field of a record: `http_status` as `http status`, `phases.dns` as `dns`, or `name=field`."""
    parts = (each.rpartition("=") for each in names.split())
    return {(name or field.rpartition(".")[2]).replace("_", " "): attrgetter(field) for name, _, field in parts}


def note(text: str) -> None:
    print(f"fotahook: {one_line(text)}", file=sys.stderr)


def print_json(value: Mapping[str, object]) -> None:
    """One object on one line, in JSON that any encoding of stdout can carry."""
    print(printable_json(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() not in ("utf-8", "utf8"))))


def printable_json(text: str) -> str:
    """The same JSON without characters that control a terminal or the direction of text, most of which JSON allows."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else json.dumps(char)[1:-1] for char in text)


def print_table(
    columns: Sequence[str] | None, rows: Iterable[Sequence[object]], *, boxed: bool = True, widths: Sequence[int] = ()
) -> None:
    """Rows under their column names, if there are any. Unboxed rows may be wider than the terminal."""
    texts = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts if columns is None else (columns, *texts):
            print("\t".join(row))
        return
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=columns is not None, box=HEAVY_HEAD)
    if not boxed:
        table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    for name, width in zip_longest(columns or [""] * max(map(len, texts), default=0), widths):
        # An id that is cut or broken over two lines cannot be copied.
        table.add_column(name, overflow="fold", no_wrap=not boxed or name in ("id", "sent as"), min_width=width)
    for row in texts:
        # Text, since a value may look like rich's markup.
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(width=None if boxed else WIDEST).print(table)


def print_facts(facts: Mapping[str, object], *, as_json: bool) -> None:
    """One thing's facts by name: a row under its columns, or a line for each fact if the row is too wide."""
    if as_json:
        print_json(facts)
        return
    texts = {name: "(none)" if fact is None else printable(fact) for name, fact in facts.items()}
    width = sum(max(len(name), len(text)) + len(" │ ") for name, text in texts.items()) + 1
    if sys.stdout.isatty() and width > shutil.get_terminal_size().columns:
        print_table(None, texts.items())
    else:
        print_table(list(texts), [list(texts.values())])


def print_records(columns: Columns[T], records: Iterable[T], *, boxed: bool = True, header: bool = True) -> None:
    rows = [[cell(record) for cell in columns.values()] for record in records]
    print_table(list(columns) if header else None, rows, boxed=boxed)


def print_list(columns: Columns[T], records: Iterable[T], *, as_json: bool) -> int:
    """A list as it comes: a row for each record, or one JSON object a line. Returns their number."""
    remaining, count = iter(records), 0
    while (page := list(islice(remaining, PAGE))) or not count:
        if not as_json:
            print_records(columns, page, boxed=False, header=not count)
        for record in page if as_json else ():
            print_json(msgspec.to_builtins(record))
        if not page:
            break
        count += len(page)
    return count


def limited(list_in_pages: Callable[[int], Iterable[T]], limit: int) -> Iterator[T]:
    """Up to `limit` items, or all for 0, of what lists them in pages of a size. Says on stderr if there are more."""
    remaining = iter(list_in_pages(min(PAGE, limit + 1) if limit else PAGE))
    yield from islice(remaining, limit or None)
    if limit and next(remaining, None) is not None:
        note("there are more; --limit 0 lists all of them")


def format_time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def printable(value: object) -> str:
    """A cell; a tuple is its lines. Text from a message may hold what would break a line, or control the terminal."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case datetime():
            return format_time(value)
        case tuple():
            return "\n".join(map(printable, value))
    return "".join(char if char.isprintable() else " " for char in str(value))


@contextlib.contextmanager
def counting(total: int | None, part: str, *, in_bytes: bool = False, shown: bool = True) -> Iterator[Advance]:
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
