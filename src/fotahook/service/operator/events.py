"""Events as they happen, which resume where a stream broke off, their counts minute by minute, and the audit log."""

import asyncio
import contextlib
import logging
from collections import Counter
from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import astuple
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...contract.events import cursor_block
from ...contract.operator import AuditPage, Counts, MinuteCounts, Stats
from ...store import views
from ...store.events import STATS_MINUTES, EventCursor
from ...store.records import StoreError
from ...store.views import to_datetime
from .. import access, errors, requests
from ..event_feed import POLL_SECONDS, Filter
from ..requests import PageSize, Params
from ..routing import Call, Endpoint

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE_SECONDS: Final = 15.0
"""Longest time between two blocks, so that the connection is not taken for dead. The token is checked as often."""
STALL_SECONDS: Final = 60.0
"""A client that reads nothing for so long is disconnected."""
END_SECONDS: Final = 1.0
RECENT_LIMIT: Final = 1000
RETRY: Final = b"retry: 1000\n"


class EventsQuery(Params, frozen=True):
    """Of which account, and after which cursor; without one, from now on, or from so many `recent` events on."""

    account: str | None = None
    after: str | None = None
    recent: Annotated[int, Meta(ge=0, le=RECENT_LIMIT)] = 0


class StatsQuery(Params, frozen=True):
    """How many minutes, the present one included, and of which account alone."""

    account: str | None = None
    minutes: Annotated[int, Meta(ge=1, le=STATS_MINUTES)] = 60


@Endpoint("GET", "/v1/events", query=EventsQuery, scope="read")
async def follow(call: Call) -> Response:
    """Events as they happen, as server-sent events; `Last-Event-ID` or `after` resumes after a cursor."""
    query, service = call.query(EventsQuery), call.service
    among = call.among(query.account)
    # A browser that reconnects sends the header, and still the query of its first request.
    cursor = service.cursors.open_events(requests.header(call.request, "Last-Event-ID") or query.after)
    if cursor is None:
        cursor = await service.event_feed.present(query.recent)
    elif (await service.event_feed.read(cursor)).lost:
        raise errors.GONE("The cursor is of another store, or retention removed events after it; begin without one.")
    if service.streams[call.caller.name] >= service.settings.streams:
        raise errors.TOO_MANY_STREAMS(limit=service.settings.streams)
    return EventStream(call, None if among is None else frozenset(among), cursor)


@Endpoint("GET", "/v1/stats", query=StatsQuery, scope="read")
async def stats(call: Call) -> Stats:
    """What happened in the last minutes, in total and minute by minute, and how things stand now."""
    query, store = call.query(StatsQuery), call.store
    among = call.among(query.account)
    now, known = await store.stats(query.minutes, among=among)
    totals = {name: sum(getattr(one, name) for one in known.values()) for name in Counts.__struct_fields__}
    minutes = [
        MinuteCounts(*astuple(known.get(minute, Counts())), at=to_datetime(60.0 * minute))
        for minute in range(now - query.minutes + 1, now + 1)
    ]
    accounts, backlog, latency = await call.service.overviews.read(query.account or "", among)
    return Stats(totals=Counts(**totals), minutes=minutes, accounts=accounts, backlog=backlog, latency=latency)


class EventStream(Response):
    """A response that goes on until the client leaves, loses its access, or the service stops."""

    media_type = MEDIA_TYPE

    def __init__(self, call: Call, wanted: Filter, cursor: EventCursor) -> None:
        # Not Response's own, which would set Content-Length.
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._service, self._request, self._caller = call.service, call.request, call.caller
        self._wanted, self._cursor = wanted, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            own = Counter([self._caller.name])
            self._service.streams += own
            try:
                await self._run(receive, send)
            finally:
                # This drops names without any.
                self._service.streams -= own
        # A client that reads nothing does not read the end either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await send({"type": "http.response.body", "body": b""})

    async def _run(self, receive: Receive, send: Send) -> None:
        async def disconnected() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        sending = asyncio.create_task(self._send(send))
        ends = (sending, asyncio.create_task(disconnected()), asyncio.create_task(self._service.closing.wait()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            if not isinstance(error, StoreError | TimeoutError):
                raise error
            logger.info("an event stream ends early: %s", error)

    async def _send(self, send: Send) -> None:
        """Send the cursor to start with, then events, and the cursor alone where none come."""
        time, seal = asyncio.get_running_loop().time, self._service.cursors.seal_events

        async def put(block: bytes) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": block, "more_body": True})

        await put(RETRY + cursor_block(seal(self._cursor)))
        sent_at = checked_at = time()
        feed = self._service.event_feed.follow(self._cursor, self._wanted, KEEP_ALIVE_SECONDS)
        async with contextlib.aclosing(feed) as pages:
            async for blocks, reached in pages:
                now = time()
                # A timer may fire a little early.
                if not blocks and now - sent_at < KEEP_ALIVE_SECONDS - POLL_SECONDS:
                    continue
                if now - checked_at >= KEEP_ALIVE_SECONDS:
                    try:
                        caller = await access.authenticate(self._service, self._request, "token", counted=False)
                        caller.require("read")
                    except errors.ApiError:
                        return
                    if caller.accounts != self._caller.accounts:
                        # The client reconnects, and sees what it may see now.
                        return
                    checked_at = now
                await put(blocks or cursor_block(seal(reached)))
                sent_at = time()


class AuditQuery(Params, frozen=True):
    """Of which account; without one, of all that are granted."""

    account: str | None = None
    cursor: str | None = None
    limit: PageSize = 50


@Endpoint("GET", "/v1/audit", query=AuditQuery)
async def list_audit(call: Call) -> AuditPage:
    """The audit log, newest first. Entries of no single account are for those to whom all accounts are granted."""
    query = call.query(AuditQuery)
    before = call.service.cursors.open_number(query.cursor)
    found = await call.store.audit(among=call.among(query.account), before=before, limit=query.limit)
    more = call.service.cursors.seal(found[-1].number) if len(found) == query.limit else None
    return AuditPage(entries=[views.audit_entry(each) for each in found], cursor=more)
