"""`fotahook import`: what `fotahook export` wrote, published once more."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..shared.remote import DEFAULTS, Remote
from .line_files import STDIN
from .publish_lines import publish_lines
from .records import to_message


def import_(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path(STDIN),
    /,
    *,
    account: str | None = None,
    remote: Remote = DEFAULTS,
) -> int:
    """Publish the messages of an export, byte for byte and in order. What was imported before is not taken twice.

    A message has a new id here; it is delivered whatever became of it where it was exported. Exit code 1 if a line was
    refused.

    Example: fotahook import messages.jsonl --dev

    Parameters
    ----------
    file
        What fotahook export wrote; - reads it from stdin.
    account
        Publish them to this account, in place of their own.
    """
    return publish_lines(str(file), "import", lambda line: to_message(line, account), remote)
