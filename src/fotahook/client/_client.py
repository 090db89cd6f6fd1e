"""Client and AsyncClient, and the controllers of ThingSpace's calls."""

from functools import partial
from typing import Final, Self, TypeAlias, Unpack

from ..contract import calls, models
from ..contract.addresses import same_url
from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.errors import ResponseError
from ..contract.exchange import ApiResponse, require
from ..contract.servers import Environment, servers_at, servers_of
from . import _base
from ._base import BaseClient, Listing, Methods, controller, operation, paged, spelled_out
from ._settings import REQUIRED, ClientOptions, Options, Session, Settings, SharedOptions, environment_options

READ_BACK_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The waits before the reads that look for the new URL: ThingSpace shows a registration a while after it was made."""
Registered: TypeAlias = ApiResponse[models.FotaV2CallbackRegistrationResult]
_read_registered = calls.read_json(models.FotaV2CallbackRegistrationResult)


class _Callbacks(Methods):
    """The four calls; each `account` has one callback URL.

    `timeout` (seconds for the whole call, retries included) and `max_retries` override the client's. Bad arguments
    raise TypeError or ValueError, a 400 raises FotaV2ResultException, and other failures what `fotahook.FotahookError`
    lists. The methods of AsyncClient's controller are coroutines.
    """

    @operation
    async def list_registered_callbacks(
        self, account: str, **options: Unpack[Options]
    ) -> ApiResponse[models.CallbackSummary | None]:
        """The callback registered for an account; `data` is None if there is none."""
        return await self._perform(calls.callback_call("GET", account, calls.read_summary), **options)

    @operation
    async def update_callback(self, account: str, body: calls.Registration, **options: Unpack[Options]) -> Registered:
        """Replace the callback URL of an account."""
        call = calls.callback_call("PUT", account, _read_registered, calls.encode_registration(body))
        return await self._perform(call, **options)

    @operation
    async def register_callback(self, account: str, body: calls.Registration, **options: Unpack[Options]) -> Registered:
        """Register the callback URL of an account, in place of an earlier one."""
        call = calls.callback_call("POST", account, _read_registered, calls.encode_registration(body))
        return await self._perform(call, **options)

    @operation
    async def deregister_callback(
        self, account: str, **options: Unpack[Options]
    ) -> ApiResponse[models.FotaV2SuccessResult]:
        """Remove the callback URL of an account.

        ThingSpace keeps no messages for an account without one: what it would send meanwhile is lost.
        """
        call = calls.callback_call("DELETE", account, calls.read_json(models.FotaV2SuccessResult))
        return await self._perform(call, **options)


class _Campaigns(Methods):
    """Campaigns. Options and errors are those of the callback calls."""

    @operation
    async def get_campaign_information(
        self, account: str, campaign_id: str, **options: Unpack[Options]
    ) -> ApiResponse[models.CampaignSoftware]:
        """A campaign: its software, dates and status."""
        path, kind = "/campaigns/{account}/{campaign_id}", models.CampaignSoftware
        return await self._perform(calls.report_call(path, kind, account=account, campaign_id=campaign_id), **options)


class _Reports(Methods):
    """Reports on campaigns and devices. Options and errors are those of the callback calls."""

    @operation
    async def get_campaign_history_by_status(
        self, account: str, campaign_status: str, last_seen_campaign_id: str | None = None, **options: Unpack[Options]
    ) -> ApiResponse[models.V2CampaignHistory]:
        """A page of the account's campaigns that have a status, such as `CampaignEnded`."""
        query = "campaignStatus={campaign_status}&lastSeenCampaignId={last_seen_campaign_id}"
        values = {"campaign_status": campaign_status, "last_seen_campaign_id": last_seen_campaign_id}
        path, kind = f"/reports/{{account}}/campaigns?{query}", models.V2CampaignHistory
        return await self._perform(calls.report_call(path, kind, account=account, **values), **options)

    @operation
    async def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None, **options: Unpack[Options]
    ) -> ApiResponse[models.V2CampaignDevice]:
        """A page of a campaign's devices: up to 1,000 with ids above `last_seen_device_id`."""
        return await self._perform(calls.devices_call(account, campaign_id, last_seen_device_id), **options)

    @operation
    async def get_device_firmware_upgrade_history(
        self, account: str, device_id: str, **options: Unpack[Options]
    ) -> ApiResponse[list[models.DeviceSoftwareUpgrade]]:
        """The campaigns of a device, and how each ended."""
        path, kind = "/reports/{account}/devices/{device_id}", list[models.DeviceSoftwareUpgrade]
        return await self._perform(calls.report_call(path, kind, account=account, device_id=device_id), **options)

    @paged
    def iter_campaign_devices(
        self, account: str, campaign_id: str, last_seen_device_id: str = calls.FIRST_PAGE, **options: Unpack[Options]
    ) -> Listing[models.V2CampaignDevice, models.V2DeviceStatus]:
        """All devices of a campaign with ids above `last_seen_device_id`, read page by page; options are for a page."""
        page_at = partial(calls.devices_call, account, campaign_id)
        return Listing(page_at, lambda page: page.device_list or (), last_seen_device_id, options, calls.next_page)


