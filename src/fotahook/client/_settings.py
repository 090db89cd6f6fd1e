"""The options of a client: checked when it is created, or read from the environment; and its proxies."""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypedDict, cast
from urllib.parse import quote

import msgspec

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.exchange import ApiResponse, Masked, Request, require
from ..contract.servers import Environment, Proxy, environment_named, parse_proxy

ClientCert: TypeAlias = str | tuple[str, str]
OnRequest: TypeAlias = Callable[[Request], object]
OnResponse: TypeAlias = Callable[[ApiResponse[None]], object]
Session: TypeAlias = VZM2mTokenCredentials | SessionCredentials

_log = logging.getLogger("fotahook.client")
if (_level := os.environ.get("FOTAHOOK_LOG", "").upper()) in logging.getLevelNamesMapping():
    # For a look at what happens, in a program that does not set logging up.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _log.setLevel(_level)


class SharedOptions(TypedDict, total=False):
    timeout: float
    max_retries: int
    proxy: str | None
    ca_file: str | None
    client_cert: ClientCert | None
    on_request: OnRequest | None
    on_response: OnResponse | None


class ClientOptions(SharedOptions, total=False):
    thingspace_oauth_credentials: ThingspaceOauthCredentials | None
    vz_m2m_token_credentials: Session | None
    environment: Environment
    base_url: str | None


class Options(TypedDict, total=False):
    """The keyword arguments of every call; None stands for the client's own."""

    timeout: float | None
    max_retries: int | None


class Limits(msgspec.Struct, frozen=True):
    # On the monotonic clock.
    deadline: float
    max_retries: int


class CallDefaults(Masked, frozen=True):
    """The client's own `timeout` (seconds for the whole call) and `max_retries`."""

    timeout: float = 60.0
    max_retries: int = 2

    def __post_init__(self) -> None:
        require("timeout", self.timeout, int | float, "a number of seconds")
        if not 0 < self.timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout must be greater than zero, and at most {threading.TIMEOUT_MAX:g}")
        require("max_retries", self.max_retries, int, "an int")
        if self.max_retries < 0:
            raise ValueError("max_retries must not be negative")

    def replaced(self, timeout: float | None = None, max_retries: int | None = None) -> "CallDefaults":
        if timeout is None and max_retries is None:
            return self
        chosen = self.timeout if timeout is None else timeout
        return CallDefaults(chosen, self.max_retries if max_retries is None else max_retries)


class Settings(CallDefaults, frozen=True):
    """The SharedOptions of a client, checked; TypeError or ValueError if one cannot be used."""

    # Without the proxy, whose URL may contain a password.
    shown = ("timeout", "max_retries", "ca_file", "client_cert")
    proxy: str | None = None
    ca_file: str | None = None
    client_cert: ClientCert | None = None
    on_request: OnRequest | None = None
    on_response: OnResponse | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("proxy", "ca_file"):
            require(name, getattr(self, name), str | None)
        for name in ("on_request", "on_response"):
            if not (getattr(self, name) is None or callable(getattr(self, name))):
                raise TypeError(f"{name} must be callable")
        match self.client_cert:
            case None | str() | (str(), str()):
                pass
            case _:
                raise TypeError("client_cert must be a str, or a pair of them")
        if self.proxy:
            parse_proxy(self.proxy)
        if self.ca_file is not None or self.client_cert is not None:
            try:
                self.ssl_context()
            except OSError as error:
                raise ValueError(f"ca_file or client_cert cannot be used: {error}") from error

    def ssl_context(self) -> ssl.SSLContext:
        if self.ca_file == "":
            raise FileNotFoundError("ca_file has no name")
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.client_cert is not None:
            context.load_cert_chain(*([self.client_cert] if isinstance(self.client_cert, str) else self.client_cert))
        return context


def proxy_for(origin: str, option: str | None) -> Proxy | None:
    """The proxy for an origin: the one in the option, none if that is "", the environment's if it is None."""
    if option is not None:
        return parse_proxy(option) if option else None
    if not any(name.lower().endswith("_proxy") for name in os.environ) and os.name == "posix":
        return None
    # Takes as long to import as a call takes, and most processes have no proxy.
    from urllib.request import getproxies, proxy_bypass

    scheme, _, host = origin.partition("://")
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    return parse_proxy(url) if url and not proxy_bypass(host) else None


