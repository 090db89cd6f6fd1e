"""The URLs of the servers: of each environment, or of a service at one base URL; and of a proxy before them."""

from base64 import b64encode
from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from .exchange import Masked, Secret, require


class Server(Enum):
    """The servers that the SDK calls; the path of a call is appended to its server's URL."""

    SOFTWARE_MANAGEMENT_V2 = "software_management_v2"
    OAUTH_SERVER = "oauth_server"
    THINGSPACE = "thingspace"


class Environment(Enum):
    """The five environments of ThingSpace."""

    PRODUCTION = "production"
    STAGING = "staging"
    DEV = "dev"
    QA = "qa"
    MOCK = "mock"


# None: the base URL itself, of a service that has its own API.
Servers: TypeAlias = Mapping[Server | None, str]

# The official SDK's long name for the mock, still found in configuration written for it.
_OTHER_NAMES = {"mock_server_for_limited_availability_see_quick_start": Environment.MOCK}
_PATHS = {Server.SOFTWARE_MANAGEMENT_V2: "/fota/v2", Server.OAUTH_SERVER: "/ts/v1", Server.THINGSPACE: ""}
_ROOTS = {
    Environment.PRODUCTION: "https://thingspace.verizon.com/api",
    Environment.STAGING: "https://staging.thingspace.verizon.com/api",
    # https on port 80 without /api, as in every generation of the official SDKs.
    Environment.DEV: "https://devmanagement-staging.thingspace.verizon.com:80",
    Environment.QA: "https://tsd-nginx-qa-us-east-1.thingspace.verizon.com/api",
    Environment.MOCK: "https://mock-staging.thingspace.verizon.com/api",
}


def environment_named(name: str) -> Environment:
    """The environment with this name, case-insensitive; ValueError lists all names."""
    found = ({one.value: one for one in Environment} | _OTHER_NAMES).get(name.strip().lower())
    if found is None:
        raise ValueError(f"no environment is called {name!r}; there are {', '.join(one.name for one in Environment)}")
    return found


def servers_of(environment: Environment) -> Servers:
    root = _ROOTS[environment]
    urls: dict[Server | None, str] = {server: root + path for server, path in _PATHS.items()}
    if environment is Environment.DEV:
        # Only the session calls have the usual port and /api.
        urls[Server.THINGSPACE] = "https://devmanagement-staging.thingspace.verizon.com/api"
    return urls


def servers_at(base_url: str) -> Servers:
    base = checked_base_url(base_url)
    return {None: base, **{server: f"{base}/api{path}" for server, path in _PATHS.items()}}


def checked_base_url(base_url: str) -> str:
    """A base URL without its trailing slash; TypeError or ValueError if it is not usable as one."""
    require("base_url", base_url, str)
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        # As in a DNS lookup: labels must be neither empty nor too long.
        host.encode("idna")
        usable = parts.scheme in ("http", "https") and host != "" and "\\" not in host and parts.port != 0
    except ValueError as error:
        raise ValueError(f"base_url is not a URL: {'it has an @' if '@' in base_url else error}") from None
    if not usable or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise ValueError("base_url must be an http:// or https:// URL with a host, in ASCII")
    if "@" in parts.netloc or "?" in base_url or "#" in base_url:
        raise ValueError("base_url may carry no credentials, query or fragment")
    # The scheme in lower case, so that callers can compare it.
    return parts.scheme + base_url[len(parts.scheme) :].rstrip("/")


class Proxy(Masked, frozen=True):
    """An HTTP proxy, and the `user:password` for it."""

    shown = ("url",)
    host: str
    port: int
    credentials: Secret | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
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
