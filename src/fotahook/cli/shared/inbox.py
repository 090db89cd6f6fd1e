"""A listener's inbox with the methods of OperatorClient that commands about messages use."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from fotahook.contract.operator import Attempt, MessagePage, MessageState, Redelivered
from fotahook.store import Store, open_store
from fotahook.store.records import SCAN_LIMIT, Message, MessageFilter, Retention
from fotahook.store.views import attempt_state, message_state

from .errors import Refused
from .stores import check_exists

T = TypeVar("T")

_REFUSALS: Final = {
    "unknown": "there is no such message in the inbox; check the id",
    "pending": "the message is not settled yet: it waits for its handlers or forwards",
    "pruned": "the message's bytes were removed by retention",
}


@contextmanager
def open_inbox(url: str) -> "Iterator[Inbox]":
    """The inbox at a URL, whose listener may be running. UsageError if there is none."""
    check_exists("--inbox", url)
    with asyncio.Runner() as runner:
        store = runner.run(open_store(url))
        try:
            yield Inbox(store, runner)
        finally:
            runner.run(store.close())


class Inbox:
    """The messages of a listener. What it cannot do raises Refused."""

    def __init__(self, store: Store, runner: asyncio.Runner) -> None:
        self._store = store
        self._runner = runner

    def messages(
        self,
        account: str,
        *,
        state: Literal["pending", "delivered", "dead"] | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> MessagePage:
        """A page of an account's messages, newest first."""
        wanted = MessageFilter(
            state=state,
            type=message_type,
            ordering_key=ordering_key,
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
        )
        before = None if cursor is None else int(cursor)
        page = self._run(self._store.messages(account, wanted, before=before, limit=limit or SCAN_LIMIT))
        return MessagePage([_state(found) for found in page.messages], None if page.next is None else str(page.next))

    def message(self, message_id: str) -> MessageState:
        """One message and its deliveries."""
        return _state(self._find(message_id))

    def message_body(self, message_id: str) -> bytes:
        """The bytes of a message."""
        body = self._find(message_id).body
        if body is None:
            raise Refused(_REFUSALS["pruned"])
        return body

    def attempts(self, message_id: str) -> list[Attempt]:
        """Every attempt to handle or to forward it, oldest first."""
        return [
            attempt_state(number, made) for number, made in enumerate(self._run(self._store.attempts(message_id)), 1)
        ]

    def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivered:
        """Hand a message to its handlers and forwards again; the listener picks it up within a second, or on start."""
        redelivery = self._run(self._store.redeliver(message_id, as_new=as_new))
        if redelivery.id is None:
            raise Refused(_REFUSALS[redelivery.refused or "unknown"])
        return Redelivered(id=redelivery.id)

    def redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> int:
        """How many of an account's messages are redelivered, or would be."""
        count = self._run(
            self._store.redeliver_all(
                account,
                state,
                since=0.0 if since is None else since.timestamp(),
                until=float("inf") if until is None else until.timestamp(),
                dry_run=dry_run,
            )
        )
        # Without a running listener nobody else does it.
        while not dry_run and self._run(self._store.tidy(Retention())):
            pass
        return count

    def _run(self, operation: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(operation)

    def _find(self, message_id: str) -> Message:
        message = self._run(self._store.message(message_id))
        if message is None:
            raise Refused(_REFUSALS["unknown"])
        return message


def _state(message: Message) -> MessageState:
    # An inbox has no time to live: messages wait for their handlers.
    return message_state(message)
