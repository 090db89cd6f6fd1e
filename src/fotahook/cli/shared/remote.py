"""How commands reach a service: its URL, and the credentials in the SDK's variables or those of --dev."""

import os
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, TypeVar

from cyclopts import Parameter

from fotahook.client import AsyncClient, Client, OperatorClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.servers import checked_base_url

from .errors import UsageError

C = TypeVar("C", Client, AsyncClient)

# What `fotahook serve --dev` provisions; read from the service room, these two would bring all of it along.
_DEV_CLIENT: Final = ("dev", "dev-secret")
_DEV_USER: Final = ("dev", "dev-password")

_ID: Final = "THINGSPACE_OAUTH_OAUTH_CLIENT_ID"
_SECRET: Final = "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"
_SESSION: Final = "VZ_M2M_USERNAME and VZ_M2M_PASSWORD, or VZ_M2M_TOKEN_VZ_M2M_TOKEN"


def _check_base_url(_: object, url: str) -> None:
    """A usage error for a URL that no service can have. It is not shown: it may carry a password."""
    try:
        checked_base_url(url)
    except ValueError as error:
        raise UsageError("--base-url" + str(error).removeprefix("base_url")) from error


BaseUrl: TypeAlias = Annotated[str, Parameter(validator=_check_base_url)]
"""Looked at when the command line is read, whether the command comes to call a service or not."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Remote:
    """Flags of every command that calls a service."""

    base_url: BaseUrl = "http://127.0.0.1:8080"
    "The service to call."
    dev: bool = False
    "Use the credentials of a service in --dev, in place of those in the environment."
    as_json: Annotated[bool, Parameter(name="--json")] = False
    "Print JSON."

    def client(self) -> Client:
        """The SDK for ThingSpace's calls. UsageError tells which variable is missing."""
        return self._client_of(Client)

    def async_client(self) -> AsyncClient:
        """The same for an event loop."""
        return self._client_of(AsyncClient)

    def operator(self) -> OperatorClient:
        """The SDK for fotahook's own calls. UsageError tells which variable is missing."""
        return OperatorClient(self.base_url, *(_DEV_CLIENT if self.dev else _oauth()))

    def _client_of(self, kind: type[C]) -> C:
        if self.dev:
            return kind(
                base_url=self.base_url,
                thingspace_oauth_credentials=ThingspaceOauthCredentials(*_DEV_CLIENT),
                vz_m2m_token_credentials=SessionCredentials(*_DEV_USER),
            )
        _oauth()
        if not os.environ.get("VZ_M2M_TOKEN_VZ_M2M_TOKEN"):
            _need("VZ_M2M_USERNAME", _SESSION)
            _need("VZ_M2M_PASSWORD", _SESSION)
        return kind.from_environment(base_url=self.base_url)


DEFAULTS: Final = Remote()


def _oauth() -> tuple[str, str]:
    return _need(_ID, f"{_ID} and {_SECRET}"), _need(_SECRET, f"{_ID} and {_SECRET}")


def _need(variable: str, wanted: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"no credentials: set {wanted}, or give --dev for a service in --dev")
    return value
