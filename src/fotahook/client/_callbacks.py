"""The controller of the four callback calls, for threads and for tasks, and what moves a callback."""

from typing import Final, Unpack

from ..contract import calls
from ..contract.errors import ResponseError
from ..contract.exchange import ApiResponse
from ..contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
    Moved,
)
from ..contract.urls import same_url
from ._base import AsyncController, Operation, SyncController, operation, response_of
from ._effects import Flow, Sleep
from ._flow import Limits, MakeFlow, Pipeline
from ._settings import CallOptions

READ_BACK_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The waits before the reads that look for the new URL: ThingSpace shows a registration a while after it was made."""


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
        self, account: str, body: FotaV2CallbackRegistrationRequest | str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2CallbackRegistrationResult]]:
        """Replace the callback URL of an account."""
        return response_of(calls.update_callback(account, body), **options)

    @operation
    def register_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest | str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2CallbackRegistrationResult]]:
        """Register the callback URL of an account, in place of an earlier one."""
        return response_of(calls.register_callback(account, body), **options)

    @operation
    def deregister_callback(
        self, account: str, **options: Unpack[CallOptions]
    ) -> Operation[ApiResponse[FotaV2SuccessResult]]:
        """Remove the callback URL of an account.

        ThingSpace keeps no messages for an account without one: what it would send meanwhile is lost.
        """
        return response_of(calls.deregister_callback(account), **options)


class SoftwareManagementCallbacksV2Controller(_Callbacks, SyncController):
    __doc__ = _Callbacks.__doc__


class AsyncSoftwareManagementCallbacksV2Controller(_Callbacks, AsyncController):
    __doc__ = f"{_Callbacks.__doc__}\n    The methods are coroutines.\n"


def move(account: str, url: str) -> MakeFlow[Moved]:
    """Replaces a callback without a gap, and reads back that it is replaced."""
    read = calls.list_registered_callbacks(account)
    register, update = calls.register_callback(account, url), calls.update_callback(account, url)

    def flow(pipeline: Pipeline, limits: Limits) -> Flow[Moved]:
        found = (yield from pipeline.perform(read, limits)).data
        previous = None if found is None else found.url
        # Only POST is sure to register where nothing is registered. Nothing is ever removed first: see docs/sdk.md.
        yield from pipeline.perform(register if previous is None else update, limits)
        for seconds in READ_BACK_SECONDS:
            yield Sleep(seconds)
            found = (yield from pipeline.perform(read, limits)).data
            if found is not None and same_url(found.url, url):
                return Moved(previous, url)
        raise ResponseError(
            f"the callback of account {account} was set, but does not read back: "
            "somebody else may have set it too, so read it again"
        )

    return flow
