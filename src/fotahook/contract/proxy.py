"""An HTTP proxy, given as a URL."""

from base64 import b64encode
from urllib.parse import unquote, urlsplit

from .exchange import Masked, Secret


class Proxy(Masked, frozen=True):
    """An HTTP proxy, and the `user:password` for it."""

    shown = ("url",)

    host: str
    port: int
    credentials: Secret | None = None

    @property
    def url(self) -> str:
        """Its URL without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of its `Proxy-Authorization` header."""
        return f"Basic {b64encode(self.credentials.reveal().encode()).decode()}" if self.credentials else None


def parse_proxy(url: str) -> Proxy:
    """The proxy at a URL, by default on port 80; ValueError if it is not http:// or has no host."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
        parts.netloc.encode()
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        # The message omits the URL, which may contain a password.
        raise ValueError("proxy must be an http:// URL with a host, such as http://user:password@proxy.example:3128")
    credentials, at, _ = parts.netloc.rpartition("@")
    return Proxy(parts.hostname, port, Secret(unquote(credentials)) if at and credentials else None)
