"""What commands print: JSON for scripts, tables for people, the same rows with tabs between them when piped."""

import json
import re
import sys
from collections.abc import Mapping, Sequence

_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*(?=@)|(?<=[?&]password=)[^&]*")


def on_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def print_json(value: Mapping[str, object]) -> None:
    """One object on one line."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Rows under their columns' names."""
    if not on_terminal():
        for row in (columns, *rows):
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        # Text, since a value may look like rich's markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def print_facts(facts: Mapping[str, str | bool | None], *, as_json: bool) -> None:
    """What is known of one thing, by name."""
    if as_json:
        print_json(facts)
    else:
        print_table(list(facts), [[_text(fact) for fact in facts.values()]])


def _text(fact: str | bool | None) -> str:
    match fact:
        case bool():
            return "yes" if fact else "no"
        case None:
            return "(none)"
    return fact


def shown(url: str) -> str:
    """A store's URL without its password."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***" if found[1] is not None else "***", url)
