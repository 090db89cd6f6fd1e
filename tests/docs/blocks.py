"""The fenced blocks of a page, each with the answer that stands right behind it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "examples" / "project" / "README.md",
    )
)
RUN: Final = ("python", "sh")
ANSWERS: Final = ("text", "json")
_FENCE: Final = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)(?P=fence)\n", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A block of code, and what the page says it prints; None where the page does not say."""

    page: str
    line: int
    language: str
    text: str
    answer: str | None = None
    is_answer: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order; answers are among them too."""
    source = (ROOT / page).read_text()
    return list(_blocks(page, source, list(_FENCE.finditer(source))))


def _blocks(page: str, source: str, found: list[re.Match[str]]) -> Iterator[Block]:
    after_code = False
    for match, behind in zip_longest(found, found[1:]):
        language = match["language"]
        answered = language in RUN and behind is not None and _answers(source, match, behind)
        yield Block(
            page,
            source.count("\n", 0, match.start()) + 1,
            language,
            match["text"],
            behind["text"] if answered and behind is not None else None,
            after_code,
        )
        after_code = answered


def _answers(source: str, code: re.Match[str], behind: re.Match[str]) -> bool:
    return behind["language"] in ANSWERS and not source[code.end() : behind.start()].strip()
