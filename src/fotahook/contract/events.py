"""The events of `GET /v1/events` as server-sent events (WHATWG HTML, section 9.2): `id` is the cursor, `data` JSON."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from .calls import read_json

MAX_BLOCK: Final = 1024 * 1024


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    account: str
    at: datetime


class MessageAccepted(_Event, frozen=True, kw_only=True):
    """A new message was accepted; a duplicate is no event."""

    id: str
    type: str | None = None
    ordering_key: str | None = None
    size: int


class AttemptFinished(_Event, frozen=True, kw_only=True):
    """An attempt ended. `state` is the new state of the delivery: `pending`, `delivered` or `dead`."""

    id: str
    lane: str
    number: int
    started_at: datetime
    outcome: str
    state: str
    url: str | None = None
    http_status: int | None = None
    error_code: str | None = None
    milliseconds: float | None = None


class MessageDead(_Event, frozen=True, kw_only=True):
    """A delivery became dead; the message can be redelivered."""

    id: str
    lane: str
    error_code: str | None = None


class LaneChanged(_Event, frozen=True, kw_only=True):
    """A lane became `open`, `waiting` (until its next attempt, after a failure), `held` or `paused`."""

    lane: str
    state: str
    until: datetime | None = None
    reason: str | None = None


class CallbackChanged(_Event, frozen=True, kw_only=True):
    """A callback was `registered`, `replaced` or `deregistered`, and by whom."""

    action: str
    actor: str
    revision: int
    url: str | None = None


EventData: TypeAlias = MessageAccepted | AttemptFinished | MessageDead | LaneChanged | CallbackChanged

EVENTS: Final[Mapping[str, type[EventData]]] = {
    "message.accepted": MessageAccepted,
    "attempt.finished": AttemptFinished,
    "message.dead": MessageDead,
    "lane.changed": LaneChanged,
    "callback.changed": CallbackChanged,
}
_NAMES: Final = {kind: name for name, kind in EVENTS.items()}
_READERS: Final = {name: read_json(kind) for name, kind in EVENTS.items()}


class Event(msgspec.Struct, frozen=True):
    """An event, and the cursor to continue after it."""

    cursor: str
    name: str
    data: EventData


def event_block(cursor: str, data: EventData) -> bytes:
    name = _NAMES[type(data)].encode()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), name, msgspec.json.encode(data))


def cursor_block(cursor: str) -> bytes:
    """A cursor without an event; readers only move on."""
    return b": nothing new\nid: %b\n\n" % cursor.encode()


class EventReader:
    """Parses a stream as it arrives. Events with unknown names are skipped: a newer service may have more."""

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor
        """The cursor after everything read so far; None before the first one."""
        self._rest = b""

    def read(self, chunk: bytes) -> Iterator[Event]:
        """The events that end in this chunk; ValueError for one that breaks the contract."""
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        if len(self._rest) > MAX_BLOCK:
            raise ValueError(f"an event of more than {MAX_BLOCK} bytes")
        for block in blocks:
            parts = (line.partition(b":") for line in block.split(b"\n"))
            fields = {name: value.removeprefix(b" ") for name, _, value in parts}
            if b"id" in fields:
                self.cursor = fields[b"id"].decode()
            name = fields.get(b"event", b"").decode()
            if name in _READERS and self.cursor is not None:
                yield Event(self.cursor, name, _READERS[name](fields.get(b"data", b"")))
