"""The console: a static page over the public HTTP API. The host serves its files with its headers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["FILES", "HEADERS"]

FILES: Final = Path(__file__).parent / "files"

HEADERS: Final[Mapping[str, str]] = {
    # Only files of this directory, and no form that leaves the page: credentials are sent to the API alone.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
