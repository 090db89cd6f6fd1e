"""What `GET /v1/events` tells: its events by name, and how its stream is read. Pure: bytes in, events out.

The stream is that of the WHATWG's HTML standard, section 9.2: blocks of lines, of which `id` is where to go on, `event`
the name and `data` one JSON object.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from .calls import read_json

LONGEST_BLOCK: Final = 1024 * 1024


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    account: str
    at: datetime


class MessageAccepted(_Event, frozen=True, kw_only=True):
    """A message was accepted: new, not one that came again."""

    id: str
    type: str | None = None
    ordering_key: str | None = None
    size: int


class AttemptFinished(_Event, frozen=True, kw_only=True):
    """An attempt ended. `state` is what the delivery came to: `pending`, `delivered` or `dead`."""

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
    """A message was given up; it can be redelivered."""

    id: str
    lane: str
    error_code: str | None = None


class LaneChanged(_Event, frozen=True, kw_only=True):
    """A lane is `open`, `waiting`, `held` or `paused` from now on.

    It waits from the first trouble of its endpoint to the next success; `until` is when that is tried first.
    """

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
    """Something that happened, by name, and the cursor from which to go on after it."""

    cursor: str
    name: str
    data: EventData


def event_block(cursor: str, data: EventData) -> bytes:
    """An event as it stands in the stream."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        cursor.encode(),
        _NAMES[type(data)].encode(),
        msgspec.json.encode(data),
    )


def cursor_block(cursor: str) -> bytes:
    """Where to go on, with nothing to tell: no event to a reader."""
    return b": nothing new\nid: %b\n\n" % cursor.encode()


class EventReader:
    """Reads a stream as it arrives. Events of other names are left out, since a newer service may have more."""

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor
        """Where to go on after all that was read so far; None for the present."""
        self._rest = b""

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events that end in this piece; ValueError for one that breaks the contract."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > LONGEST_BLOCK:
            raise ValueError(f"an event of more than {LONGEST_BLOCK} bytes")
        for block in blocks:
            event = self._event(block)
            if event is not None:
                yield event

    def reset(self) -> None:
        """Drop an incomplete event; the next stream sends it again."""
        self._rest = b""

    def _event(self, block: bytes) -> Event | None:
        fields = dict(_field(line) for line in block.split(b"\n"))
        if b"id" in fields:
            self.cursor = fields[b"id"].decode()
        name = fields.get(b"event", b"").decode()
        if name not in _READERS or self.cursor is None:
            return None
        return Event(self.cursor, name, _READERS[name](fields.get(b"data", b"")))


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")
