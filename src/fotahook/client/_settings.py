"""The settings of a client, checked once, where they come in."""

import threading
from collections.abc import Callable
from typing import TypeAlias, TypedDict

import msgspec

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.exchange import ApiResponse, Request
from ..contract.servers import Environment
from ._flow import Limits
from ._proxy import read_proxy

ClientCert: TypeAlias = str | tuple[str, str]
OnRequest: TypeAlias = Callable[[Request], object]
OnResponse: TypeAlias = Callable[[ApiResponse[None]], object]

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_RETRIES = 2


class ClientOptions(TypedDict, total=False):
    """The keywords of Client and AsyncClient."""

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


class Connecting(msgspec.Struct, frozen=True):
    """What a transport must know: the proxy ("" for none, None for the environment's) and the certificates."""

    proxy: str | None = None
    ca_file: str | None = None
    client_cert: ClientCert | None = None

    def __repr__(self) -> str:
        # Without the proxy, whose URL may hold a password.
        return f"Connecting(ca_file={self.ca_file!r}, client_cert={self.client_cert!r})"


def checked_connecting(proxy: str | None, ca_file: str | None, client_cert: ClientCert | None) -> Connecting:
    """The settings of a transport; ValueError for a proxy that is none and for files that hold no certificate."""
    _check_text("proxy", proxy)
    _check_text("ca_file", ca_file)
    _check_client_cert(client_cert)
    if proxy:
        read_proxy(proxy)
    found = Connecting(proxy, ca_file, client_cert)
    if ca_file is not None or client_cert is not None:
        # Not before it is needed: TLS takes as long to load as all the rest.
        from ._edge import context_for

        try:
            context_for(found)
        except OSError as error:
            raise ValueError(f"ca_file or client_cert cannot be used: {error}") from error
    return found


class Patience(msgspec.Struct, frozen=True):
    """The limits of a call, unless it says otherwise: `timeout` in seconds for the whole of it."""

    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES

    def __post_init__(self) -> None:
        _check_timeout(self.timeout)
        _check_retries(self.max_retries)

    def limits(self, now: float, timeout: float | None, max_retries: int | None) -> Limits:
        """The limits of a call that begins now; None stands for the client's own."""
        if timeout is None:
            timeout = self.timeout
        else:
            _check_timeout(timeout)
        if max_retries is None:
            max_retries = self.max_retries
        else:
            _check_retries(max_retries)
        return Limits(now + timeout, max_retries)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str | None):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")


def _check_client_cert(value: object) -> None:
    match value:
        case None | str() | (str(), str()):
            pass
        case _:
            raise TypeError("client_cert must be a str, or a pair of them")


def _check_timeout(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be greater than zero, and at most {threading.TIMEOUT_MAX:g}")


def _check_retries(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_retries must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError("max_retries must not be negative")
