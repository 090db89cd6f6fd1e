"""The options of a client, checked when it is created."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import msgspec

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.exchange import ApiResponse, Request
from ..contract.servers import Environment
from ._flow import Limits
from ._proxy import parse_proxy

if TYPE_CHECKING:
    import ssl

ClientCert: TypeAlias = str | tuple[str, str]
OnRequest: TypeAlias = Callable[[Request], object]
OnResponse: TypeAlias = Callable[[ApiResponse[None]], object]

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


class TransportOptions(msgspec.Struct, frozen=True):
    """The proxy ("": none; None: the environment's) and certificate files; ValueError if one cannot be used."""

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

    def __repr__(self) -> str:
        # Without the proxy, whose URL may contain a password.
        return f"TransportOptions(ca_file={self.ca_file!r}, client_cert={self.client_cert!r})"


class CallOptions(TypedDict, total=False):
    """The keyword arguments of every call; None stands for the client's own."""

    timeout: float | None
    max_retries: int | None


class CallDefaults(msgspec.Struct, frozen=True):
    """The client's own `timeout` (seconds for the whole call) and `max_retries`."""

    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES

    def __post_init__(self) -> None:
        _check_timeout(self.timeout)
        _check_max_retries(self.max_retries)

    def limits(self, now: float, timeout: float | None, max_retries: int | None) -> Limits:
        """The limits of a call that begins now; None stands for the client's own."""
        if timeout is None:
            timeout = self.timeout
        else:
            _check_timeout(timeout)
        if max_retries is None:
            max_retries = self.max_retries
        else:
            _check_max_retries(max_retries)
        return Limits(now + timeout, max_retries)


def _check_timeout(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be greater than zero, and at most {threading.TIMEOUT_MAX:g}")


def _check_max_retries(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_retries must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError("max_retries must not be negative")