class _ServerLogging(Methods):
    """The server's log of a device. Options and errors are those of the callback calls."""

    @operation
    async def get_device_check_in_history(
        self, account: str, device_id: str, **options: Unpack[Options]
    ) -> ApiResponse[list[models.CheckInHistoryItem]]:
        """The check-ins of a device."""
        path, kind = "/logging/{account}/devices/{device_id}/checkInHistory", list[models.CheckInHistoryItem]
        return await self._perform(calls.report_call(path, kind, account=account, device_id=device_id), **options)


class SoftwareManagementCallbacksV2Controller(_Callbacks, _base.SyncMethods): ...


class AsyncSoftwareManagementCallbacksV2Controller(_Callbacks, _base.AsyncMethods): ...


class CampaignsV2Controller(_Campaigns, _base.SyncMethods): ...


class AsyncCampaignsV2Controller(_Campaigns, _base.AsyncMethods): ...


class SoftwareManagementReportsV2Controller(_Reports, _base.SyncMethods): ...


class AsyncSoftwareManagementReportsV2Controller(_Reports, _base.AsyncMethods): ...


class ServerLoggingController(_ServerLogging, _base.SyncMethods): ...


class AsyncServerLoggingController(_ServerLogging, _base.AsyncMethods): ...


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
        vz_m2m_token_credentials: Session | None = None,
        environment: Environment = Environment.PRODUCTION,
        base_url: str | None = None,
        **options: Unpack[SharedOptions],
    ) -> None:
        oauth, session = thingspace_oauth_credentials, vz_m2m_token_credentials
        require("thingspace_oauth_credentials", oauth, ThingspaceOauthCredentials | None, "ThingspaceOauthCredentials")
        kinds = VZM2mTokenCredentials | SessionCredentials | None
        require("vz_m2m_token_credentials", session, kinds, "SessionCredentials or VZM2mTokenCredentials")
        require("environment", environment, Environment, "an Environment")
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
        options = environment_options(dotenv_path, overrides)
        if lacking := [names for name, names in REQUIRED.items() if options.get(name) is None]:
            raise ValueError(f"the environment has no credentials: set {', and '.join(lacking)}")
        return cls(**options)

    @operation
    async def move_callback(self, account: str, url: str, **options: Unpack[Options]) -> models.Moved:
        """Make a URL the account's callback without a gap: reads what is registered, replaces it, reads it back.

        Keep the previous URL working for 20 minutes: ThingSpace goes on sending to it. ResponseError if the new URL
        does not read back within half a minute.
        """
        read, body = calls.callback_call("GET", account, calls.read_summary), calls.encode_registration(url)
        limits = self._limits(**options)
        found = (await self._pipeline.perform(read, limits)).data
        previous = None if found is None else found.url
        # Only POST is sure to register where nothing is registered. Nothing is ever removed first: see docs/sdk.md.
        method = "POST" if previous is None else "PUT"
        await self._pipeline.perform(calls.callback_call(method, account, _read_registered, body), limits)
        for seconds in READ_BACK_SECONDS:
            await self._pipeline.transport.sleep(seconds)
            found = (await self._pipeline.perform(read, limits)).data
            if found is not None and same_url(found.url, url):
                return models.Moved(previous, url)
        raise ResponseError(
            f"the callback of account {account} was set, but does not read back: "
            "somebody else may have set it too, so read it again"
        )

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


class Client(_Client, _base.SyncBaseClient):
    """The SDK for threads, any number of which may share a client. Nothing is sent before the first call."""

    software_management_callbacks_v2 = callbacks = controller(SoftwareManagementCallbacksV2Controller)
    campaigns_v2 = controller(CampaignsV2Controller)
    software_management_reports_v2 = controller(SoftwareManagementReportsV2Controller)
    server_logging = controller(ServerLoggingController)


class AsyncClient(_Client, _base.AsyncBaseClient):
    """The SDK for tasks of one event loop. Needs `pip install 'fotahook[async]'`."""

    software_management_callbacks_v2 = callbacks = controller(AsyncSoftwareManagementCallbacksV2Controller)
    campaigns_v2 = controller(AsyncCampaignsV2Controller)
    software_management_reports_v2 = controller(AsyncSoftwareManagementReportsV2Controller)
    server_logging = controller(AsyncServerLoggingController)
