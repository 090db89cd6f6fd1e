"""What of the pages is not run, each with the reason. An entry that no page needs any more fails a test."""

from collections.abc import Mapping
from typing import Final

PAGES_NOT_RUN: Final[Mapping[str, str]] = {
    # page: why
}

NOT_RUN: Final[Mapping[tuple[str, str], str]] = {
    # (page, first line of the block): why
    ("docs/listener.md", "fotahook messages list 0000123456-00001 --state dead --inbox sqlite:///inbox.db"): (
        "it wants an inbox in which handlers have failed; tests/cli/test_inboxes.py makes one and runs the same"
    ),
}

COMMANDS_NOT_RUN: Final[Mapping[str, str]] = {
    # A command, wherever it stands: why
    "pip": "the tests run with what is installed; tests/docs/test_install.py follows the install lines",
    "make": "it runs these tests; `make demo` has a test of its own, and the target is checked to be there",
}
