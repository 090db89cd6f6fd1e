"""Software Management Callbacks V2 of Verizon ThingSpace: the SDK, the service and the listener."""

from importlib import import_module
from typing import TYPE_CHECKING

from .contract.version import VERSION as __version__

if TYPE_CHECKING:
    from .client import AsyncClient, AsyncOperatorClient, Client, OperatorClient
    from .client._controllers import (
        AsyncCampaignsV2Controller,
        AsyncServerLoggingController,
        AsyncSoftwareManagementCallbacksV2Controller,
        AsyncSoftwareManagementReportsV2Controller,
        CampaignsV2Controller,
        ServerLoggingController,
        SoftwareManagementCallbacksV2Controller,
        SoftwareManagementReportsV2Controller,
    )
    from .client._event_stream import AsyncEventStream, EventStream
    from .client._pages import AsyncPages, Pages
    from .contract.auth import OauthToken, SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
    from .contract.errors import (
        ApiException,
        AuthenticationError,
        ConnectionFailed,
        FotahookError,
        FotaV2ResultException,
        LoginRefused,
        NotFound,
        PermissionDenied,
        RateLimited,
        ResponseError,
        ServerError,
        TimedOut,
        TlsError,
        TransportError,
        WebhookRejected,
    )
    from .contract.events import Event
    from .contract.exchange import ApiResponse, Headers, Request
    from .contract.messages import CallbackMessage
    from .contract.models import (
        CallbackSummary,
        CampaignSoftware,
        CheckInHistoryItem,
        DeviceSoftwareUpgrade,
        FotaV2CallbackRegistrationRequest,
        FotaV2CallbackRegistrationResult,
        FotaV2SuccessResult,
        Moved,
        V2CampaignDevice,
        V2CampaignHistory,
        V2CampaignMetaInfo,
        V2DeviceStatus,
        V2TimeWindow,
    )
    from .contract.operator import (
        AccountPage,
        AccountState,
        Attempt,
        BatchMessage,
        MessagePage,
        MessageState,
        Published,
        Reason,
        Redelivered,
        Refused,
        Stats,
        Why,
    )
    from .contract.servers import Environment, Server
    from .listener import Listener, unwrap

__all__ = [
    "AccountPage",
    "AccountState",
    "ApiException",
    "ApiResponse",
    "AsyncCampaignsV2Controller",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncOperatorClient",
    "AsyncPages",
    "AsyncServerLoggingController",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementReportsV2Controller",
    "Attempt",
    "AuthenticationError",
    "BatchMessage",
    "CallbackMessage",
    "CallbackSummary",
    "CampaignSoftware",
    "CampaignsV2Controller",
    "CheckInHistoryItem",
    "Client",
    "ConnectionFailed",
    "DeviceSoftwareUpgrade",
    "Environment",
    "Event",
    "EventStream",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2ResultException",
    "FotaV2SuccessResult",
    "FotahookError",
    "Headers",
    "Listener",
    "LoginRefused",
    "MessagePage",
    "MessageState",
    "Moved",
    "NotFound",
    "OauthToken",
    "OperatorClient",
    "Pages",
    "PermissionDenied",
    "Published",
    "RateLimited",
    "Reason",
    "Redelivered",
    "Refused",
    "Request",
    "ResponseError",
    "Server",
    "ServerError",
    "ServerLoggingController",
    "SessionCredentials",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
    "Stats",
    "ThingspaceOauthCredentials",
    "TimedOut",
    "TlsError",
    "TransportError",
    "V2CampaignDevice",
    "V2CampaignHistory",
    "V2CampaignMetaInfo",
    "V2DeviceStatus",
    "V2TimeWindow",
    "VZM2mTokenCredentials",
    "WebhookRejected",
    "Why",
    "__version__",
    "unwrap",
]

# The modules of the public names, searched in this order when a name is first used: importing fotahook loads nothing,
# and a program that only calls never loads what receives.
_MODULES = (
    "client",
    "client._controllers",
    "client._event_stream",
    "client._pages",
    "contract.auth",
    "contract.errors",
    "contract.events",
    "contract.exchange",
    "contract.models",
    "contract.operator",
    "contract.servers",
    "contract.messages",
    "listener",
)


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in __all__:
            for module in _MODULES:
                found = getattr(import_module(f"fotahook.{module}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module 'fotahook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
