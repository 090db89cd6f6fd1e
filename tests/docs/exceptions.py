"""The blocks and commands that are not run, each with a reason. A test fails for an entry that no page needs."""

from collections.abc import Mapping
from typing import Final

PAGES_NOT_RUN: Final[Mapping[str, str]] = {
    # page: why
}

NOT_RUN: Final[Mapping[tuple[str, str], str]] = {
    # (page, first line of the block): why
    ("docs/listener.md", "fotahook messages list 0000123456-00001 --state dead --inbox sqlite:///inbox.db"): (
        "it needs an inbox with failed handlers; tests/cli/test_inboxes.py makes one and runs the same commands"
    ),
}

COMMANDS_NOT_RUN: Final[Mapping[str, str]] = {
    # command, in any block: why
    "pip": "the tests use the installed packages; tests/docs/test_install.py follows the install lines",
    "make": "it would run these tests; `make demo` has its own test, and a test checks that each target exists",
}
