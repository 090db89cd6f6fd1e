"""Client and AsyncClient: the settings, checked and put together."""

from types import UnionType
from typing import Self, Unpack

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.servers import Environment, servers_at, servers_of
from ._callbacks import AsyncSoftwareManagementCallbacksV2Controller, SoftwareManagementCallbacksV2Controller
from ._closing import AsyncClosing, Closing
from ._environment import options
from ._flow import Caller
from ._runner import Runner
from ._settings import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    ClientCert,
    ClientOptions,
    OnRequest,
    OnResponse,
    Patience,
    checked_connecting,
)
from ._steps import Hooks, World
from ._tokens import Bearer, Session


class _Client:
    """What Client and AsyncClient have in common: all but how they wait.

    Args:
        thingspace_oauth_credentials: For the OAuth token, fetched on first use and renewed before it expires.
        vz_m2m_token_credentials: SessionCredentials to log in when needed, or VZM2mTokenCredentials with a session
            token from elsewhere.
        environment: Which of ThingSpace's environments to speak to.
        base_url: A service to speak to in place of an environment, with ThingSpace's paths below `/api`.
        timeout: Seconds for a whole call: connecting, tokens, retries and the last byte of the answer.
        max_retries: How often a call is tried again after a failed connection, 408, 429 or 5xx.
        proxy: URL of an HTTP proxy. None: the one that the environment names (`HTTPS_PROXY`, …); "": none.
        ca_file: PEM file of the authorities to trust, in place of the system's.
        client_cert: PEM file of the client's certificate and key, or the two files.
        on_request: Called with each Request before it is sent, secrets masked.
        on_response: Called with each ApiResponse, error answers included, secrets masked.

    Raises:
        TypeError, ValueError: For an argument that cannot be meant.
    """

    def __init__(
        self,
        *,
        thingspace_oauth_credentials: ThingspaceOauthCredentials | None = None,
        vz_m2m_token_credentials: VZM2mTokenCredentials | SessionCredentials | None = None,
        environment: Environment = Environment.PRODUCTION,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        proxy: str | None = None,
        ca_file: str | None = None,
        client_cert: ClientCert | None = None,
        on_request: OnRequest | None = None,
        on_response: OnResponse | None = None,
        _world: World | None = None,
    ) -> None:
        oauth, session = thingspace_oauth_credentials, vz_m2m_token_credentials
        _require("thingspace_oauth_credentials", oauth, ThingspaceOauthCredentials | None)
        _require("vz_m2m_token_credentials", session, VZM2mTokenCredentials | SessionCredentials | None)
        _require("environment", environment, Environment)
        self._world = _world or World()
        self._connecting = checked_connecting(proxy, ca_file, client_cert)
        self._patience = Patience(timeout, max_retries)
        self._caller = Caller(
            servers_of(environment) if base_url is None else servers_at(base_url),
            Bearer(oauth, self._world) if oauth else None,
            Session(session, self._world) if session else None,
            Hooks(on_request, on_response),
            self._world,
        )
        self._begin()

    def _begin(self) -> None: ...

    @classmethod
    def from_environment(cls, *, dotenv_path: str | None = None, **overrides: Unpack[ClientOptions]) -> Self:
        """A client from environment variables, by the official SDK's names.

        `ENVIRONMENT`, `TIMEOUT`, `MAX_RETRIES`, `PROXY_ADDRESS`, `PROXY_PORT`, `PROXY_USERNAME`, `PROXY_PASSWORD`,
        `THINGSPACE_OAUTH_OAUTH_CLIENT_ID`, `…_CLIENT_SECRET`, `…_CLOCK_SKEW`, `VZ_M2M_TOKEN_VZ_M2M_TOKEN`, and ours:
        `VZ_M2M_USERNAME`, `VZ_M2M_PASSWORD`, `THINGSPACE_BASE_URL`. Where python-dotenv is installed, a `.env` file
        fills in what the environment lacks. Overrides go before both.

        Raises:
            ValueError: For a variable that cannot be read; it is named.
        """
        return cls(**options(dotenv_path, overrides))


def _require(name: str, value: object, kinds: type | UnionType) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {kinds}, not {type(value).__name__}")


class Client(_Client, Closing):
    """The SDK for threads: any number of them may share one client. Nothing is sent before the first call."""

    software_management_callbacks_v2: SoftwareManagementCallbacksV2Controller

    def _begin(self) -> None:
        self._runner = Runner(self._caller, self._connecting, self._patience, self._world)
        self.software_management_callbacks_v2 = SoftwareManagementCallbacksV2Controller(self._runner)

    def login(self) -> None:
        """Begin a new session now. The only way to try again after LoginRefused: five failures lock the account."""
        self._runner.run(self._caller.login)

    def logout(self) -> None:
        """End the session, if there is one; callback messages keep coming. A later call logs in again."""
        self._runner.run(self._caller.logout)

    def revoke_token(self) -> None:
        """Revoke the OAuth token, if there is one. A later call fetches a new one."""
        self._runner.run(self._caller.revoke_token)

    def close(self) -> None:
        """Close all connections. Sends nothing: `logout()` and `revoke_token()` do, if wanted."""
        self._runner.close()


class AsyncClient(_Client, AsyncClosing):
    """The SDK for tasks of one event loop, any number of them. Needs `pip install 'fotahook[async]'`."""

    software_management_callbacks_v2: AsyncSoftwareManagementCallbacksV2Controller

    def _begin(self) -> None:
        from ._async_runner import AsyncRunner

        self._runner = AsyncRunner(self._caller, self._connecting, self._patience, self._world)
        self.software_management_callbacks_v2 = AsyncSoftwareManagementCallbacksV2Controller(self._runner)

    async def login(self) -> None:
        """Begin a new session now. The only way to try again after LoginRefused: five failures lock the account."""
        await self._runner.run(self._caller.login)

    async def logout(self) -> None:
        """End the session, if there is one; callback messages keep coming. A later call logs in again."""
        await self._runner.run(self._caller.logout)

    async def revoke_token(self) -> None:
        """Revoke the OAuth token, if there is one. A later call fetches a new one."""
        await self._runner.run(self._caller.revoke_token)

    async def aclose(self) -> None:
        """Close all connections. Sends nothing: `logout()` and `revoke_token()` do, if wanted."""
        await self._runner.close()
