"""The URLs of the servers: of each environment, or of a service at one base URL."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias
from urllib.parse import urlsplit


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


# None is the base URL itself, of a service that has its own API.
Servers: TypeAlias = Mapping[Server | None, str]

# The official SDK's long name for the mock, still found in configuration written for it.
_OTHER_NAMES = {"mock_server_for_limited_availability_see_quick_start": Environment.MOCK}

_PATHS = {
    Server.SOFTWARE_MANAGEMENT_V2: "/fota/v2",
    Server.OAUTH_SERVER: "/ts/v1",
    Server.THINGSPACE: "",
}

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
    lowered = name.strip().lower()
    if lowered in _OTHER_NAMES:
        return _OTHER_NAMES[lowered]
    try:
        return Environment(lowered)
    except ValueError:
        known = ", ".join(environment.name for environment in Environment)
        raise ValueError(f"no environment is called {name!r}; there are {known}") from None


def servers_of(environment: Environment) -> Servers:
    """The URL of each server in an environment, without a trailing slash."""
    root = _ROOTS[environment]
    urls: dict[Server | None, str] = {server: root + path for server, path in _PATHS.items()}
    if environment is Environment.DEV:
        # Only the session calls have the usual port and /api.
        urls[Server.THINGSPACE] = "https://devmanagement-staging.thingspace.verizon.com/api"
    return urls


def servers_at(base_url: str) -> Servers:
    """The URL of each server of a service at one base URL, with ThingSpace's paths below `/api`."""
    base = checked_base_url(base_url)
    return {None: base, **{server: f"{base}/api{path}" for server, path in _PATHS.items()}}


def checked_base_url(base_url: str) -> str:
    """A base URL without its trailing slash.

    TypeError if it is not a string; ValueError if it is not http or https, has no host, or has credentials, a query or
    a fragment.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, not {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        # As in a DNS lookup: labels must be neither empty nor too long.
        host.encode("idna")
        usable = parts.scheme in ("http", "https") and host != "" and "\\" not in host and parts.port != 0
    except ValueError as error:
        raise ValueError(f"base_url is not a URL: {error}") from None
    if not usable or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise ValueError("base_url must be an http:// or https:// URL with a host, in ASCII")
    if "@" in parts.netloc or "?" in base_url or "#" in base_url:
        raise ValueError("base_url may carry no credentials, query or fragment")
    # The scheme in lower case, so that callers can compare it.
    return parts.scheme + base_url[len(parts.scheme) :].rstrip("/")
