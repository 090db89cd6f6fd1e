"""Every store returns every event once, in order, from any cursor."""

from collections.abc import Collection

import msgspec
import pytest

from fotahook.contract.events import AttemptFinished, CallbackChanged, LaneChanged, MessageAccepted, MessageDead
from fotahook.contract.operator import Counts
from fotahook.store.base import Store
from fotahook.store.events import STATS_MINUTES, Backlog, Event, EventCursor, EventPage
from fotahook.store.records import Health, LaneVerdict, NewMessage, Retention
from fotahook.store.views import to_datetime

from .conftest import ACCOUNT, ENGINES, URL, WELL, Accept, VirtualClock, lease_one, settled

pytestmark = pytest.mark.parametrize("engine", ENGINES)

BEGINNING = EventCursor()
TROUBLE = LaneVerdict(health=Health(failures=1, reason="timeout_connect"), wait=60)
KINDS = {
    MessageAccepted: "accepted",
    AttemptFinished: "attempt",
    MessageDead: "dead",
    CallbackChanged: "callback",
    LaneChanged: "lane",
}


async def read(store: Store, after: EventCursor = BEGINNING, *, limit: int = 100) -> EventPage:
    """All events after a cursor, read page by page."""
    events: list[Event] = []
    while True:
        found = await store.events(after, limit=limit)
        assert not found.lost
        events += found.events
        after = found.cursor
        if not found.more:
            return EventPage(events=tuple(events), cursor=after)


async def kinds(store: Store, after: EventCursor = BEGINNING, *, limit: int = 100) -> list[str]:
    return [KINDS[type(event.data)] for event in (await read(store, after, limit=limit)).events]


async def attempt(store: Store, state: str = "delivered", *, verdict: LaneVerdict = WELL, delay: float = 0) -> None:
    """One attempt at the first due delivery, and its settlement."""
    lease = await lease_one(store)
    delivery, *_ = await store.fetch(lease, 100)
    settlement = settled(delivery, state, delay=delay)
    outcome = "delivered" if state == "delivered" else "failed"
    tried = msgspec.structs.replace(
        settlement.attempt, outcome=outcome, error_code=None if state == "delivered" else "x"
    )
    await store.settle(lease, [msgspec.structs.replace(settlement, attempt=tried)], verdict, keep=0)


@pytest.fixture
async def eventful(registered: Store, accept: Accept, clock: VirtualClock) -> Store:
    """A store with one event of every kind, each at another time."""
    clock.advance(1)
    await accept(b'{"n": 1}')
    clock.advance(1)
    await attempt(registered, "pending", verdict=TROUBLE)
    clock.advance(60)
    await attempt(registered, "dead")
    clock.advance(1)
    await registered.deregister(ACCOUNT, actor="test")
    clock.advance(1)
    await accept(b'{"n": 2}', key="k")
    return registered


async def test_events_come_in_order(eventful: Store, clock: VirtualClock) -> None:
    events = (await read(eventful)).events
    assert [KINDS[type(event.data)] for event in events] == [
        *("callback", "lane", "accepted", "attempt", "lane", "attempt", "dead", "lane", "callback", "lane", "accepted")
    ]
    assert {event.data.account for event in events} == {ACCOUNT}
    assert [event.data.at for event in events] == sorted(event.data.at for event in events)


