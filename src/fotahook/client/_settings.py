"""The options of a client: checked when it is created, or read from the environment; and its proxies."""

import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast
from urllib.parse import quote

import msgspec

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.exchange import ApiResponse, Masked, Request
from ..contract.proxy import Proxy, parse_proxy
from ..contract.servers import Environment, environment_named
from ._flow import Limits

if TYPE_CHECKING:
    import ssl

ClientCert: TypeAlias = str | tuple[str, str]
OnRequest: TypeAlias = Callable[[Request], object]
OnResponse: TypeAlias = Callable[[ApiResponse[None]], object]

# What a `.env` file may set only if no credentials come from elsewhere.
_DESTINATIONS = frozenset(
    {"THINGSPACE_BASE_URL", "ENVIRONMENT", "PROXY_ADDRESS", "PROXY_PORT", "PROXY_USERNAME", "PROXY_PASSWORD"}
)
_CREDENTIALS = (
    "THINGSPACE_OAUTH_OAUTH_CLIENT_ID",
    "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET",
    "VZ_M2M_TOKEN_VZ_M2M_TOKEN",
    "VZ_M2M_USERNAME",
    "VZ_M2M_PASSWORD",
)

_log = logging.getLogger("fotahook.client")
if (_level := os.environ.get("FOTAHOOK_LOG", "").upper()) in logging.getLevelNamesMapping():
    # For a look at what happens, in a program that does not set logging up.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _log.setLevel(_level)

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_RETRIES = 2


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of Client and AsyncClient."""

    thingspace_oauth_credentials: ThingspaceOauthCredentials | None
    vz_m2m_token_credentials: VZM2mTokenCredentials | SessionCredentials | None
    environment: Environment
    base_url: str | None
    timeout: float
    max_retries: int
    proxy: str | None
    ca_file: str | None
    client_cert: ClientCert | None
    on_request: OnRequest | None
    on_response: OnResponse | None


class TransportOptions(Masked, frozen=True):
    """The proxy ("": none; None: the environment's) and certificate files; ValueError if one cannot be used."""

    # Without the proxy, whose URL may contain a password.
    shown = ("ca_file", "client_cert")

    proxy: str | None = None
    ca_file: str | None = None
    client_cert: ClientCert | None = None

    def __post_init__(self) -> None:
        for name, value in (("proxy", self.proxy), ("ca_file", self.ca_file)):
            if not isinstance(value, str | None):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        match self.client_cert:
            case None | str() | (str(), str()):
                pass
            case _:
                raise TypeError("client_cert must be a str, or a pair of them")
        if self.proxy:
            parse_proxy(self.proxy)
        # Only with files to check: ssl takes as long to import as all the rest.
        if self.ca_file is not None or self.client_cert is not None:
            try:
                self.ssl_context()
            except OSError as error:
                raise ValueError(f"ca_file or client_cert cannot be used: {error}") from error

    def ssl_context(self) -> "ssl.SSLContext":
        """A TLS context that trusts the system's authorities, or only those in `ca_file`."""
        import ssl

        if self.ca_file == "":
            raise FileNotFoundError("ca_file has no name")
        context = ssl.create_default_context(cafile=self.ca_file)
        match self.client_cert:
            case None:
                pass
            case str(both):
                context.load_cert_chain(both)
            case (certificate, key):
                context.load_cert_chain(certificate, key)
        return context


class CallOptions(TypedDict, total=False):
    """The keyword arguments of every call; None stands for the client's own."""

    timeout: float | None
    max_retries: int | None


class CallDefaults(msgspec.Struct, frozen=True):
    """The client's own `timeout` (seconds for the whole call) and `max_retries`."""

    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES

    def __post_init__(self) -> None:
        timeout: object = self.timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
        if not 0 < timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout must be greater than zero, and at most {threading.TIMEOUT_MAX:g}")
        retries: object = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"max_retries must be an int, not {type(retries).__name__}")
        if retries < 0:
            raise ValueError("max_retries must not be negative")

    def replaced(self, timeout: float | None, max_retries: int | None) -> "CallDefaults":
        """The same with what is not None in place of its own."""
        if timeout is None and max_retries is None:
            return self
        return CallDefaults(
            self.timeout if timeout is None else timeout, self.max_retries if max_retries is None else max_retries
        )

    def limits(self, now: float, timeout: float | None, max_retries: int | None) -> Limits:
        """The limits of a call that begins now; None stands for the client's own."""
        chosen = self.replaced(timeout, max_retries)
        return Limits(now + chosen.timeout, chosen.max_retries)


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
    """The options in the environment, overridden by those given; ValueError names a variable that is not valid."""
    file = _dotenv(dotenv_path)
    given = overrides.get("thingspace_oauth_credentials") or overrides.get("vz_m2m_token_credentials")
    if given or any(os.environ.get(name) for name in _CREDENTIALS):
        for name in _DESTINATIONS & file.keys() - os.environ.keys():
            _log.warning(
                "%s in a .env file is ignored: it says where to send credentials that are not from there", name
            )
            del file[name]
    variables = {**file, **os.environ}
    # With an override the variables may have any value: they may belong to another program.
    found = {name: read(variables) for name, read in _READERS.items() if name not in overrides}
    return cast("ClientOptions", {name: value for name, value in found.items() if value is not None} | overrides)


