"""OperatorClient and AsyncOperatorClient: fotahook's own API, for who publishes messages and watches accounts."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from ..contract import operator
from ..contract.auth import ThingspaceOauthCredentials
from ..contract.calls import Call
from ..contract.operator import (
    AccountPage,
    AccountState,
    Attempt,
    BatchMessage,
    MessagePage,
    MessageState,
    Published,
    Redelivered,
    Refused,
    Why,
)
from ..contract.servers import servers_at
from ._flow import Caller
from ._runner import Runner
from ._settings import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    ClientCert,
    OnRequest,
    OnResponse,
    Patience,
    checked_connecting,
)
from ._steps import Hooks, World
from ._tokens import Bearer


class _OperatorClient:
    """What both have in common. `client_id` and `client_secret` are those of a client of the service; the other
    arguments are Client's. Each method takes `timeout` and `max_retries` in place of the client's, and raises
    ApiException and its kin, TransportError, ResponseError, and TypeError or ValueError for bad arguments.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        proxy: str | None = None,
        ca_file: str | None = None,
        client_cert: ClientCert | None = None,
        on_request: OnRequest | None = None,
        on_response: OnResponse | None = None,
        _world: World | None = None,
    ) -> None:
        self._world = _world or World()
        self._connecting = checked_connecting(proxy, ca_file, client_cert)
        self._patience = Patience(timeout, max_retries)
        self._caller = Caller(
            servers_at(base_url),
            Bearer(ThingspaceOauthCredentials(client_id, client_secret), self._world),
            None,
            Hooks(on_request, on_response),
            self._world,
        )
        self._begin()

    def _begin(self) -> None: ...

    def _publishing(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        ordering_key: str | None,
        idempotency_key: str | None,
    ) -> Call[Published]:
        # A key of our own at least: a retry whose first try did arrive must not publish twice.
        key = self._world.new_key() if idempotency_key is None else idempotency_key
        return operator.publish(account, message, ordering_key, key)


def _unrepeated(max_retries: int | None) -> int:
    """The retries of a call that may come to something else when it is made again."""
    return 0 if max_retries is None else max_retries


