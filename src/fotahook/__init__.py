"""Software Management Callbacks V2 of Verizon ThingSpace: the SDK, the service and the listener."""

from importlib import import_module
from typing import TYPE_CHECKING

from .contract import version as _version

if TYPE_CHECKING:
    from .client import AsyncClient as AsyncClient
    from .client import AsyncOperatorClient as AsyncOperatorClient
    from .client import Client as Client
    from .client import OperatorClient as OperatorClient
    from .client._base import AsyncEventStream as AsyncEventStream
    from .client._base import AsyncPages as AsyncPages
    from .client._base import EventStream as EventStream
    from .client._base import Pages as Pages
    from .client._client import AsyncCampaignsV2Controller as AsyncCampaignsV2Controller
    from .client._client import AsyncServerLoggingController as AsyncServerLoggingController
    from .client._client import (
        AsyncSoftwareManagementCallbacksV2Controller as AsyncSoftwareManagementCallbacksV2Controller,
    )
    from .client._client import AsyncSoftwareManagementReportsV2Controller as AsyncSoftwareManagementReportsV2Controller
    from .client._client import CampaignsV2Controller as CampaignsV2Controller
    from .client._client import ServerLoggingController as ServerLoggingController
    from .client._client import SoftwareManagementCallbacksV2Controller as SoftwareManagementCallbacksV2Controller
    from .client._client import SoftwareManagementReportsV2Controller as SoftwareManagementReportsV2Controller
    from .contract.auth import OauthToken as OauthToken
    from .contract.auth import SessionCredentials as SessionCredentials
    from .contract.auth import ThingspaceOauthCredentials as ThingspaceOauthCredentials
    from .contract.auth import VZM2mTokenCredentials as VZM2mTokenCredentials
    from .contract.errors import ApiException as ApiException
    from .contract.errors import AuthenticationError as AuthenticationError
    from .contract.errors import ConnectionFailed as ConnectionFailed
    from .contract.errors import FotahookError as FotahookError
    from .contract.errors import FotaV2ResultException as FotaV2ResultException
    from .contract.errors import LoginRefused as LoginRefused
    from .contract.errors import NotFound as NotFound
    from .contract.errors import PermissionDenied as PermissionDenied
    from .contract.errors import RateLimited as RateLimited
    from .contract.errors import ResponseError as ResponseError
    from .contract.errors import ServerError as ServerError
    from .contract.errors import TimedOut as TimedOut
    from .contract.errors import TlsError as TlsError
    from .contract.errors import TransportError as TransportError
    from .contract.errors import WebhookRejected as WebhookRejected
    from .contract.events import Event as Event
    from .contract.exchange import ApiResponse as ApiResponse
    from .contract.exchange import Headers as Headers
    from .contract.exchange import Request as Request
    from .contract.messages import CallbackMessage as CallbackMessage
    from .contract.models import CallbackSummary as CallbackSummary
    from .contract.models import CampaignSoftware as CampaignSoftware
    from .contract.models import CheckInHistoryItem as CheckInHistoryItem
    from .contract.models import DeviceSoftwareUpgrade as DeviceSoftwareUpgrade
    from .contract.models import FotaV2CallbackRegistrationRequest as FotaV2CallbackRegistrationRequest
    from .contract.models import FotaV2CallbackRegistrationResult as FotaV2CallbackRegistrationResult
    from .contract.models import FotaV2SuccessResult as FotaV2SuccessResult
    from .contract.models import Moved as Moved
    from .contract.models import V2CampaignDevice as V2CampaignDevice
    from .contract.models import V2CampaignHistory as V2CampaignHistory
    from .contract.models import V2CampaignMetaInfo as V2CampaignMetaInfo
    from .contract.models import V2DeviceStatus as V2DeviceStatus
    from .contract.models import V2TimeWindow as V2TimeWindow
    from .contract.operator import AccountPage as AccountPage
    from .contract.operator import AccountState as AccountState
    from .contract.operator import Attempt as Attempt
    from .contract.operator import BatchMessage as BatchMessage
    from .contract.operator import MessagePage as MessagePage
    from .contract.operator import MessageState as MessageState
    from .contract.operator import Published as Published
    from .contract.operator import Reason as Reason
    from .contract.operator import Redelivered as Redelivered
    from .contract.operator import Refused as Refused
    from .contract.operator import Stats as Stats
    from .contract.operator import Why as Why
    from .contract.servers import Environment as Environment
    from .contract.servers import Server as Server
    from .listener import Listener as Listener
    from .listener import unwrap as unwrap

__version__ = _version.VERSION

# The public names by module. One is loaded when a name of it is first used: importing fotahook loads nothing, and a
# program that only calls never loads what receives.
_MODULES = {
    name: module
    for module, names in {
        "client": "AsyncClient AsyncOperatorClient Client OperatorClient",
        "client._client": (
            "AsyncCampaignsV2Controller AsyncServerLoggingController "
            "AsyncSoftwareManagementCallbacksV2Controller AsyncSoftwareManagementReportsV2Controller "
            "CampaignsV2Controller ServerLoggingController SoftwareManagementCallbacksV2Controller "
            "SoftwareManagementReportsV2Controller"
        ),
        "client._base": "AsyncEventStream AsyncPages EventStream Pages",
        "contract.auth": "OauthToken SessionCredentials ThingspaceOauthCredentials VZM2mTokenCredentials",
        "contract.errors": (
            "ApiException AuthenticationError ConnectionFailed FotahookError FotaV2ResultException "
            "LoginRefused NotFound PermissionDenied RateLimited ResponseError ServerError TimedOut TlsError "
            "TransportError WebhookRejected"
        ),
        "contract.events": "Event",
        "contract.exchange": "ApiResponse Headers Request",
        "contract.messages": "CallbackMessage",
        "contract.models": (
            "CallbackSummary CampaignSoftware CheckInHistoryItem DeviceSoftwareUpgrade "
            "FotaV2CallbackRegistrationRequest FotaV2CallbackRegistrationResult FotaV2SuccessResult Moved "
            "V2CampaignDevice V2CampaignHistory V2CampaignMetaInfo V2DeviceStatus V2TimeWindow"
        ),
        "contract.operator": (
            "AccountPage AccountState Attempt BatchMessage MessagePage MessageState Published Reason "
            "Redelivered Refused Stats Why"
        ),
        "contract.servers": "Environment Server",
        "listener": "Listener unwrap",
    }.items()
    for name in names.split()
}
__all__ = sorted([*_MODULES, "__version__"])


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'fotahook' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"fotahook.{_MODULES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return __all__
