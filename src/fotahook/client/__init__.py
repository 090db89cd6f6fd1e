"""The SDK. `_flow` decides what to send and when; `_sync` and `_async` do the I/O."""

from ._client import AsyncClient, Client
from ._controllers import (
    AsyncCampaignsV2Controller,
    AsyncServerLoggingController,
    AsyncSoftwareManagementCallbacksV2Controller,
    AsyncSoftwareManagementReportsV2Controller,
    CampaignsV2Controller,
    ServerLoggingController,
    SoftwareManagementCallbacksV2Controller,
    SoftwareManagementReportsV2Controller,
)
from ._event_stream import AsyncEventStream, EventStream
from ._operator import AsyncOperatorClient, OperatorClient
from ._pages import AsyncPages, Pages

__all__ = [
    "AsyncCampaignsV2Controller",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncOperatorClient",
    "AsyncPages",
    "AsyncServerLoggingController",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementReportsV2Controller",
    "CampaignsV2Controller",
    "Client",
    "EventStream",
    "OperatorClient",
    "Pages",
    "ServerLoggingController",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
]
