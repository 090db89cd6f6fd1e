"""What the site tells from the code itself: the commands by their own help, the calls by the service's description."""

from collections.abc import Callable, Mapping
from typing import Final

from .calls import calls
from .commands import commands

MARK: Final = "<!-- made from the code -->\n"
_MADE: Final[Mapping[str, Callable[[], str]]] = {"reference/commands": commands, "reference/http": calls}


def complete(page: str, source: str) -> str:
    """The page's source, its mark replaced by what is made for it; ValueError for a page that should have one."""
    if page not in _MADE:
        return source
    before, mark, after = source.partition(MARK)
    if not mark:
        raise ValueError(f"docs/{page}.md has no line {MARK!r}: what is made from the code belongs there")
    return before + _MADE[page]() + after
