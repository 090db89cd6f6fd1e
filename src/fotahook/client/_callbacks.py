"""The controller of the four callback calls, for threads and for tasks."""

from typing import TYPE_CHECKING, Unpack

from ..contract import calls
from ..contract.exchange import ApiResponse
from ..contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from ._base import AsyncMethods, Operation, SyncMethods, operation, response_of
from ._settings import CallOptions

if TYPE_CHECKING:
    from ._async import AsyncTransport
    from ._sync import SyncTransport


class _Callbacks:
    """The four calls; each `account` has one callback URL.

    `timeout` (seconds for the whole call, retries included) and `max_retries` override the client's. Bad arguments
    raise TypeError or ValueError, a 400 raises FotaV2ResultException, and other failures what `fotahook.FotahookError`
    lists.
    """

    @operation
    def list_registered_callbacks(
        self, account: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[CallbackSummary | None]]:
        """The callback registered for an account; `data` is None if there is none."""
        return response_of(calls.list_registered_callbacks(account), **options)

    @operation
    def update_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2CallbackRegistrationResult]]:
        """Replace the callback URL of an account."""
        return response_of(calls.update_callback(account, body), **options)

    @operation
    def register_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2CallbackRegistrationResult]]:
        """Register the callback URL of an account, in place of an earlier one."""
        return response_of(calls.register_callback(account, body), **options)

    @operation
    def deregister_callback(
        self, account: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2SuccessResult]]:
        """Remove the callback URL of an account."""
        return response_of(calls.deregister_callback(account), **options)


class SoftwareManagementCallbacksV2Controller(_Callbacks, SyncMethods):
    __doc__ = _Callbacks.__doc__

    def __init__(self, transport: "SyncTransport") -> None:
        self._transport = transport


class AsyncSoftwareManagementCallbacksV2Controller(_Callbacks, AsyncMethods):
    __doc__ = f"{_Callbacks.__doc__}\n    The methods are coroutines.\n"

    def __init__(self, transport: "AsyncTransport") -> None:
        self._transport = transport
