"""What commands print: JSON for scripts, tables for people, the same rows with tabs between them when piped."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from .paging import Pages

if TYPE_CHECKING:
    from rich.text import Text

T = TypeVar("T", bound=msgspec.Struct)

_RAW_IN_JSON: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
_WIDEST: Final = 4096
_WHOLE: Final = ("id", "sent as")
_STYLES: Final = {
    **dict.fromkeys(("delivered", "open"), "green"),
    **dict.fromkeys(("pending", "waiting", "held", "paused"), "yellow"),
    "dead": "bold red",
}


def on_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def print_json(value: Mapping[str, object]) -> None:
    """One object on one line, as JSON whatever the encoding of stdout."""
    line = json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() not in ("utf-8", "utf8"))
    print(_RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line))


def print_bytes(content: bytes) -> None:
    """These bytes and no others, whatever the encoding of stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def print_lines(text: str) -> None:
    """A text of several lines, such as a traceback, with nothing in it that steers a terminal."""
    for line in text.splitlines():
        print(_printable(line))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Rows under their columns' names."""
    if on_terminal():
        _print_grid(columns, rows, title)
    else:
        _print_plain((columns, *rows))


def print_card(facts: Mapping[str, str]) -> None:
    """What is known of one thing, a line for each fact."""
    if on_terminal():
        _print_grid(None, list(facts.items()), None)
    else:
        _print_plain(list(facts.items()))


def print_listing(columns: Sequence[str], pages: Pages[T], row: Callable[[T], Sequence[str]], *, as_json: bool) -> None:
    """What is listed, page by page as it comes; JSON is one object a line. Tells on stderr if the limit cut it."""
    titled = False
    for page in pages:
        if as_json:
            print_structs(columns, page, row, as_json=True)
        elif page or not titled:
            _print_list(None if titled else columns, [row(one) for one in page])
            titled = True
    if pages.more:
        print("fotahook: there may be more; --limit 0 lists all of them", file=sys.stderr)


def print_grown(row: Sequence[str], widths: Sequence[int]) -> None:
    """One more row of a list that grows; at a terminal its cells are so wide at least."""
    if on_terminal():
        from rich.console import Console
        from rich.text import Text

        cells = [_cell(cell) for cell in row]
        for cell, width in zip(cells, widths, strict=True):
            cell.pad_right(max(0, width - cell.cell_len))
        Console(width=_WIDEST).print(Text("  ").join(cells))
    else:
        _print_plain([row])
    sys.stdout.flush()


def print_structs(
    columns: Sequence[str], structs: Sequence[T], row: Callable[[T], Sequence[str]], *, as_json: bool
) -> None:
    """Some records: a row for each, or one JSON object a line."""
    if as_json:
        for one in structs:
            print_json(msgspec.to_builtins(one))
    else:
        _print_list(columns, [row(one) for one in structs])


def print_facts(facts: Mapping[str, str | int | None], *, as_json: bool) -> None:
    """What is known of one thing, by name."""
    texts = {name: _text(fact) for name, fact in facts.items()}
    if as_json:
        print_json(facts)
    elif on_terminal() and not _fit(texts):
        print_card(texts)
    else:
        print_table(list(texts), [list(texts.values())])


def _fit(facts: Mapping[str, str]) -> bool:
    """Whether a framed row of them is no wider than the terminal."""
    width = sum(max(len(name), len(text)) + len(" │ ") for name, text in facts.items()) + 1
    return width <= shutil.get_terminal_size().columns


def _text(fact: str | int | None) -> str:
    match fact:
        case bool():
            return "yes" if fact else "no"
        case None:
            return "(none)"
    return str(fact)


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        print("\t".join(map(_printable, row)))


def _print_list(columns: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Rows of any number. At a terminal too narrow for them lines go on below, so that an id stays in one piece."""
    if not on_terminal():
        _print_plain(rows if columns is None else (columns, *rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=columns is not None)
    for column in columns or rows[0]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(width=_WIDEST).print(table)


def _print_grid(columns: Sequence[str] | None, rows: Sequence[Sequence[str]], title: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=columns is not None)
    for column in columns or ():
        # An id that is cut or broken over two lines is good for nothing.
        table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    for row in rows:
        table.add_row(*map(_cell, row))
    Console().print(table)


def _cell(cell: str) -> "Text":
    from rich.text import Text

    # Text, since a value may look like rich's markup.
    return Text(_printable(cell), style=_STYLES.get(cell, ""))


def _printable(cell: str) -> str:
    """A value without what would break its line or its column, or steer a terminal: messages say what they like."""
    return cell if cell.isprintable() else "".join(char if char.isprintable() else " " for char in cell)
