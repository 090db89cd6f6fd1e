"""Shows it: a static page over the public HTTP API. It offers its files; who serves them is told how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["FILES", "HEADERS"]

FILES: Final = Path(__file__).parent / "files"
"""``index.html`` and what it needs beside it; nothing else is to be served."""

HEADERS: Final[Mapping[str, str]] = {
    # Only what lies beside the page, and no form that leaves it: credentials go nowhere but to the API.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""With which each of them is to be served."""
