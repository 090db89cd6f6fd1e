"""What `fotahook doctor` prints: a table for people, rows with tabs when piped, or one JSON object."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from ..shared.tables import on_terminal, print_json, print_table
from .findings import Check, Result

_STYLES: Final[dict[Result, str]] = {"pass": "green", "warn": "yellow", "fail": "bold red"}


def report(url: str, checks: Sequence[Check], public_key: str, *, as_json: bool) -> None:
    """All that was found, and what it comes to."""
    if as_json:
        found = [msgspec.to_builtins(check) for check in checks]
        print_json({"url": url, "result": verdict(checks), "publicKey": public_key, "checks": found})
    elif on_terminal():
        _show(checks)
    else:
        rows = [(check.check, check.result, check.found, check.fix or "") for check in checks]
        print_table(("check", "result", "found", "fix"), rows)


def verdict(checks: Sequence[Check]) -> Result:
    """The worst of the results."""
    results = {check.result for check in checks}
    return "fail" if "fail" in results else "warn" if "warn" in results else "pass"


def _show(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "result", "found, and what to do")
    for check in checks:
        told = Text(check.found)
        if check.fix is not None:
            told.append(f"\n{check.fix}", style="dim")
        table.add_row(check.check, Text(check.result, style=_STYLES[check.result]), told)
    console = Console()
    console.print(table)
    console.print(_summary(checks), style=_STYLES[verdict(checks)], highlight=False)


def _summary(checks: Sequence[Check]) -> str:
    counted = Counter(check.result for check in checks)
    told = ", ".join(f"{counted[result]} {result}" for result in _STYLES)
    return told + ("; what rests on them was not looked at" if counted["fail"] else "")
