"""The controller of the four calls, for threads and for tasks. Only the words `async` and `await` tell them apart."""

from typing import TYPE_CHECKING

from ..contract import calls
from ..contract.exchange import ApiResponse
from ..contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)

if TYPE_CHECKING:
    from ._async_runner import AsyncRunner
    from ._runner import Runner


class SoftwareManagementCallbacksV2Controller:
    """The four calls about the one callback URL of an account.

    Each takes `timeout` (seconds for the whole call, its retries included) and `max_retries` in place of the client's.
    Each raises TypeError or ValueError for bad arguments, FotaV2ResultException on 400, and else what
    `fotahook.FotahookError` lists.
    """

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner

    def list_registered_callbacks(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> ApiResponse[CallbackSummary | None]:
        """The callback registered for an account; `data` is None if there is none."""
        return self._runner.call(calls.list_registered_callbacks(account), timeout, max_retries)

    def update_callback(
        self,
        account: str,
        body: FotaV2CallbackRegistrationRequest,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> ApiResponse[FotaV2CallbackRegistrationResult]:
        """Replace the callback URL of an account."""
        return self._runner.call(calls.update_callback(account, body), timeout, max_retries)

    def register_callback(
        self,
        account: str,
        body: FotaV2CallbackRegistrationRequest,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> ApiResponse[FotaV2CallbackRegistrationResult]:
        """Register the callback URL of an account, in place of an earlier one."""
        return self._runner.call(calls.register_callback(account, body), timeout, max_retries)

    def deregister_callback(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> ApiResponse[FotaV2SuccessResult]:
        """Remove the callback URL of an account."""
        return self._runner.call(calls.deregister_callback(account), timeout, max_retries)


class AsyncSoftwareManagementCallbacksV2Controller:
    """The four calls about the one callback URL of an account, as coroutines.

    Each takes `timeout` (seconds for the whole call, its retries included) and `max_retries` in place of the client's.
    Each raises TypeError or ValueError for bad arguments, FotaV2ResultException on 400, and else what
    `fotahook.FotahookError` lists.
    """

    def __init__(self, runner: "AsyncRunner") -> None:
        self._runner = runner

    async def list_registered_callbacks(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> ApiResponse[CallbackSummary | None]:
        """The callback registered for an account; `data` is None if there is none."""
        return await self._runner.call(calls.list_registered_callbacks(account), timeout, max_retries)

    async def update_callback(
        self,
        account: str,
        body: FotaV2CallbackRegistrationRequest,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> ApiResponse[FotaV2CallbackRegistrationResult]:
        """Replace the callback URL of an account."""
        return await self._runner.call(calls.update_callback(account, body), timeout, max_retries)

    async def register_callback(
        self,
        account: str,
        body: FotaV2CallbackRegistrationRequest,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> ApiResponse[FotaV2CallbackRegistrationResult]:
        """Register the callback URL of an account, in place of an earlier one."""
        return await self._runner.call(calls.register_callback(account, body), timeout, max_retries)

    async def deregister_callback(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> ApiResponse[FotaV2SuccessResult]:
        """Remove the callback URL of an account."""
        return await self._runner.call(calls.deregister_callback(account), timeout, max_retries)