class OperatorClient(_OperatorClient):
    """fotahook's own API, for threads."""

    def _begin(self) -> None:
        self._runner = Runner(self._caller, self._connecting, self._patience, self._world)

    def publish(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        *,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Published:
        """Hand a message over for delivery; when this returns, the service has it on disk.

        Bytes are delivered as they are; a mapping as JSON. Messages of one ordering key arrive in order. Under one
        idempotency key a message is taken once, however often it is published.
        """
        call = self._publishing(account, message, ordering_key, idempotency_key)
        return self._runner.call(call, timeout, max_retries).data

    def account(self, account: str, *, timeout: float | None = None, max_retries: int | None = None) -> AccountState:
        """An account's callback, the state of its lane, and what is not delivered."""
        return self._runner.call(operator.account(account), timeout, max_retries).data

    def message(self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None) -> MessageState:
        """What became of a message; NotFound for one that the service does not know."""
        return self._runner.call(operator.message(message_id), timeout, max_retries).data

    def message_body(self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None) -> bytes:
        """The bytes of a message as they were published; ApiException (410) if retention has removed them."""
        return self._runner.call(operator.message_body(message_id), timeout, max_retries).data

    def attempts(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> list[Attempt]:
        """Every attempt at a message, the first one first."""
        return self._runner.call(operator.attempts(message_id), timeout, max_retries).data

    def publish_batch(
        self, messages: Iterable[BatchMessage], *, timeout: float | None = None, max_retries: int | None = None
    ) -> list[Published | Refused]:
        """Hand up to 5,000 messages over at once; what is accepted is on disk when this returns, an answer for each.

        A message of bytes is one line of JSON. Those without an idempotency key get one of their own.
        """
        call = operator.publish_batch(messages, self._world.new_key)
        return self._runner.call(call, timeout, max_retries).data

    def accounts(
        self,
        *,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> AccountPage:
        """Some of the accounts, by name; `state` is `trouble` or that of a lane. `cursor` is the last page's."""
        call = operator.accounts(state, cursor, limit)
        return self._runner.call(call, timeout, max_retries).data

    def messages(
        self,
        account: str,
        *,
        state: str | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> MessagePage:
        """Some of an account's messages, newest first; `cursor` is the last page's."""
        call = operator.messages(
            account,
            state=state,
            message_type=message_type,
            ordering_key=ordering_key,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
        return self._runner.call(call, timeout, max_retries).data

    def why(self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None) -> Why:
        """Why a message stands where it stands: what it waits for, until when, and what would send it now."""
        call = operator.why(message_id)
        return self._runner.call(call, timeout, max_retries).data

    def redeliver(
        self, message_id: str, *, as_new: bool = False, timeout: float | None = None, max_retries: int | None = None
    ) -> Redelivered:
        """Send a settled message once more, under its id, or `as_new` under another one.

        Not tried again unless `max_retries` says so: a first try whose answer was lost may have arrived.
        """
        call = operator.redeliver(message_id, as_new)
        return self._runner.call(call, timeout, _unrepeated(max_retries)).data

    def redeliver_all(
        self,
        account: str,
        state: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> int:
        """Send an account's messages that are `dead` or `delivered` once more; how many. `dry_run` only counts them.

        Not tried again unless `max_retries` says so.
        """
        call = operator.redeliver_all(account, state, since, until, dry_run)
        return self._runner.call(call, timeout, _unrepeated(max_retries)).data

    def pause(self, account: str, *, timeout: float | None = None, max_retries: int | None = None) -> AccountState:
        """Send nothing to an account until it is resumed; everything is kept."""
        call = operator.pause(account)
        return self._runner.call(call, timeout, max_retries).data

    def resume(self, account: str, *, timeout: float | None = None, max_retries: int | None = None) -> AccountState:
        """End a pause, or a wait for an endpoint in trouble."""
        call = operator.resume(account)
        return self._runner.call(call, timeout, max_retries).data

    def close(self) -> None:
        """Close all connections."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncOperatorClient(_OperatorClient):
    """fotahook's own API, for tasks of one event loop. Needs `pip install 'fotahook[async]'`."""

    def _begin(self) -> None:
        from ._async_runner import AsyncRunner

        self._runner = AsyncRunner(self._caller, self._connecting, self._patience, self._world)

    async def publish(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        *,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Published:
        """Hand a message over for delivery; when this returns, the service has it on disk.

        Bytes are delivered as they are; a mapping as JSON. Messages of one ordering key arrive in order. Under one
        idempotency key a message is taken once, however often it is published.
        """
        call = self._publishing(account, message, ordering_key, idempotency_key)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def account(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> AccountState:
        """An account's callback, the state of its lane, and what is not delivered."""
        return (await self._runner.call(operator.account(account), timeout, max_retries)).data

    async def message(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> MessageState:
        """What became of a message; NotFound for one that the service does not know."""
        return (await self._runner.call(operator.message(message_id), timeout, max_retries)).data

    async def message_body(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> bytes:
        """The bytes of a message as they were published; ApiException (410) if retention has removed them."""
        return (await self._runner.call(operator.message_body(message_id), timeout, max_retries)).data

    async def attempts(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> list[Attempt]:
        """Every attempt at a message, the first one first."""
        return (await self._runner.call(operator.attempts(message_id), timeout, max_retries)).data

    async def publish_batch(
        self, messages: Iterable[BatchMessage], *, timeout: float | None = None, max_retries: int | None = None
    ) -> list[Published | Refused]:
        """Hand up to 5,000 messages over at once; what is accepted is on disk when this returns, an answer for each.

        A message of bytes is one line of JSON. Those without an idempotency key get one of their own.
        """
        call = operator.publish_batch(messages, self._world.new_key)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def accounts(
        self,
        *,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> AccountPage:
        """Some of the accounts, by name; `state` is `trouble` or that of a lane. `cursor` is the last page's."""
        call = operator.accounts(state, cursor, limit)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def messages(
        self,
        account: str,
        *,
        state: str | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> MessagePage:
        """Some of an account's messages, newest first; `cursor` is the last page's."""
        call = operator.messages(
            account,
            state=state,
            message_type=message_type,
            ordering_key=ordering_key,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
        return (await self._runner.call(call, timeout, max_retries)).data

    async def why(self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None) -> Why:
        """Why a message stands where it stands: what it waits for, until when, and what would send it now."""
        call = operator.why(message_id)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def redeliver(
        self, message_id: str, *, as_new: bool = False, timeout: float | None = None, max_retries: int | None = None
    ) -> Redelivered:
        """Send a settled message once more, under its id, or `as_new` under another one.

        Not tried again unless `max_retries` says so: a first try whose answer was lost may have arrived.
        """
        call = operator.redeliver(message_id, as_new)
        return (await self._runner.call(call, timeout, _unrepeated(max_retries))).data

    async def redeliver_all(
        self,
        account: str,
        state: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> int:
        """Send an account's messages that are `dead` or `delivered` once more; how many. `dry_run` only counts them.

        Not tried again unless `max_retries` says so.
        """
        call = operator.redeliver_all(account, state, since, until, dry_run)
        return (await self._runner.call(call, timeout, _unrepeated(max_retries))).data

    async def pause(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> AccountState:
        """Send nothing to an account until it is resumed; everything is kept."""
        call = operator.pause(account)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def resume(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> AccountState:
        """End a pause, or a wait for an endpoint in trouble."""
        call = operator.resume(account)
        return (await self._runner.call(call, timeout, max_retries)).data

    async def aclose(self) -> None:
        """Close all connections."""
        await self._runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
