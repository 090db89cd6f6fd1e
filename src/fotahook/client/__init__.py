"""The SDK. `_flow` decides what to send and when; `_sync` and `_async` do the I/O."""

from ._client import AsyncClient, Client
from ._operator import AsyncOperatorClient, OperatorClient

__all__ = ["AsyncClient", "AsyncOperatorClient", "Client", "OperatorClient"]
