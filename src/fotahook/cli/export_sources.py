"""Where exported messages come from: a service, or the inbox of a listener."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, Protocol, Self

from fotahook.client import OperatorClient
from fotahook.contract.errors import ApiException

from .exported import Exported
from .inboxes import OpenInbox
from .messages import Filter
from .paging import PAGE

_GONE: Final = 410
_THREADS: Final = 8


class Source(Protocol):
    """Messages of one account."""

    def pages(self) -> Iterator[Sequence[Exported]]:
        """What is known of them but for their bytes, newest first."""

    def bodies(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """The bytes of some of them; None where retention has removed them."""


class Service:
    """Messages that a service has."""

    def __init__(self, client: OperatorClient, account: str, which: Filter) -> None:
        self._client = client
        self._pages = which.pages(client, account)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(_THREADS)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pages(self) -> Iterator[Sequence[Exported]]:
        for page in self._pages:
            yield [
                Exported(one.id, one.account, "", one.sha256, one.type, one.ordering_key, one.accepted_at)
                for one in page
            ]

    def bodies(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        return list(self._pool.map(self._body, ids))

    def _body(self, message_id: str) -> bytes | None:
        try:
            return self._client.message_body(message_id)
        except ApiException as error:
            if error.status_code != _GONE:
                raise
            return None


class Inbox(OpenInbox):
    """Messages that a listener has received; it may be running meanwhile."""

    def __init__(self, url: str, account: str, which: Filter) -> None:
        super().__init__(url)
        self._account = account
        self._which = which

    def pages(self) -> Iterator[Sequence[Exported]]:
        from fotahook.store.base import Wanted

        since, until = self._which.ends()
        wanted = Wanted(
            state=self._which.state,
            type=self._which.type,
            ordering_key=self._which.key,
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
        )
        before: int | None = None
        while True:
            page = self.run(self.store.messages(self._account, wanted, before=before, limit=PAGE))
            yield [
                Exported(
                    one.id,
                    one.account,
                    "",
                    one.sha256.hex(),
                    one.type,
                    one.ordering_key,
                    datetime.fromtimestamp(one.accepted_at, UTC),
                )
                for one in page.messages
            ]
            before = page.next
            if before is None:
                return

    def bodies(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        return [self.run(self._body(message_id)) for message_id in ids]

    async def _body(self, message_id: str) -> bytes | None:
        message = await self.store.message(message_id)
        return None if message is None else message.body