def required(options: ClientOptions) -> ClientOptions:
    """The same options; ValueError names the variables of credentials that are missing."""
    lacking = [names for name, names in _REQUIRED.items() if options.get(name) is None]
    if lacking:
        raise ValueError(f"the environment has no credentials: set {', and '.join(lacking)}")
    return options


def _dotenv(path: str | None) -> dict[str, str]:
    """The variables of a file, by default `.env` in the working directory; none if python-dotenv is not installed."""
    try:
        from dotenv import dotenv_values
    except ImportError:
        if path is not None:
            raise ImportError("dotenv_path= needs python-dotenv: pip install python-dotenv") from None
        return {}
    values = dotenv_values(path or ".env")
    return {name: value for name, value in values.items() if value is not None}


def _oauth(variables: Mapping[str, str]) -> ThingspaceOauthCredentials | None:
    key, secret = (variables.get(f"THINGSPACE_OAUTH_OAUTH_CLIENT_{part}") for part in ("ID", "SECRET"))
    if not key or not secret:
        return None
    skew = _number(variables, "THINGSPACE_OAUTH_OAUTH_CLOCK_SKEW") or 0
    return ThingspaceOauthCredentials(key, secret, oauth_clock_skew=skew)


def _session(variables: Mapping[str, str]) -> SessionCredentials | VZM2mTokenCredentials | None:
    """User name and password take precedence: they can renew a session."""
    username, password = variables.get("VZ_M2M_USERNAME"), variables.get("VZ_M2M_PASSWORD")
    if username and password:
        return SessionCredentials(username, password)
    token = variables.get("VZ_M2M_TOKEN_VZ_M2M_TOKEN")
    return VZM2mTokenCredentials(token) if token else None


def _proxy_url(variables: Mapping[str, str]) -> str | None:
    """The official SDK's four variables as one URL."""
    if not variables.get("PROXY_ADDRESS"):
        return None
    scheme, separator, address = variables["PROXY_ADDRESS"].rstrip("/").rpartition("://")
    username, password = variables.get("PROXY_USERNAME"), variables.get("PROXY_PASSWORD")
    user = f"{quote(username, safe='')}:{quote(password or '', safe='')}@" if username else ""
    port = f":{variables['PROXY_PORT']}" if variables.get("PROXY_PORT") else ""
    url = f"{scheme if separator else 'http'}://{user}{address}{port}"
    try:
        parse_proxy(url)
    except ValueError as error:
        raise ValueError(f"PROXY_ADDRESS, PROXY_PORT: {error}") from None
    return url


def _environment(variables: Mapping[str, str]) -> Environment | None:
    try:
        return environment_named(variables["ENVIRONMENT"]) if variables.get("ENVIRONMENT") else None
    except ValueError as error:
        raise ValueError(f"ENVIRONMENT: {error}") from None


def _number(variables: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(variables.get(name) or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and variables.get(name)):
        raise ValueError(f"{name} must be a number")
    return None if math.isnan(value) else value


def _timeout(variables: Mapping[str, str]) -> float | None:
    timeout = _number(variables, "TIMEOUT")
    if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"TIMEOUT must be greater than zero, and at most {threading.TIMEOUT_MAX:g}")
    return timeout


def _max_retries(variables: Mapping[str, str]) -> int | None:
    text = variables.get("MAX_RETRIES")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("MAX_RETRIES must be a whole number, and not negative")
    return int(text) if text else None


_READERS: Final[Mapping[str, Callable[[Mapping[str, str]], object]]] = {
    "thingspace_oauth_credentials": _oauth,
    "vz_m2m_token_credentials": _session,
    "base_url": lambda variables: variables.get("THINGSPACE_BASE_URL") or None,
    "timeout": _timeout,
    "max_retries": _max_retries,
    "proxy": _proxy_url,
    "environment": _environment,
}
_REQUIRED: Final = {
    "thingspace_oauth_credentials": "THINGSPACE_OAUTH_OAUTH_CLIENT_ID and THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET",
    "vz_m2m_token_credentials": "VZ_M2M_USERNAME and VZ_M2M_PASSWORD (or VZ_M2M_TOKEN_VZ_M2M_TOKEN)",
}
