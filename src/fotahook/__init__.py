"""Software Management Callbacks V2 of Verizon ThingSpace: the SDK, the service and the listener."""

from importlib import import_module
from typing import TYPE_CHECKING

from .client import (
    AsyncClient,
    AsyncEventStream,
    AsyncOperatorClient,
    AsyncSoftwareManagementCallbacksV2Controller,
    Client,
    EventStream,
    OperatorClient,
    SoftwareManagementCallbacksV2Controller,
)
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
)
from .contract.events import Event
from .contract.exchange import ApiResponse, Headers, Request
from .contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
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
from .contract.version import VERSION as __version__

if TYPE_CHECKING:
    from .contract.messages import CallbackMessage
    from .listener import Listener

__all__ = [
    "AccountPage",
    "AccountState",
    "ApiException",
    "ApiResponse",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncOperatorClient",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "Attempt",
    "AuthenticationError",
    "BatchMessage",
    "CallbackMessage",
    "CallbackSummary",
    "Client",
    "ConnectionFailed",
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
    "NotFound",
    "OauthToken",
    "OperatorClient",
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
    "SessionCredentials",
    "SoftwareManagementCallbacksV2Controller",
    "Stats",
    "ThingspaceOauthCredentials",
    "TimedOut",
    "TlsError",
    "TransportError",
    "VZM2mTokenCredentials",
    "Why",
    "__version__",
]

# Imported on first use: a program that only makes calls does not need them.
_LAZY = {"CallbackMessage": "fotahook.contract.messages", "Listener": "fotahook.listener"}

# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'fotahook' has no attribute {name!r}")
        try:
            return getattr(import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("fotahook"):
                raise
            raise ImportError(f"fotahook.{name} needs {error.name}: pip install 'fotahook[listener]'") from error


def __dir__() -> list[str]:
    return __all__
