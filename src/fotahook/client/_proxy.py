"""An HTTP proxy as a value."""

from base64 import b64encode
from urllib.parse import unquote, urlsplit

import msgspec


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy, and the `user:password` for it."""

    host: str
    port: int
    basic: str | None = None

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of the header that lets us in."""
        return f"Basic {b64encode(self.basic.encode()).decode()}" if self.basic else None

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


def read_proxy(url: str) -> Proxy:
    """A proxy from its URL; ValueError if it is not http:// or names no host. Port 80 if it names none."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
        parts.netloc.encode()
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        # The URL is not repeated: it may hold a password.
        raise ValueError("proxy must be an http:// URL with a host, such as http://user:password@proxy.example:3128")
    credentials, at, _ = parts.netloc.rpartition("@")
    return Proxy(parts.hostname, port, unquote(credentials) if at else None)
