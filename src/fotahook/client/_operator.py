"""OperatorClient and AsyncOperatorClient: fotahook's own API, to publish messages and to watch accounts."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar, Unpack

import msgspec
from msgspec import UNSET, UnsetType

from ..contract import calls
from ..contract import operator as types
from ..contract.auth import ThingspaceOauthCredentials
from ..contract.calls import Call
from ..contract.servers import servers_at
from . import _base
from ._base import BaseClient, Listing, Subscription, operation, paged, streamed
from ._settings import Options, Settings, SharedOptions

T = TypeVar("T")


class _OperatorClient(BaseClient):
    """The methods of both operator clients.

    `client_id` and `client_secret` are those of a client of the service; the other arguments are Client's. `timeout`
    and `max_retries` of a method override the client's. The methods raise the errors of `fotahook.FotahookError`, and
    TypeError or ValueError for bad arguments.
    """

    @partial(_base.spelled_out, defaults=Settings())
    def __init__(self, base_url: str, client_id: str, client_secret: str, **options: Unpack[SharedOptions]) -> None:
        credentials = ThingspaceOauthCredentials(client_id, client_secret)
        self._set_up(servers_at(base_url), credentials, None, Settings(**options))

    async def _data(self, call: Call[T], **options: Unpack[Options]) -> T:
        if not call.repeatable:
            options["max_retries"] = options.get("max_retries") or 0
        return (await self._perform(call, **options)).data

    @operation
    async def publish(
        self,
        account: str,
        message: bytes | Mapping[str, object],
        *,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> types.Published:
        """Publish a message for delivery; when this returns, the service has it on disk.

        Bytes are delivered unchanged, a mapping as JSON. Messages with the same ordering key arrive in order. With an
        idempotency key, a message is accepted once, however often it is published.
        """
        # Without a key, a retry after a lost response would publish the message twice.
        key = self._runtime.new_key() if idempotency_key is None else idempotency_key
        path, headers = f"{_account(account)}/messages", calls.publish_headers(key, ordering_key)
        call = _call("POST", path, types.Published, calls.message_bytes(message), headers=headers)
        return await self._data(call, **options)

    @operation
    async def publish_batch(
        self, messages: Iterable[types.BatchMessage], **options: Unpack[Options]
    ) -> list[types.Published | types.Refused]:
        """Publish up to 5,000 messages; when this returns, accepted ones are on disk. Returns one result for each.

        A message of bytes must be one line of JSON. Messages without an idempotency key get one.
        """
        body, count = calls.batch_body(messages, self._runtime.new_key)
        call = Call("POST", None, "/v1/messages", partial(calls.read_batch, count), body, "application/x-ndjson")
        return await self._data(call, **options)

    @operation
    async def account(self, account: str, **options: Unpack[Options]) -> types.AccountState:
        """An account's callback, the state of its lane, and its backlog."""
        return await self._data(_call("GET", _account(account), types.AccountState), **options)

    @paged
    def accounts(
        self,
        *,
        state: types.AccountFilter | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        **options: Unpack[Options],
    ) -> Listing[types.AccountPage, types.AccountState]:
        """The accounts, by name, read in pages of `limit`; `cursor` is that of an earlier page."""
        page_at = _pages(types.AccountPage, "/v1/accounts", state=state, limit=limit)
        return Listing(page_at, lambda page: page.accounts, cursor, options)

    @operation
    async def audit(
        self,
        *,
        account: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        **options: Unpack[Options],
    ) -> types.AuditPage:
        """A page of the audit log, newest first: who changed what, when and from where."""
        query = calls.query_string(account=account, cursor=cursor, limit=limit)
        return await self._data(_call("GET", f"/v1/audit{query}", types.AuditPage), **options)

    @operation
    async def set_limits(
        self,
        account: str,
        *,
        in_flight: int | UnsetType | None = UNSET,
        per_second: float | UnsetType | None = UNSET,
        pending_messages: int | UnsetType | None = UNSET,
        pending_bytes: int | UnsetType | None = UNSET,
        publishes_per_second: int | UnsetType | None = UNSET,
        changes_per_hour: int | UnsetType | None = UNSET,
        **options: Unpack[Options],
    ) -> types.AccountState:
        """Change the given limits and quotas of an account; None restores the service's default. Returns the account.

        A quota of 0 is none. Only a client that all accounts are granted to may raise a quota.
        """
        rates = publishes_per_second, changes_per_hour
        limits = types.NewLimits(in_flight, per_second, pending_messages, pending_bytes, *rates)
        body = msgspec.json.encode({"limits": limits})
        return await self._data(_call("PATCH", _account(account), types.AccountState, body), **options)

    @operation
    async def pause(self, account: str, **options: Unpack[Options]) -> types.AccountState:
        """Stop deliveries to an account until it is resumed. No message is lost."""
        return await self._data(_call("POST", f"{_account(account)}/pause", types.AccountState), **options)

    @operation
    async def resume(self, account: str, **options: Unpack[Options]) -> types.AccountState:
        """End a pause, or the backoff of a failing endpoint."""
        return await self._data(_call("POST", f"{_account(account)}/resume", types.AccountState), **options)

    @operation
    async def message(self, message_id: str, **options: Unpack[Options]) -> types.MessageState:
        """A message and the state of its deliveries; NotFound if the service does not know it."""
        return await self._data(_call("GET", _message(message_id), types.MessageState), **options)

    @operation
    async def message_body(self, message_id: str, **options: Unpack[Options]) -> bytes:
        """The bytes of a message as they were published; ApiException (410) if retention has removed them."""
        return await self._data(Call("GET", None, f"{_message(message_id)}/body", bytes), **options)

    @operation
    async def attempts(self, message_id: str, **options: Unpack[Options]) -> list[types.Attempt]:
        """All delivery attempts of a message, oldest first."""
        call = _call("GET", f"{_message(message_id)}/attempts", types.Attempts)
        return (await self._data(call, **options)).attempts

    @paged
    def messages(
        self,
        account: str,
        *,
        state: types.MessageStateName | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        **options: Unpack[Options],
    ) -> Listing[types.MessagePage, types.MessageState]:
        """An account's messages, newest first, read in pages of `limit`; `cursor` is that of an earlier page."""
        which = {"state": state, "type": message_type, "key": ordering_key, **_span(since, until)}
        page_at = _pages(types.MessagePage, f"{_account(account)}/messages", **which, limit=limit)
        return Listing(page_at, lambda page: page.messages, cursor, options)

    @operation
    async def why(self, message_id: str, **options: Unpack[Options]) -> types.Why:
        """Why a message is in its state: what it waits for, until when, and what would send it now."""
        return await self._data(_call("GET", f"{_message(message_id)}/why", types.Why), **options)

    @operation
    async def redeliver(
        self, message_id: str, *, as_new: bool = False, **options: Unpack[Options]
    ) -> types.Redelivered:
        """Deliver a settled message again, under its id or `as_new`; retried only if `max_retries` is given."""
        path, body = f"{_message(message_id)}/redeliver", msgspec.json.encode({"asNew": as_new})
        return await self._data(_call("POST", path, types.Redelivered, body, repeatable=False), **options)

    @operation
    async def redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        **options: Unpack[Options],
    ) -> int:
        """Deliver `dead` or `delivered` messages again; returns how many. Retried only if `max_retries` is given."""
        body = msgspec.json.encode({"state": state, **_span(since, until), "dryRun": dry_run})
        call = _call("POST", f"{_account(account)}/redeliver", types.Redeliveries, body, repeatable=False)
        return (await self._data(call, **options)).count

    @operation
    async def search(self, text: str, **options: Unpack[Options]) -> types.Found:
        """What is called like this: accounts and campaigns by the beginning, messages and devices by their id.

        Or messages by filters, such as ``type:upgradeProgress state:dead since:1h until:2026-11-25T20:00:00Z``.
        """
        return await self._data(_call("GET", f"/v1/search{calls.query_string(q=text)}", types.Found), **options)

    @operation
    async def stats(self, minutes: int | None = None, **options: Unpack[Options]) -> types.Stats:
        """Totals and counts by minute of the last minutes (by default 60, at most 1,440)."""
        return await self._data(_call("GET", f"/v1/stats{calls.query_string(minutes=minutes)}", types.Stats), **options)

    @streamed
    def events(
        self,
        account: str | None = None,
        *,
        after: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> Subscription:
        """Events of one account, or of all the client's, as they happen.

        Begins behind a cursor, `after`, or now. Lost connections are made again and continue where they broke off;
        `max_retries` is for the first one. Ends after `timeout` seconds, if given.
        """
        return account, after, timeout, max_retries


def _span(since: datetime | None, until: datetime | None) -> dict[str, str | None]:
    return {"since": calls.timestamp("since", since), "until": calls.timestamp("until", until)}


def _account(account: str) -> str:
    return f"/v1/accounts/{calls.segment('account', account)}"


def _message(message_id: str) -> str:
    return f"/v1/messages/{calls.segment('message_id', message_id)}"


def _call(method: str, path: str, kind: type[T], body: bytes | None = None, **more: Any) -> Call[T]:
    return Call(method, None, path, calls.read_json(kind), body, **more)


def _pages(kind: type[T], path: str, **query: str | int | None) -> Callable[[str | None], Call[T]]:
    return lambda cursor: _call("GET", path + calls.query_string(**query, cursor=cursor), kind)


class OperatorClient(_OperatorClient, _base.SyncBaseClient):
    """fotahook's own API, for threads."""


class AsyncOperatorClient(_OperatorClient, _base.AsyncBaseClient):
    """fotahook's own API, for tasks of one event loop. Needs `pip install 'fotahook[async]'`."""
