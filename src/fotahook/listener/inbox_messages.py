"""The messages of a listener's inbox, with the methods and the errors of OperatorClient."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal

from fotahook.contract.errors import ApiException
from fotahook.contract.exchange import Headers, Reply
from fotahook.contract.operator import Attempt, MessageState, Redelivered
from fotahook.store import Store
from fotahook.store.records import SCAN_LIMIT, Message, MessageFilter, Retention
from fotahook.store.views import message_state

_REFUSALS: Final = {
    "unknown": (404, "there is no such message in the inbox; check the id"),
    "pending": (409, "the message is not settled yet: it waits for its handlers or forwards"),
    "pruned": (410, "the message's bytes were removed by retention"),
}


class InboxMessages:
    """The messages of a listener. What it cannot do raises ApiException."""

    def __init__(self, store: Store, runner: asyncio.Runner) -> None:
        self._store, self._run = store, runner.run

    def messages(
        self,
        account: str,
        *,
        state: Literal["pending", "delivered", "dead"] | None = None,
        message_type: str | None = None,
        ordering_key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[MessageState]:
        wanted = MessageFilter(
            state=state,
            type=message_type,
            ordering_key=ordering_key,
            since=since.timestamp() if since else None,
            until=until.timestamp() if until else None,
        )
        before = None
        while True:
            page = self._run(self._store.messages(account, wanted, before=before, limit=limit or SCAN_LIMIT))
            # An inbox has no time to live: messages wait for their handlers.
            yield from map(message_state, page.messages)
            if (before := page.next) is None:
                return

    def message(self, message_id: str) -> MessageState:
        return message_state(self._find(message_id))

    def message_body(self, message_id: str) -> bytes:
        if (body := self._find(message_id).body) is None:
            raise _refused("pruned")
        return body

    def attempts(self, message_id: str) -> list[Attempt]:
        return self._run(self._store.attempts(message_id))

    def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivered:
        """Hand a message to its handlers and forwards again; the listener picks it up within a second, or on start."""
        redelivery = self._run(self._store.redeliver(message_id, as_new=as_new))
        if redelivery.id is None:
            raise _refused(redelivery.refused or "unknown")
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
        begin, end = since.timestamp() if since else 0.0, until.timestamp() if until else float("inf")
        count = self._run(self._store.redeliver_all(account, state, since=begin, until=end, dry_run=dry_run))
        # Without a running listener nobody else does it.
        while not dry_run and self._run(self._store.tidy(Retention())):
            pass
        return count

    def _find(self, message_id: str) -> Message:
        if (message := self._run(self._store.message(message_id))) is None:
            raise _refused("unknown")
        return message


def _refused(why: str) -> ApiException:
    status, text = _REFUSALS[why]
    return ApiException(text, reply=Reply(status, "", Headers(), b""))
