"""Files that are whole or not there: written beside their place, synced, and moved there at the end."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from ..shared.errors import Failure

STDOUT: Final = "-"


@contextlib.contextmanager
def whole_file(name: str) -> Iterator[IO[bytes]]:
    """Something to write to: the file of that name, - for stdout. Whatever raises leaves the file as it was.

    It is readable by its owner alone. What is no regular file, such as a pipe or a device, is written to as it is.
    """
    if name == STDOUT:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as opened:
            yield opened
        return
    begun = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(begun, "xb", opener=_private) as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        begun.replace(path)
    except OSError as error:
        # Named as it was given: the file beside it is nobody's business.
        raise Failure(f"{name}: {error.strerror or error}; nothing of it was written") from error
    finally:
        begun.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
