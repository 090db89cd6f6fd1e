"""The SDK. `_flow` decides what to send and when; `_sync` and `_async` do the I/O."""

from ._callbacks import AsyncSoftwareManagementCallbacksV2Controller, SoftwareManagementCallbacksV2Controller
from ._client import AsyncClient, Client
from ._event_stream import AsyncEventStream, EventStream
from ._operator import AsyncOperatorClient, OperatorClient
from ._pages import AsyncPages, Pages
from ._reads import (
    AsyncCampaignsV2Controller,
    AsyncServerLoggingController,
    AsyncSoftwareManagementReportsV2Controller,
    CampaignsV2Controller,
    ServerLoggingController,
    SoftwareManagementReportsV2Controller,
)

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