async def test_each_event_has_the_values_of_its_row(eventful: Store, clock: VirtualClock) -> None:
    events = (await read(eventful)).events
    registered, opened, accepted, failed, waiting, again, dead, better, gone, held, keyed = [
        event.data for event in events
    ]
    began = clock() - 64
    assert registered == CallbackChanged(
        at=to_datetime(began), account=ACCOUNT, url=URL, action="registered", actor="test", revision=1
    )
    assert isinstance(gone, CallbackChanged)
    assert (gone.url, gone.action, gone.revision) == (None, "deregistered", 2)
    assert isinstance(accepted, MessageAccepted)
    assert (accepted.type, accepted.ordering_key, accepted.size) == (None, None, 8)
    assert isinstance(keyed, MessageAccepted)
    assert keyed.ordering_key == "k"
    assert failed == AttemptFinished(
        at=to_datetime(began + 2),
        account=ACCOUNT,
        id=accepted.id,
        lane=ACCOUNT,
        number=1,
        started_at=to_datetime(1.0),
        url=URL,
        outcome="failed",
        http_status=200,
        error_code="x",
        milliseconds=1.5,
        state="pending",
    )
    assert isinstance(again, AttemptFinished)
    assert (again.number, again.state) == (2, "dead")
    assert dead == MessageDead(at=again.at, account=ACCOUNT, id=accepted.id, lane=ACCOUNT, error_code="x")
    changes = [event for event in (opened, waiting, better, held) if isinstance(event, LaneChanged)]
    assert [(one.state, one.until, one.reason) for one in changes] == [
        ("open", None, None),
        ("waiting", to_datetime(began + 62), "timeout_connect"),
        ("open", None, None),
        ("held", None, None),
    ]


async def test_the_cursor_after_each_event_resumes_with_the_next(eventful: Store) -> None:
    everything = (await read(eventful)).events
    for count in range(len(everything) + 1):
        cursor = BEGINNING.advance(everything[:count])
        assert (await read(eventful, cursor)).events == everything[count:]
        assert all(cursor.covers(event) for event in everything[:count])
        assert not any(cursor.covers(event) for event in everything[count:])


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_small_pages_have_the_same_events_in_the_same_order(eventful: Store, limit: int) -> None:
    assert (await read(eventful, limit=limit)).events == (await read(eventful)).events


async def test_without_a_cursor_events_begin_at_the_present(eventful: Store, accept: Accept) -> None:
    present = await eventful.events(None, limit=10)
    assert present.events == ()
    assert await kinds(eventful, present.cursor) == []
    await accept(b"{}")
    assert await kinds(eventful, present.cursor) == ["accepted"]


async def test_a_fresh_store_has_no_events(store: Store) -> None:
    assert await read(store) == EventPage(events=(), cursor=BEGINNING)


async def test_a_cursor_of_another_store_is_lost(eventful: Store, engine: str) -> None:
    cursor = (await read(eventful)).cursor
    for name in cursor.__struct_fields__:
        ahead = msgspec.structs.replace(cursor, **{name: getattr(cursor, name) + 100})
        assert (await eventful.events(ahead, limit=10)).lost


async def test_a_duplicate_is_no_event(store: Store) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    await store.accept([message, message])
    await store.accept([message])
    assert await kinds(store) == ["accepted"]


