"""A delivery as a command for the shell, to be sent once more by hand."""

import re
import shlex
from collections.abc import Mapping
from typing import Final

_NOT_PLAIN: Final = re.compile(rb"[^ -&(-\[\]-~]")


def as_curl(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A command for a POSIX shell that posts the bytes exactly as they are, and may be shown at a terminal.

    The body comes over a pipe, from the shell's own printf: as an argument the kernel would take only 128 KiB of it.
    """
    told = b"".join(b" -H " + _quoted(f"{name}: {value}".encode()) for name, value in headers.items())
    return b"printf " + _printed(body) + b" | curl -sS --data-binary @-" + told + b" " + _quoted(url.encode()) + b"\n"


def _printed(body: bytes) -> bytes:
    """What to give to printf, for exactly these bytes."""
    if body.decode(errors="surrogateescape").replace("\n", "").isprintable():
        return b"%s " + _quoted(body)
    # What would steer a terminal, or not come through one unharmed, goes as octal numbers.
    return b"%b " + _quoted(_NOT_PLAIN.sub(lambda found: b"\\0%03o" % ord(found[0]), body))


def _quoted(content: bytes) -> bytes:
    # shlex quotes text: bytes that are none of UTF-8 go through it unharmed.
    return shlex.quote(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")
