"""A delivery as a command for the shell, to be sent once more by hand."""

import shlex
from collections.abc import Mapping


def as_curl(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A command for a POSIX shell that posts the bytes exactly as they are.

    The body comes over a pipe, from the shell's own printf: as an argument the kernel would take only 128 KiB of it.
    """
    told = b"".join(b" -H " + _quoted(f"{name}: {value}".encode()) for name, value in headers.items())
    return b"printf %s " + _quoted(body) + b" | curl -sS --data-binary @-" + told + b" " + _quoted(url.encode()) + b"\n"


def _quoted(content: bytes) -> bytes:
    # shlex quotes text: bytes that are none of UTF-8 go through it unharmed.
    return shlex.quote(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")