def environment_options(dotenv_path: str | None, overrides: ClientOptions) -> ClientOptions:
    """The options in the environment and in a `.env` file, overridden by those given; ValueError names a variable."""
    try:
        from dotenv import dotenv_values
    except ImportError:
        if dotenv_path is not None:
            raise ImportError("dotenv_path= needs python-dotenv: pip install python-dotenv") from None
        file = {}
    else:
        file = {name: value for name, value in dotenv_values(dotenv_path or ".env").items() if value is not None}
    given = overrides.get("thingspace_oauth_credentials") or overrides.get("vz_m2m_token_credentials")
    if given or any(os.environ.get(name) for name in _CREDENTIALS):
        for name in _DESTINATIONS & file.keys() - os.environ.keys():
            text = "%s in a .env file is ignored: it says where to send credentials that are not from there"
            _log.warning(text, name)
            del file[name]
    variables = {name: value for name, value in {**file, **os.environ}.items() if value}
    found: dict[str, object] = {}
    for option, (names, read) in _READERS.items():
        # With an override the variables may have any value: they may belong to another program.
        if option not in overrides and (values := [variables.get(name, "") for name in names]) and any(values):
            try:
                found[option] = read(*values)
            except ValueError as error:
                raise ValueError(f"{', '.join(names)}: {error}") from None
    return cast("ClientOptions", {name: value for name, value in found.items() if value is not None} | overrides)


def _oauth(key: str, secret: str, skew: str) -> ThingspaceOauthCredentials | None:
    return ThingspaceOauthCredentials(key, secret, oauth_clock_skew=float(skew or 0)) if key and secret else None


def _session(username: str, password: str, token: str) -> Session | None:
    # User name and password take precedence: they can renew a session.
    if username and password:
        return SessionCredentials(username, password)
    return VZM2mTokenCredentials(token) if token else None


def _proxy_url(address: str, port: str, username: str, password: str) -> str | None:
    if not address:
        return None
    scheme, separator, host = address.rstrip("/").rpartition("://")
    user = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username else ""
    url = f"{scheme if separator else 'http'}://{user}{host}{port and f':{port}'}"
    parse_proxy(url)
    return url


# The variables of each option, and what they become.
_READERS: Final[Mapping[str, tuple[Sequence[str], Callable[..., object]]]] = {
    "thingspace_oauth_credentials": (
        [f"THINGSPACE_OAUTH_OAUTH_{name}" for name in ("CLIENT_ID", "CLIENT_SECRET", "CLOCK_SKEW")],
        _oauth,
    ),
    "vz_m2m_token_credentials": (("VZ_M2M_USERNAME", "VZ_M2M_PASSWORD", "VZ_M2M_TOKEN_VZ_M2M_TOKEN"), _session),
    "base_url": (("THINGSPACE_BASE_URL",), str),
    "timeout": (("TIMEOUT",), lambda text: CallDefaults(timeout=float(text)).timeout),
    "max_retries": (("MAX_RETRIES",), lambda text: CallDefaults(max_retries=int(text)).max_retries),
    "proxy": (("PROXY_ADDRESS", "PROXY_PORT", "PROXY_USERNAME", "PROXY_PASSWORD"), _proxy_url),
    "environment": (("ENVIRONMENT",), environment_named),
}
_CREDENTIALS = {
    name for option in ("thingspace_oauth_credentials", "vz_m2m_token_credentials") for name in _READERS[option][0]
} - {"THINGSPACE_OAUTH_OAUTH_CLOCK_SKEW"}
# What a `.env` file may set only if no credentials come from elsewhere.
_DESTINATIONS = {name for option in ("base_url", "environment", "proxy") for name in _READERS[option][0]}
REQUIRED: Final = {
    "thingspace_oauth_credentials": "THINGSPACE_OAUTH_OAUTH_CLIENT_ID and THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET",
    "vz_m2m_token_credentials": "VZ_M2M_USERNAME and VZ_M2M_PASSWORD (or VZ_M2M_TOKEN_VZ_M2M_TOKEN)",
}
