"""Events as they happen, over a response that does not end: server-sent events, which resume where they broke off."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...contract.events import cursor_block
from ...contract.urls import account_refusal
from ...store.events import EventCursor
from ...store.records import StoreError
from .. import access, errors, requests
from ..access import Caller
from ..context import Service
from ..requests import Asked, mark_cursor

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 15.0
"""Between two blocks at the most, so that neither side takes the other for gone. For as long a caller is trusted."""
STALL_SECONDS: Final = 60.0
"""For which a reader may read nothing, before he is sent away."""
LAST_SECONDS: Final = 1.0
"""For the end of a stream to be taken."""
RETRY: Final = b"retry: 1000\n"
"""How long browsers wait before they come back."""


class EventsAsked(Asked, frozen=True):
    """Whose events, and from where on; without a cursor only what happens from now on."""

    account: str | None = None
    after: str | None = None


async def follow(service: Service, request: Request) -> Response:
    """What happens, as server-sent events; `Last-Event-ID`, or `after`, goes on where another stream ended."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    asked = requests.query(request, EventsAsked)
    if asked.account is not None:
        if account_refusal(asked.account) is not None:
            raise errors.bad_account()
        if not caller.has(asked.account):
            raise errors.no_account()
    # What a browser sends that comes back goes before the address that it was given at first.
    mark = requests.mark(requests.header(request, "Last-Event-ID") or asked.after)
    if mark is None:
        mark = await service.feed.present()
    elif (await service.feed.read(mark)).lost:
        raise errors.gone(
            "The cursor is of another store, or retention removed what came behind it; begin without one."
        )
    if service.streams[caller.name] >= service.settings.streams:
        raise errors.too_many_streams(service.settings.streams)
    return EventStream(service, request, Follower(caller, asked.account), mark)


class Follower:
    """Whose events a stream tells, as long as the caller may see them."""

    def __init__(self, caller: Caller, account: str | None) -> None:
        self.caller = caller
        self._account = account

    def wants(self, account: str) -> bool:
        return account == self._account if self._account is not None else self.caller.has(account)

    @property
    def wants_all(self) -> bool:
        return self._account is None and self.caller.accounts is None

    async def look_again(self, service: Service, request: Request) -> bool:
        """Whether the caller may still see what he sees; he may see more than before, or less."""
        try:
            self.caller = await access.bearer_again(service, request)
            self.caller.need("operate")
        except errors.Problem:
            return False
        return self._account is None or self.caller.has(self._account)


class EventStream(Response):
    """A response that goes on until the client leaves, may not follow any more, or the service stops."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, request: Request, follower: Follower, mark: EventCursor) -> None:
        # Not Response's own, which would tell the length of a body.
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._service, self._request = service, request
        self._follower, self._mark = follower, mark

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            with self._counted():
                await self._until_the_end(receive, send)
        # One who does not read does not take the end either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await send({"type": "http.response.body", "body": b""})

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        streams, name = self._service.streams, self._follower.caller.name
        streams[name] += 1
        try:
            yield
        finally:
            streams[name] -= 1
            if not streams[name]:
                del streams[name]

    async def _until_the_end(self, receive: Receive, send: Send) -> None:
        telling = asyncio.create_task(self._tell(send))
        ends = (telling, asyncio.create_task(_left(receive)), asyncio.create_task(self._service.closing.wait()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        if not telling.cancelled() and (error := telling.exception()) is not None:
            if not isinstance(error, StoreError | TimeoutError):
                raise error
            logger.info("a stream of events ends early: %s", error)

    async def _tell(self, send: Send) -> None:
        async with contextlib.aclosing(self._blocks()) as blocks:
            async for block in blocks:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": block, "more_body": True})

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        """The cursor to begin with, then whatever happens."""
        yield RETRY + cursor_block(mark_cursor(self._mark))
        service, follower = self._service, self._follower
        all_wanted = follower.wants_all
        wanted = None if all_wanted else follower.wants
        looked_at = asyncio.get_running_loop().time()
        async with contextlib.aclosing(service.feed.follow(self._mark, wanted, KEEP_ALIVE_SECONDS)) as told:
            async for blocks in told:
                now = asyncio.get_running_loop().time()
                if now - looked_at >= KEEP_ALIVE_SECONDS:
                    # Who may see another world than at first comes back, and begins anew.
                    if not await follower.look_again(service, self._request) or follower.wants_all != all_wanted:
                        return
                    looked_at = now
                yield blocks


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
