"""Helpers that write Markdown."""

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """The text with all markup escaped, except code between backticks."""
    spans = re.split(r"(``.*?``|`.*?`)", text)
    return "".join(span if span.startswith("`") else re.sub(r"([\\<>\[\]{}*_$|#~])", r"\\\1", span) for span in spans)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are already Markdown."""
    lines = [header, ["---"] * len(header), *([cell.replace("\n", " ") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
