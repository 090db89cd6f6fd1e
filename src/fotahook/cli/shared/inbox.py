"""A listener's inbox as commands reach it: a service's calls about stored messages, answered out of the inbox."""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, TypeVar

import msgspec
from cyclopts import Parameter

from fotahook.contract.operator import Attempt, MessagePage, MessageState, Redelivered

from .errors import REFUSED, Failure
from .remote import Remote
from .store_flags import check_there

if TYPE_CHECKING:
    from fotahook.store import records

T = TypeVar("T")

_REFUSALS: Final = {
    "unknown": "there is no such message in the inbox; check the id",
    "pending": "the message is not settled yet: it waits for its handlers or forwards",
    "pruned": "the message's bytes were removed by retention",
}


class Refused(Failure):
    """The inbox cannot do that for this message."""

    code = REFUSED


class Messages(Protocol):
    """What is asked about stored messages, of a service or of an inbox; as in OperatorClient."""

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
    ) -> MessagePage: ...

    def message(self, message_id: str) -> MessageState: ...

    def message_body(self, message_id: str) -> bytes: ...

    def attempts(self, message_id: str) -> list[Attempt]: ...

    def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivered: ...

    def redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> int: ...


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Source(Remote):
    """Flags of the commands about stored messages: those of a service, or of a listener."""

    inbox: str | None = None
    "A listener's inbox, such as sqlite:///inbox.db, in place of a service; the listener may go on."

    @contextmanager
    def stored(self) -> Iterator[Messages]:
        """Where the messages are. UsageError if there is no such inbox, or no credentials for a service."""
        if self.inbox is not None:
            with Inbox(self.inbox) as inbox:
                yield inbox
        else:
            with self.operator() as client:
                yield client


SERVICE: Final = Source()


class Inbox:
    """The messages of a listener, which may be running meanwhile. A context manager."""

    def __init__(self, url: str) -> None:
        check_there("--inbox", url)
        self._url = url

    def __enter__(self) -> Self:
        # Here and below: what is about a service need not wait for stores.
        import asyncio

        from fotahook.store import open_store

        self._runner = asyncio.Runner()
        self._runner.__enter__()
        try:
            self._store = self._runner.run(open_store(self._url))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._store.close())
        self._runner.close()

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
    ) -> MessagePage:
        """A page of an account's messages, newest first."""
        from fotahook.store import records

        wanted = msgspec.convert(
            {
                "state": state,
                "type": message_type,
                "ordering_key": ordering_key,
                "since": None if since is None else since.timestamp(),
                "until": None if until is None else until.timestamp(),
            },
            records.MessageFilter,
        )
        before = None if cursor is None else int(cursor)
        page = self._run(self._store.messages(account, wanted, before=before, limit=limit or records.SCAN_LIMIT))
        return MessagePage([_state(one) for one in page.messages], None if page.next is None else str(page.next))

    def message(self, message_id: str) -> MessageState:
        """One message and where it stands. Refused if there is none."""
        return _state(self._found(message_id))

    def message_body(self, message_id: str) -> bytes:
        """Its bytes. Refused if they are not there any more."""
        body = self._found(message_id).body
        if body is None:
            raise Refused(_REFUSALS["pruned"])
        return body

    def attempts(self, message_id: str) -> list[Attempt]:
        """Every attempt to handle it or to send it on, oldest first."""
        from fotahook.store.views import attempt_state

        return [attempt_state(number, one) for number, one in enumerate(self._run(self._store.attempts(message_id)), 1)]

    def redeliver(self, message_id: str, *, as_new: bool = False) -> Redelivered:
        """Show it to its handlers and send it on once more; the listener sees it within a second, or when it starts."""
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
        """How many of an account are redelivered, or would be."""
        return self._run(self._redeliver_all(account, state, since, until, dry_run))

    async def _redeliver_all(
        self,
        account: str,
        state: Literal["dead", "delivered"],
        since: datetime | None,
        until: datetime | None,
        dry_run: bool,
    ) -> int:
        from fotahook.store.records import Retention

        count = await self._store.redeliver_all(
            account,
            state,
            since=0.0 if since is None else since.timestamp(),
            until=float("inf") if until is None else until.timestamp(),
            dry_run=dry_run,
        )
        # Where no listener runs nobody else would do it now.
        while not dry_run and await self._store.tidy(Retention()):
            pass
        return count

    def _run(self, doing: Coroutine[object, object, T]) -> T:
        return self._runner.run(doing)

    def _found(self, message_id: str) -> "records.Message":
        message = self._run(self._store.message(message_id))
        if message is None:
            raise Refused(_REFUSALS["unknown"])
        return message


def _state(message: "records.Message") -> MessageState:
    from fotahook.store.views import message_state

    # An inbox waits for its handlers however long it takes.
    return message_state(message)
