"""Everything that a store keeps has an end: bodies, attempts, ids, counts, the history of a callback."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fotahook.store import SqliteStore
from fotahook.store.account_verbs import HISTORY_CHANGES
from fotahook.store.base import Store
from fotahook.store.events import EventCursor
from fotahook.store.records import SCAN_LIMIT, MessageFilter, NewMessage, Retention
from fotahook.store.session import How
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, ENGINES, URL, WELL, Accept, VirtualClock, lease_one, settled

DAY = 86400.0

pytestmark = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
async def opened(store: Store) -> Store:
    """A store whose account has a callback."""
    await store.register(ACCOUNT, URL, actor="test")
    return store


async def deliver_all(store: Store, state: str = "delivered") -> None:
    """Settle everything that is due."""
    while leases := await store.lease(10, 30):
        for lease in leases:
            deliveries = await store.fetch(lease, 1000)
            await store.settle(lease, [settled(each, state) for each in deliveries], WELL, keep=0)


async def tidy(store: Store, retention: Retention) -> None:
    while await store.tidy(retention):
        pass


async def test_attempts_outlive_the_body_and_end_before_the_id(
    opened: Store, accept: Accept, clock: VirtualClock
) -> None:
    retention = Retention(seconds=30 * DAY, attempts=60 * DAY, ids=400 * DAY)
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    await accept(b"new")
    clock.advance(31 * DAY)
    await tidy(opened, retention)
    message = await opened.message(accepted.id)
    assert message is not None
    assert (message.body, message.size, message.deliveries[0].state) == (None, 2, "delivered")
    assert len(await opened.attempts(accepted.id)) == 1
    await deliver_all(opened)
    clock.advance(30 * DAY)
    await tidy(opened, retention)
    assert await opened.attempts(accepted.id) == []
    assert await opened.message(accepted.id) is not None
    clock.advance(340 * DAY)
    await tidy(opened, retention)
    assert await opened.message(accepted.id) is None


async def test_attempts_are_kept_while_the_body_is(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    await accept(b"new")
    await deliver_all(opened)
    clock.advance(40 * DAY)
    await tidy(opened, Retention(attempts=30 * DAY, ids=30 * DAY))
    assert len(await opened.attempts(accepted.id)) == 1
    # So that it can be sent again.
    assert (await opened.redeliver(accepted.id)).refused is None


async def test_a_duplicate_is_recognized_until_its_id_is_removed(store: Store, clock: VirtualClock) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k", consumers=())
    retention = Retention(seconds=30 * DAY, ids=400 * DAY)
    (first,) = await store.accept([message])
    await store.accept([NewMessage(account=ACCOUNT, body=b"new", consumers=())])
    clock.advance(399 * DAY)
    await tidy(store, retention)
    (again,) = await store.accept([message])
    assert (again.id, again.duplicate) == (first.id, True)
    clock.advance(2 * DAY)
    await tidy(store, retention)
    (new,) = await store.accept([message])
    assert not new.duplicate


async def test_what_is_pending_is_never_removed(store: Store, accept: Accept, clock: VirtualClock) -> None:
    (held,) = await accept(b"{}")
    await accept(b"new")
    clock.advance(1000 * DAY)
    await tidy(store, Retention(seconds=0, bytes=0, attempts=0, ids=0))
    message = await store.message(held.id)
    assert message is not None
    assert message.body == b"{}"


async def test_a_body_that_is_pending_again_before_it_is_removed_is_kept(
    opened: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    clock.advance(31 * DAY)
    write = opened._write

    async def redeliver_first(job: Callable[..., Awaitable[Any]]) -> Any:
        """What is old was found by now, and is about to be removed."""
        monkeypatch.setattr(opened, "_write", write)
        assert (await opened.redeliver(accepted.id)).refused is None
        return await write(job)

    monkeypatch.setattr(opened, "_write", redeliver_first)
    await opened.prune(Retention(seconds=30 * DAY), now=clock())
    message = await opened.message(accepted.id)
    assert message is not None
    assert (message.body, message.deliveries[0].state) == (b"{}", "pending")


async def test_dead_messages_end_with_their_ids(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}")
    await deliver_all(opened, "dead")
    await accept(b"new")
    await deliver_all(opened)
    clock.advance(40 * DAY)
    await tidy(opened, Retention(seconds=DAY, attempts=DAY))
    message = await opened.message(accepted.id)
    assert message is not None
    assert [delivery.state for delivery in message.deliveries] == ["dead"]
    await tidy(opened, Retention(seconds=DAY, ids=DAY))
    assert await opened.message(accepted.id) is None
    assert (await opened.lanes(ACCOUNT))[0].dead == 0


async def test_numbers_do_not_come_again_after_everything_was_removed(
    opened: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1", b"2")
    await deliver_all(opened)
    before = (await opened.events(None, limit=1)).cursor
    clock.advance(40 * DAY)
    await tidy(opened, Retention(seconds=0, attempts=0, ids=0))
    await accept(b"3")
    await deliver_all(opened)
    after = (await opened.events(None, limit=1)).cursor
    assert (after.messages, after.attempts) > (before.messages, before.attempts)
    assert not (await opened.events(before, limit=10)).lost


async def test_a_cursor_before_what_was_removed_is_lost(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    beginning = (await opened.events(None, limit=1)).cursor
    await accept(b"1", b"2")
    await deliver_all(opened)
    clock.advance(40 * DAY)
    await tidy(opened, Retention(seconds=0, attempts=0, ids=0))
    assert (await opened.events(beginning, limit=10)).lost


async def test_at_a_time_that_is_not_believed_nothing_is_old(
    opened: Store, accept: Accept, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    clock.advance(4000 * DAY)
    assert await opened.now() == clock()
    assert not await opened.tidy(Retention(seconds=0, attempts=0, ids=0), now=float("-inf"))
    message = await opened.message(accepted.id)
    assert message is not None
    assert message.body == b"{}"
    assert (await opened.stats(10**7))[1]


# Room


async def test_the_store_is_brought_below_its_size_without_taking_everything(
    engine: str, opened: Store, clock: VirtualClock, store_url: str
) -> None:
    body = b'"' + b"x" * 598 + b'"'
    for _ in range(5):
        await opened.accept([NewMessage(account=ACCOUNT, body=body) for _ in range(200)])
        await deliver_all(opened)
        clock.advance(1)
    whole = await kept_bytes(opened)
    await tidy(opened, Retention(bytes=whole - 200_000))
    assert await kept_bytes(opened) <= whole - 200_000
    newest = (await opened.messages(ACCOUNT, MessageFilter(), limit=1000)).messages
    with_body = [message for each in newest if (message := await opened.message(each.id)) and message.body]
    assert 500 < len(with_body) < 700


async def kept_bytes(store: Store) -> int:
    found: int = (await store._query("kept_bytes"))[0]["bytes"]
    return found


async def test_room_of_removed_bodies_is_used_again(
    engine: str, opened: Store, clock: VirtualClock, store_url: str
) -> None:
    if engine == "postgres":
        return  # autovacuum sees to it
    body = b'"' + b"x" * 598 + b'"'

    def pages() -> tuple[int, int]:
        with contextlib.closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as file:
            return file.execute("pragma page_count").fetchone()[0], file.execute("pragma freelist_count").fetchone()[0]

    await opened.accept([NewMessage(account=ACCOUNT, body=body) for _ in range(1000)])
    await deliver_all(opened)
    clock.advance(DAY)
    await tidy(opened, Retention(seconds=1))
    before, free = pages()
    assert free * 4096 > 0.9 * 1000 * 600
    await opened.accept([NewMessage(account=ACCOUNT, body=body) for _ in range(500)])
    after, _ = pages()
    assert after == before


# Counts


async def test_counts_become_coarser_and_keep_their_sum(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    clock.advance(3600 - clock() % 3600)
    for _ in range(150):
        await accept(b"{}")
        clock.advance(60)
    await tidy(opened, Retention())
    _, minutes = await opened.stats(24 * 60)
    assert sum(each.accepted for each in minutes.values()) == 150
    # An hour has become one, the two since then have their minutes.
    assert len(minutes) == 1 + 90
    assert min(minutes) % 60 == 0
    clock.advance(25 * 3600)
    await tidy(opened, Retention())
    assert not (await opened.stats(10**6))[1]


# The history of a callback


async def test_the_history_of_a_callback_is_bounded(
    opened: Store, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HISTORY_CHANGES == 1000
    monkeypatch.setattr("fotahook.store.account_verbs.HISTORY_CHANGES", 5)
    for number in range(10):
        await opened.register(ACCOUNT, f"https://receiver.example/{number}", actor="test")
    history = await opened.callback_history(ACCOUNT, 100)
    assert [change.revision for change in history] == [11, 10, 9, 8, 7]
    assert (await opened.events(EventCursor(), limit=10)).lost
    await opened.deregister(ACCOUNT, actor="test")
    assert [change.revision for change in await opened.callback_history(ACCOUNT, 100)] == [12, 11, 10, 9, 8]


# Looking through much


async def test_a_dry_run_looks_through_a_bounded_number_of_messages_at_once(
    opened: Store, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened.accept([NewMessage(account=ACCOUNT, body=b"{}") for _ in range(3 * SCAN_LIMIT)])
    await deliver_all(opened)
    looks: list[list[int]] = []
    run = opened._run

    async def counted(how: How, job: Callable[..., Awaitable[Any]]) -> Any:
        result = await run(how, job)
        if how == "look":
            looks.append(result[0])
        return result

    monkeypatch.setattr(opened, "_run", counted)
    count = await opened.redeliver_all(ACCOUNT, "delivered", since=0, until=clock() + 1, dry_run=True)
    assert count == 3 * SCAN_LIMIT
    assert max(map(len, looks)) <= SCAN_LIMIT
    assert len(looks) >= 3


async def test_other_reads_do_not_wait_for_what_looks_through_much(
    opened: Store, accept: Accept, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    looking, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    if isinstance(opened, SqliteStore):  # a thread of its own

        def wait(_: object) -> None:
            loop.call_soon_threadsafe(looking.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(DEADLINE)

        much = [asyncio.ensure_future(opened._workers["look"].run(wait)) for _ in range(8)]
    else:

        async def hang(_: object) -> None:
            looking.set()
            await go_on.wait()

        much = [asyncio.ensure_future(opened._run("look", hang)) for _ in range(8)]
    async with asyncio.timeout(DEADLINE):
        await looking.wait()
        assert await opened.message(accepted.id) is not None
        assert len(await opened.fetch(await lease_one(opened), 10)) == 1
        assert len(await opened.lanes(ACCOUNT)) == 1
        assert not any(each.done() for each in much)
        go_on.set()
        await asyncio.gather(*much)


async def test_recent_events_are_read_from_what_is_kept(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"1", b"2")
    await deliver_all(opened)
    clock.advance(40 * DAY)
    await tidy(opened, Retention(seconds=0, attempts=0, ids=0))
    present = await opened.events(None, limit=1)
    page = await opened.events(present.cursor.before(200).merge(present.removed), limit=10)
    assert not page.lost


async def test_a_large_store_is_measured_seldom(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 3.0, *map(float, range(10, 60, 10)), 64.0, 65.0])
    monkeypatch.setattr("fotahook.store.message_verbs.monotonic", lambda: next(seconds))
    measured = []
    run = opened._run

    async def counted(how: How, job: Callable[..., Awaitable[object]]) -> object:
        measured.append(how)
        return await run(how, job)

    monkeypatch.setattr(opened, "_run", counted)
    retention = Retention(bytes=10**12)
    for _ in range(6):
        await opened._excess(retention)
    assert len(measured) == 1
    await opened._excess(retention)
    assert len(measured) == 2
