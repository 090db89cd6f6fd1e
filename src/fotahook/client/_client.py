"""Client and AsyncClient."""

from functools import partial
from types import UnionType
from typing import Self, Unpack

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.models import Moved
from ..contract.servers import Environment, servers_at, servers_of
from . import _controllers as controllers
from ._base import AsyncBaseClient, BaseClient, SyncBaseClient, controller, operation, spelled_out
from ._settings import CallOptions, ClientOptions, Settings, SharedOptions, environment_options, required


class _Client(BaseClient):
    """The constructor and the session and token calls of both clients.

    Args:
        thingspace_oauth_credentials: Used to fetch the OAuth token at the first call and to renew it before it expires.
        vz_m2m_token_credentials: SessionCredentials to log in when needed, or VZM2mTokenCredentials with a session
            token from elsewhere.
        environment: The ThingSpace environment.
        base_url: The URL of another service that has ThingSpace's paths below `/api`; replaces `environment`.
        timeout: Seconds for a whole call: connecting, tokens, retries and the last byte of the response.
        max_retries: How often a call is retried after a failed connection, 408, 429 or 5xx.
        proxy: URL of an HTTP proxy. None: the one in the environment (`HTTPS_PROXY`, …); "": no proxy.
        ca_file: PEM file of the certificate authorities to trust instead of the system's.
        client_cert: PEM file of the client's certificate and key, or the two files.
        on_request: Called with each Request before it is sent, secrets masked.
        on_response: Called with each ApiResponse, errors included, secrets masked.

    Raises:
        TypeError, ValueError: For an invalid argument.
    """

    @partial(spelled_out, defaults=Settings())
    def __init__(
        self,
        *,
        thingspace_oauth_credentials: ThingspaceOauthCredentials | None = None,
        vz_m2m_token_credentials: VZM2mTokenCredentials | SessionCredentials | None = None,
        environment: Environment = Environment.PRODUCTION,
        base_url: str | None = None,
        **options: Unpack[SharedOptions],
    ) -> None:
        oauth, session = thingspace_oauth_credentials, vz_m2m_token_credentials
        _require("thingspace_oauth_credentials", oauth, ThingspaceOauthCredentials | None)
        _require("vz_m2m_token_credentials", session, VZM2mTokenCredentials | SessionCredentials | None)
        _require("environment", environment, Environment)
        servers = servers_of(environment) if base_url is None else servers_at(base_url)
        self._set_up(servers, oauth, session, Settings(**options))

    @classmethod
    def from_environment(cls, *, dotenv_path: str | None = None, **overrides: Unpack[ClientOptions]) -> Self:
        """A client from environment variables, named as in the official SDK.

        `ENVIRONMENT`, `TIMEOUT`, `MAX_RETRIES`, `PROXY_ADDRESS`, `PROXY_PORT`, `PROXY_USERNAME`, `PROXY_PASSWORD`,
        `THINGSPACE_OAUTH_OAUTH_CLIENT_ID`, `…_CLIENT_SECRET`, `…_CLOCK_SKEW`, `VZ_M2M_TOKEN_VZ_M2M_TOKEN`, and ours:
        `VZ_M2M_USERNAME`, `VZ_M2M_PASSWORD`, `THINGSPACE_BASE_URL`. If python-dotenv is installed, a `.env` file
        in the working directory, or at `dotenv_path`, supplies variables that the environment lacks, but no server or
        proxy for credentials that are not from it. Overrides take precedence over both.

        Raises:
            ValueError: For an invalid variable, or one that is missing; the message names it.
        """
        return cls(**required(environment_options(dotenv_path, overrides)))

    @operation
    async def move_callback(self, account: str, url: str, **options: Unpack[CallOptions]) -> Moved:
        """Make a URL the account's callback without a gap: reads what is registered, replaces it, reads it back.

        Keep the previous URL working for 20 minutes: ThingSpace goes on sending to it. ResponseError if the new URL
        does not read back within half a minute.
        """
        return await controllers.move(self._pipeline, account, url, self._limits(**options))

    @operation
    async def login(self) -> None:
        """Begin a new session. After LoginRefused only this tries again: five failures lock the account."""
        await self._pipeline.login(self._limits())

    @operation
    async def logout(self) -> None:
        """End the session, if there is one. Callback messages keep coming; a later call logs in again."""
        await self._pipeline.logout(self._limits())

    @operation
    async def revoke_token(self) -> None:
        """Revoke the OAuth token, if there is one. A later call fetches a new one."""
        await self._pipeline.revoke_token(self._limits())


def _require(name: str, value: object, kinds: type | UnionType) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {kinds}, not {type(value).__name__}")


class Client(_Client, SyncBaseClient):
    """The SDK for threads, any number of which may share a client. Nothing is sent before the first call."""

    software_management_callbacks_v2 = callbacks = controller(controllers.SoftwareManagementCallbacksV2Controller)
    campaigns_v2 = controller(controllers.CampaignsV2Controller)
    software_management_reports_v2 = controller(controllers.SoftwareManagementReportsV2Controller)
    server_logging = controller(controllers.ServerLoggingController)


class AsyncClient(_Client, AsyncBaseClient):
    """The SDK for tasks of one event loop. Needs `pip install 'fotahook[async]'`."""

    software_management_callbacks_v2 = callbacks = controller(controllers.AsyncSoftwareManagementCallbacksV2Controller)
    campaigns_v2 = controller(controllers.AsyncCampaignsV2Controller)
    software_management_reports_v2 = controller(controllers.AsyncSoftwareManagementReportsV2Controller)
    server_logging = controller(controllers.AsyncServerLoggingController)
