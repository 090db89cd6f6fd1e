"""OperatorClient and AsyncOperatorClient: fotahook's own API, for who publishes messages and watches accounts."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from ..contract import operator_calls as calls
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
    Stats,
    Why,
)
from ..contract.servers import servers_at
from ._closing import AsyncClosing, Closing
from ._events import AsyncEventStream, EventStream
from ._flow import Caller
from ._following import Follower
from ._operation import Follow, Plan, following, operation
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

T = TypeVar("T")


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

    @operation
    def publish(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        *,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Plan[Published]:
        """Hand a message over for delivery; when this returns, the service has it on disk.

        Bytes are delivered as they are; a mapping as JSON. Messages of one ordering key arrive in order. Under one
        idempotency key a message is taken once, however often it is published.
        """
        call = self._publishing(account, message, ordering_key, idempotency_key)
        return Plan(call, timeout, max_retries)

    @operation
    def account(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[AccountState]:
        """An account's callback, the state of its lane, and what is not delivered."""
        return Plan(calls.account(account), timeout, max_retries)

    @operation
    def message(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[MessageState]:
        """What became of a message; NotFound for one that the service does not know."""
        return Plan(calls.message(message_id), timeout, max_retries)

    @operation
    def message_body(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[bytes]:
        """The bytes of a message as they were published; ApiException (410) if retention has removed them."""
        return Plan(calls.message_body(message_id), timeout, max_retries)

    @operation
    def attempts(
        self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[list[Attempt]]:
        """Every attempt at a message, the first one first."""
        return Plan(calls.attempts(message_id), timeout, max_retries)

    @operation
    def publish_batch(
        self, messages: Iterable[BatchMessage], *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[list[Published | Refused]]:
        """Hand up to 5,000 messages over at once; what is accepted is on disk when this returns, an answer for each.

        A message of bytes is one line of JSON. Those without an idempotency key get one of their own.
        """
        call = calls.publish_batch(messages, self._world.new_key)
        return Plan(call, timeout, max_retries)

    @operation
    def accounts(
        self,
        *,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Plan[AccountPage]:
        """Some of the accounts, by name; `state` is `trouble` or that of a lane. `cursor` is the last page's."""
        call = calls.accounts(state, cursor, limit)
        return Plan(call, timeout, max_retries)

    @operation
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
    ) -> Plan[MessagePage]:
        """Some of an account's messages, newest first; `cursor` is the last page's."""
        call = calls.messages(
            account,
            state=state,
            message_type=message_type,
            ordering_key=ordering_key,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
        return Plan(call, timeout, max_retries)

    @operation
    def why(self, message_id: str, *, timeout: float | None = None, max_retries: int | None = None) -> Plan[Why]:
        """Why a message stands where it stands: what it waits for, until when, and what would send it now."""
        call = calls.why(message_id)
        return Plan(call, timeout, max_retries)

    @operation
    def redeliver(
        self, message_id: str, *, as_new: bool = False, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[Redelivered]:
        """Send a settled message once more, under its id, or `as_new` under another one.

        Not tried again unless `max_retries` says so: a first try whose answer was lost may have arrived.
        """
        call = calls.redeliver(message_id, as_new)
        return Plan(call, timeout, _unrepeated(max_retries))

    @operation
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
    ) -> Plan[int]:
        """Send an account's messages that are `dead` or `delivered` once more; how many. `dry_run` only counts them.

        Not tried again unless `max_retries` says so.
        """
        call = calls.redeliver_all(account, state, since, until, dry_run)
        return Plan(call, timeout, _unrepeated(max_retries))

    @operation
    def pause(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[AccountState]:
        """Send nothing to an account until it is resumed; everything is kept."""
        call = calls.pause(account)
        return Plan(call, timeout, max_retries)

    @operation
    def resume(
        self, account: str, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[AccountState]:
        """End a pause, or a wait for an endpoint in trouble."""
        call = calls.resume(account)
        return Plan(call, timeout, max_retries)

    @operation
    def stats(
        self, minutes: int | None = None, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Plan[Stats]:
        """How much happened in the last minutes (60 unless given, 1,440 at most): in all, and minute by minute."""
        return Plan(calls.stats(minutes), timeout, max_retries)

    @following
    def events(
        self,
        account: str | None = None,
        *,
        after: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Follow:
        """What happens, as it happens, to one account or to all of the client's.

        From behind a cursor, `after`, or from now on. A connection that is lost is made again for as long as it takes,
        and goes on where it broke off; `max_retries` is for the first one. Ends after `timeout` seconds, if given.
        """
        return Follow(Follower(account, after, timeout, self._world), max_retries)

    def _publishing(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        ordering_key: str | None,
        idempotency_key: str | None,
    ) -> Call[Published]:
        # A key of our own at least: a retry whose first try did arrive must not publish twice.
        key = self._world.new_key() if idempotency_key is None else idempotency_key
        return calls.publish(account, message, ordering_key, key)


def _unrepeated(max_retries: int | None) -> int:
    """The retries of a call that may come to something else when it is made again."""
    return 0 if max_retries is None else max_retries


class OperatorClient(_OperatorClient, Closing):
    """fotahook's own API, for threads."""

    def _begin(self) -> None:
        self._runner = Runner(self._caller, self._connecting, self._patience, self._world)

    def _carry_out(self, plan: Callable[[], Plan[T]]) -> T:
        made = plan()
        return self._runner.call(made.call, made.timeout, made.max_retries).data

    def _follow(self, made: Follow) -> EventStream:
        return EventStream(self._runner, made.follower, made.max_retries, self._world)

    def close(self) -> None:
        """Close all connections."""
        self._runner.close()


class AsyncOperatorClient(_OperatorClient, AsyncClosing):
    """fotahook's own API, for tasks of one event loop. Needs `pip install 'fotahook[async]'`."""

    def _begin(self) -> None:
        from ._async_runner import AsyncRunner

        self._runner = AsyncRunner(self._caller, self._connecting, self._patience, self._world)

    async def _carry_out(self, plan: Callable[[], Plan[T]]) -> T:
        made = plan()
        return (await self._runner.call(made.call, made.timeout, made.max_retries)).data

    def _follow(self, made: Follow) -> AsyncEventStream:
        return AsyncEventStream(self._runner, made.follower, made.max_retries, self._world)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._runner.close()
