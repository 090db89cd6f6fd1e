"""The SDK. `_flow` decides what to send and when; `_sync` and `_async` do the I/O."""

from ._callbacks import AsyncSoftwareManagementCallbacksV2Controller, SoftwareManagementCallbacksV2Controller
from ._client import AsyncClient, Client
from ._event_stream import AsyncEventStream, EventStream
from ._operator import AsyncOperatorClient, OperatorClient

__all__ = [
    "AsyncClient",
    "AsyncEventStream",
    "AsyncOperatorClient",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "Client",
    "EventStream",
    "OperatorClient",
    "SoftwareManagementCallbacksV2Controller",
]
