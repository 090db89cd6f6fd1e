"""Complete pages from the code: the commands from their own help, the calls from the service's description."""

from collections.abc import Callable, Mapping
from typing import Final

from .calls import calls
from .commands import commands

MARK: Final = "<!-- generated from the code -->\n"
_GENERATORS: Final[Mapping[str, Callable[[], str]]] = {"reference/commands": commands, "reference/http": calls}


def complete(page: str, source: str) -> str:
    """A page's source with the generated part in place of its mark; ValueError if a page of ours has no mark."""
    if page not in _GENERATORS:
        return source
    before, mark, after = source.partition(MARK)
    if not mark:
        raise ValueError(f"docs/{page}.md needs a line {MARK!r}: the generated part goes there")
    return before + _GENERATORS[page]() + after
