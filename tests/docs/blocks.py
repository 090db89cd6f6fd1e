"""The fenced blocks of a page, each with the output block that follows it."""

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
        ROOT / "src" / "fotahook" / "agents" / "SKILL.md",
    )
)
RUN: Final = ("python", "sh")
OUTPUTS: Final = ("text", "json")
_FENCE: Final = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)(?P=fence)\n", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A block of code with the output that the page shows for it; None if it shows none."""

    page: str
    line: int
    language: str
    text: str
    output: str | None = None
    is_output: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order, including output blocks."""
    source = (ROOT / page).read_text()
    return list(_blocks(page, source, list(_FENCE.finditer(source))))


def _blocks(page: str, source: str, found: list[re.Match[str]]) -> Iterator[Block]:
    after_code = False
    for match, behind in zip_longest(found, found[1:]):
        language = match["language"]
        has_output = language in RUN and behind is not None and _is_output_of(source, match, behind)
        yield Block(
            page,
            source.count("\n", 0, match.start()) + 1,
            language,
            match["text"],
            behind["text"] if has_output and behind is not None else None,
            after_code,
        )
        after_code = has_output


def _is_output_of(source: str, code: re.Match[str], behind: re.Match[str]) -> bool:
    return behind["language"] in OUTPUTS and not source[code.end() : behind.start()].strip()
