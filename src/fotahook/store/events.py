"""What happened in a store, as records in one order, and marks from which to go on.

Events are not written: they are read from the rows that tell them. Those of one source have places that grow; a mark
holds a place for each source, behind which everything is still to come. So a mark skips nothing and repeats nothing,
however the events of several sources were interleaved.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from .records import DeliveryState, LaneState, Record

STATS_MINUTES: Final = 24 * 60
"""How long it is kept how much happened in each minute."""


class Mark(msgspec.Struct, frozen=True):
    """Places behind which to go on, one for each source of events."""

    messages: int = 0
    attempts: int = 0
    callbacks: int = 0
    lanes: int = 0

    def behind(self, events: "Iterable[Happened]") -> "Mark":
        """The mark to go on from after these events."""
        return msgspec.structs.replace(self, **{event.source: event.place for event in events})

    def covers(self, event: "Happened") -> bool:
        """Whether the event is one of those before this mark."""
        place: int = getattr(self, event.source)
        return event.place <= place

    def later(self, other: "Mark") -> "Mark":
        """What either of two marks covers."""
        return Mark(*map(max, _places(self), _places(other)))

    def exceeds(self, other: "Mark") -> bool:
        """Whether it knows of something that another one does not."""
        return any(mine > theirs for mine, theirs in zip(_places(self), _places(other), strict=True))


class Happened(Record, frozen=True, kw_only=True):
    """Something that happened to an account, at a time of the store's clock."""

    source: ClassVar[Literal["messages", "attempts", "callbacks", "lanes"]]
    place: int
    at: float
    account: str


class MessageAccepted(Happened, frozen=True, kw_only=True):
    """A message was stored; one that came again is none."""

    source = "messages"
    message: str
    type: str | None
    ordering_key: str | None
    size: int


class AttemptFinished(Happened, frozen=True, kw_only=True):
    """An attempt was settled. `number` counts those at the message; `state` is what its delivery was then."""

    source = "attempts"
    message: str
    consumer: str
    number: int
    started_at: float
    url: str | None
    outcome: str
    status: int | None
    error_code: str | None
    milliseconds: float | None
    state: DeliveryState


class MessageDead(Happened, frozen=True, kw_only=True):
    """A delivery was given up, with the attempt before it in this order."""

    source = "attempts"
    message: str
    consumer: str
    error_code: str | None


class CallbackChanged(Happened, frozen=True, kw_only=True):
    """A callback was registered, replaced (there was one `before`) or, without a `url`, deregistered."""

    source = "callbacks"
    url: str | None
    before: bool
    actor: str
    revision: int


class LaneChanged(Happened, frozen=True, kw_only=True):
    """A lane is in another state. It waits from the first trouble of its endpoint to the next success."""

    source = "lanes"
    consumer: str
    state: LaneState
    until: float | None
    """When the endpoint is tried again for the first time."""
    reason: str | None


class Events(Record, frozen=True, kw_only=True):
    """Some of what happened behind a mark, and the mark to go on from."""

    happened: tuple[Happened, ...]
    mark: Mark
    more: bool = False
    """Whether it pays to ask again at once."""
    lost: bool = False
    """Whether the mark asked for is not of this store: it was put back since, or retention removed what came then."""


class Counts(Record, frozen=True, kw_only=True):
    """How much happened within a minute: messages accepted, deliveries delivered and dead, attempts that failed."""

    minute: int
    """Minutes since 1970; the time at which it began is sixty times as much."""
    accepted: int
    delivered: int
    failed: int
    dead: int


class Stats(Record, frozen=True, kw_only=True):
    """The minutes in which something happened, oldest first, and the one that it is now."""

    now: int
    minutes: tuple[Counts, ...]


class Backlog(Record, frozen=True, kw_only=True):
    """What is not delivered of the whole store, and the seconds since the oldest of it was accepted."""

    pending: int
    dead: int
    oldest_age: float | None


class Source(msgspec.Struct, frozen=True):
    """Events of one source by their places; `more`: there are others behind them."""

    events: Sequence[Happened]
    more: bool


def merged(sources: Sequence[Source], mark: Mark) -> Events:
    """The events of all sources by their times, as far as none of those still to be read can come before them."""
    happened = tuple(_by_time(sources))
    return Events(happened=happened, mark=mark.behind(happened), more=any(source.more for source in sources))


def attempt_events(number: int, facts: Mapping[str, Any], after: int) -> Iterator[Happened]:
    """What the row of an attempt tells behind a place: that it finished, and that its message died of it.

    A row has two places, since whoever has heard of the one may have to come back for the other.
    """
    first, last = 2 * number, 2 * number + 1
    finished = AttemptFinished(place=first if facts["state"] == "dead" else last, **facts)
    if finished.place > after:
        yield finished
    if finished.place == first:
        yield MessageDead(place=last, **{name: facts[name] for name in ("at", "account", *_DEAD)})


def next_attempt(mark: Mark) -> int:
    """The number of the first attempt of which something is still to be told."""
    return (mark.attempts + 1) // 2


_DEAD: Final = ("message", "consumer", "error_code")
_places = msgspec.structs.astuple


def _by_time(sources: Sequence[Source]) -> Iterator[Happened]:
    waiting = [(iter(source.events), source.more) for source in sources]
    heads = [(next(events, None), events, more) for events, more in waiting]
    while True:
        # One that has more to come, and nothing in hand: whatever comes may be the next.
        if any(head is None and more for head, _, more in heads):
            return
        known = [(head.at, place) for place, (head, *_) in enumerate(heads) if head is not None]
        if not known:
            return
        _, place = min(known)
        head, events, more = heads[place]
        assert head is not None
        yield head
        heads[place] = (next(events, None), events, more)