async def test_a_redelivery_shows_as_attempts_and_a_copy_as_a_new_message(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    await attempt(registered)
    cursor = (await read(registered)).cursor
    await registered.redeliver(accepted.id)
    await attempt(registered)
    clock.advance(1)
    await registered.redeliver(accepted.id, as_new=True)
    await accept(b"{}")
    assert await kinds(registered, cursor) == ["attempt", "accepted", "accepted"]


async def test_a_lane_event_occurs_only_when_its_state_changes(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1", b"2")
    cursor = (await read(registered)).cursor
    for verdict in (WELL, TROUBLE, TROUBLE, WELL):
        await attempt(registered, "pending", verdict=verdict)
        clock.advance(61)
    for _ in range(2):
        await registered.pause(ACCOUNT)
    await registered.register(ACCOUNT, "https://other.example/", actor="test")
    for _ in range(2):
        await registered.resume(ACCOUNT)
    changes = [event.data for event in (await read(registered, cursor)).events]
    assert [change.state for change in changes if isinstance(change, LaneChanged)] == [
        "waiting",
        "open",
        "paused",
        "open",
    ]


async def test_the_event_of_a_lane_paused_by_its_endpoint_has_the_reason(registered: Store, accept: Accept) -> None:
    await accept(b"{}")
    gone = LaneVerdict(health=Health(reason="http_410"), pause=True)
    await attempt(registered, "pending", verdict=gone)
    *_, last = (await read(registered)).events
    assert isinstance(last.data, LaneChanged)
    assert (last.data.state, last.data.reason) == ("paused", "http_410")


async def test_a_cursor_stays_lost_when_older_changes_of_another_callback_are_removed_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.store.account_verbs.HISTORY_CHANGES", 1)
    await store.register("early", URL, actor="test")
    before = (await store.events(None, limit=1)).cursor
    for account in ("late", "late", "early"):
        await store.register(account, URL, actor="test")
    assert (await store.events(before, limit=10)).lost


async def test_a_cursor_before_lane_changes_that_retention_removed_is_lost(
    registered: Store, clock: VirtualClock
) -> None:
    before = (await read(registered)).cursor
    await registered.pause(ACCOUNT)
    seen = (await read(registered)).cursor
    clock.advance(100)
    await registered.resume(ACCOUNT)
    retention = Retention(seconds=50)
    await registered.tidy(retention)
    assert (await registered.events(before, limit=10)).lost
    assert await kinds(registered, seen) == ["lane"]
    clock.advance(100)
    await registered.pause(ACCOUNT)
    await registered.tidy(retention)
    assert (await registered.events(seen, limit=10)).lost
    assert await kinds(registered, msgspec.structs.replace(seen, lanes=seen.lanes + 1)) == ["lane"]


# Counts


async def counts(store: Store, minutes: int, among: Collection[str] | None = None) -> list[Counts]:
    return list((await store.stats(minutes, among=among))[1].values())


async def test_events_are_counted_by_the_minute(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    clock.advance(-clock() % 60)
    minute = int(clock() // 60)
    await accept(b"1", b"2", b"3")
    await accept(b"4", account="other")
    for state in ("delivered", "pending", "dead"):
        await attempt(registered, state)
    clock.advance(120)
    await attempt(registered)
    last = Counts(accepted=0, delivered=1, failed=0, dead=0)
    counts = {minute: Counts(accepted=4, delivered=1, failed=2, dead=1), minute + 2: last}
    assert await registered.stats(60) == (minute + 2, counts)
    assert await registered.stats(2) == (minute + 2, {minute + 2: last})


async def test_counts_can_be_limited_to_accounts(store: Store, accept: Accept) -> None:
    await accept(b"1")
    await accept(b"2", b"3", account="other")
    assert [one.accepted for one in await counts(store, 1, among=["other"])] == [2]
    assert await counts(store, 1, among=["nowhere"]) == []


async def test_duplicates_are_not_counted(store: Store) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    await store.accept([message, message])
    await store.accept([message])
    assert [one.accepted for one in await counts(store, 1)] == [1]


async def test_counts_are_removed_after_a_day(store: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"1")
    clock.advance((STATS_MINUTES + 1) * 60)
    await accept(b"2")
    assert len(await counts(store, STATS_MINUTES + 9)) == 2
    await store.tidy(Retention())
    assert len(await counts(store, STATS_MINUTES + 9)) == 1


async def test_the_backlog_counts_pending_and_dead_deliveries(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    assert await store.backlog() == Backlog(pending=0, dead=0, oldest_age=None)
    await store.register(ACCOUNT, URL, actor="test")
    await accept(b"1")
    await attempt(store)
    await accept(b"2", b"3", account="held")
    clock.advance(9)
    await accept(b"4")
    await attempt(store, "dead")
    assert await store.backlog() == Backlog(pending=2, dead=1, oldest_age=9)


async def test_the_last_events_are_read_from_a_cursor_before_them(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2", b"3")
    await attempt(registered)
    present = (await registered.events(None, limit=1)).cursor
    assert present.before(0) == present
    assert sorted(await kinds(registered, present.before(2))) == ["accepted", "accepted", "attempt", "callback"]
    everything = ["accepted", "accepted", "accepted", "attempt", "callback"]
    assert sorted(await kinds(registered, present.before(1000))) == everything
