"""PostgreSQL keeps bodies and attempts in partitions by day, and drops a day at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from fotahook.store.base import Store
from fotahook.store.postgres import store as days_module
from fotahook.store.postgres.store import PostgresStore
from fotahook.store.records import Pruned, Retention, StoreUnavailable
from fotahook.store.session import Session
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, URL, WELL, Accept, VirtualClock, settled

DAY = 86400
MONTH = Retention(seconds=30.0 * DAY, attempts=30.0 * DAY)

Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def engine() -> str:
    return "postgres"


@pytest.fixture
async def admin(store_url: str) -> AsyncIterator[Db]:
    connection = await asyncpg.connect(store_url)
    yield connection
    await connection.close()


@pytest.fixture
async def opened(store: Store) -> Store:
    """A store in which there is a callback, and partitions for today."""
    await store.register(ACCOUNT, URL, actor="test")
    assert not await store.tidy(Retention())
    return store


async def deliver_all(store: Store, state: str = "delivered") -> None:
    while leases := await store.lease(10, 30):
        for lease in leases:
            deliveries = await store.fetch(lease, 1000)
            await store.settle(lease, [settled(each, state) for each in deliveries], WELL, keep=0)


async def tidy(store: Store, retention: Retention = MONTH) -> None:
    while await store.tidy(retention):
        pass


async def partitions(admin: Db, parent: str = "bodies") -> list[int]:
    """The days that have one."""
    found = await admin.fetch(
        "select substring(inhrelid::regclass::text from '_d(\\d+)$')::integer as day from pg_inherits"
        " where inhparent = $1::text::regclass",
        parent,
    )
    return sorted(row["day"] for row in found if row["day"] is not None)


def today(clock: VirtualClock) -> int:
    return int(clock() // DAY)


async def test_days_are_made_ahead_once_and_rows_are_in_theirs(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    first = today(clock)
    ahead = list(range(first, first + days_module.AHEAD + 1))
    await accept(b"1")
    await deliver_all(opened)
    for parent in ("bodies", "attempts"):
        assert set(ahead) <= set(await partitions(admin, parent))
        assert await admin.fetchval(f"select count(*) from {parent}_d{first}") == 1
    clock.advance(DAY)
    await tidy(opened)
    assert ahead[-1] + 1 in await partitions(admin)


async def test_an_old_day_is_dropped_at_once(opened: Store, accept: Accept, admin: Db, clock: VirtualClock) -> None:
    accepted = await accept(*[b"{}"] * 300)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    first, second, *_ = [await opened.prune(MONTH) for _ in range(3)]
    assert (first.bodies, second.bodies, first.more, second.more) == (300, 0, True, True)
    assert first.bytes > 0
    assert min(await partitions(admin)) > today(clock) - 31
    assert min(await partitions(admin, "attempts")) > today(clock) - 31
    message = await opened.message(accepted[0].id)
    assert message is not None
    assert message.body is None
    assert await opened.attempts(accepted[0].id) == []
    assert not (await opened.prune(MONTH)).more


async def test_a_whole_day_is_kept_until_its_end(opened: Store, accept: Accept, clock: VirtualClock) -> None:
    clock.advance(DAY - clock() % DAY + 3600)
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    clock.advance(30 * DAY + 7200)
    await tidy(opened)
    message = await opened.message(accepted.id)
    assert message is not None
    assert message.body == b"{}"
    clock.advance(DAY)
    await tidy(opened)
    message = await opened.message(accepted.id)
    assert message is not None
    assert message.body is None


async def test_what_is_pending_outlives_its_day(opened: Store, accept: Accept, admin: Db, clock: VirtualClock) -> None:
    day = today(clock)
    (held,) = await accept(b"held", account="other")
    settled_ones = await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await tidy(opened)
    assert await admin.fetchval(f"select count(*) from bodies_d{day}") == 1
    for accepted, body in ((held, b"held"), (settled_ones[0], None)):
        message = await opened.message(accepted.id)
        assert message is not None
        assert message.body == body
    await opened.register("other", URL, actor="test")
    await deliver_all(opened)
    assert len(await opened.attempts(held.id)) == 1
    clock.advance(DAY)
    await tidy(opened)
    assert day not in await partitions(admin)


async def test_a_day_that_is_mostly_pending_is_removed_row_by_row(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    day = today(clock)
    held = await accept(*[b"held"] * 3, account="other")
    await accept(b"{}")
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await tidy(opened)
    assert day in await partitions(admin)
    assert await admin.fetchval("select count(*) from bodies") == 3
    message = await opened.message(held[0].id)
    assert message is not None
    assert message.body == b"held"


async def test_attempts_that_are_young_or_of_kept_messages_outlive_their_day(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    day = today(clock)
    accepted = await accept(*[b"{}"] * 10)
    (unlucky,) = await accept(b"again")
    (waits,) = await accept(b"waits", account="other")
    await deliver_all(opened)
    clock.advance(20 * DAY)
    assert (await opened.redeliver(unlucky.id)).refused is None
    await opened.register("other", URL, actor="test")
    for lease in await opened.lease(10, 30):
        deliveries = await opened.fetch(lease, 10)
        is_other = lease.account == "other"
        outcome = "pending" if is_other else "delivered"
        await opened.settle(lease, [settled(each, outcome, delay=1e9) for each in deliveries], WELL, keep=0)
    clock.advance(11 * DAY)
    await tidy(opened)
    assert await admin.fetchval(f"select count(*) from attempts_d{day}") == 2
    assert await opened.attempts(accepted[0].id) == []
    assert len(await opened.attempts(unlucky.id)) == 1
    assert len(await opened.attempts(waits.id)) == 1


async def test_the_oldest_day_goes_first_if_there_are_too_many_bytes(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    first = today(clock)
    await accept(*[b"x" * 1000] * 200)
    await deliver_all(opened)
    clock.advance(DAY)
    await tidy(opened)
    await accept(*[b"y" * 1000] * 300)
    await deliver_all(opened)
    # Its files are larger than what is too much, so a few bodies are taken from it.
    assert 0 < (await opened.prune(Retention(bytes=490_000))).bodies < 20
    assert first in await partitions(admin)
    assert (await opened.prune(Retention(bytes=200_000))).bodies > 180
    assert first not in await partitions(admin)
    await tidy(opened, Retention(bytes=200_000))
    assert await admin.fetchval("select sum(length(body)) from bodies") == 200_000


async def test_rows_of_days_without_partition_are_kept_and_removed_as_well(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    clock.advance(20 * DAY)
    day = today(clock)
    (accepted,) = await accept(b"{}")
    await deliver_all(opened)
    assert await admin.fetchval("select count(*) from bodies_default") == 1
    # There the partitions of that day would be in the way of its rows.
    await tidy(opened)
    assert day not in await partitions(admin)
    assert day + 1 in await partitions(admin)
    message = await opened.message(accepted.id)
    assert message is not None
    assert message.body == b"{}"
    clock.advance(31 * DAY)
    await tidy(opened)
    assert await admin.fetchval("select count(*) from bodies") == 0
    assert await opened.attempts(accepted.id) == []


async def test_nobody_waits_behind_a_drop_that_waits(
    opened: PostgresStore, accept: Accept, admin: Db, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days_module, "BUSY_SECONDS", 0.0)
    await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await opened._make_days(clock())
    async with asyncio.timeout(DEADLINE), admin.transaction():
        # Somebody reads for long.
        await admin.fetch("select count(*) from bodies")
        assert await opened.prune(MONTH) == Pruned(bodies=0, bytes=0, more=True)
        await accept(b"{}")
    assert (await opened.prune(MONTH)).bodies == 10


async def test_days_are_made_later_if_a_lock_is_held(
    opened: PostgresStore, admin: Db, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days_module, "BUSY_SECONDS", 0.0)
    clock.advance(DAY)
    async with asyncio.timeout(DEADLINE), admin.transaction():
        await admin.execute("lock table bodies_default in access share mode")
        before = await partitions(admin)
        await opened._make_days(clock())
    assert await partitions(admin) == before
    await opened._make_days(clock())
    assert len(await partitions(admin)) == len(before) + 1


async def test_a_redelivery_in_hand_keeps_the_day(
    opened: PostgresStore, accept: Accept, admin: Db, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days_module, "BUSY_SECONDS", 0.0)
    accepted = await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await opened._make_days(clock())
    ready, go_on = asyncio.Event(), asyncio.Event()

    async def slow(db: Session) -> int:
        moved = await db.redeliver([seq], None)
        ready.set()
        await go_on.wait()
        return moved

    seq = await admin.fetchval("select seq from messages where id = $1", accepted[0].id)
    async with asyncio.timeout(DEADLINE):
        redelivering = asyncio.ensure_future(opened._write(slow))
        await ready.wait()
        assert (await opened.prune(MONTH)).bodies == 0
        go_on.set()
        assert await redelivering == 1
    assert (await opened.prune(MONTH)).bodies == 9
    message = await opened.message(accepted[0].id)
    assert message is not None
    assert message.body == b"{}"


async def test_a_message_of_a_clock_that_went_back_is_kept(
    opened: PostgresStore, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await tidy(opened)
    clock.advance(-31 * DAY)
    (late,) = await accept(b"late")
    clock.advance(31 * DAY)
    await tidy(opened)
    message = await opened.message(late.id)
    assert message is not None
    assert message.body == b"late"


async def test_a_time_that_is_not_believed_drops_nothing(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await accept(b"{}")
    await deliver_all(opened)
    clock.advance(31 * DAY)
    before = await partitions(admin)
    assert not await opened.tidy(MONTH, now=float("-inf"))
    assert set(before) <= set(await partitions(admin))


async def test_a_row_that_comes_while_the_lock_is_waited_for_keeps_the_day(
    opened: PostgresStore,
    accept: Accept,
    admin: Db,
    store_url: str,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(days_module, "BUSY_SECONDS", 0.0)
    await tidy(opened)  # empty days are gone
    day = today(clock)
    await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await opened._make_days(clock())
    await admin.execute(f"alter function drop_day set lock_timeout = '{DEADLINE}s'")
    # As if the clock had been set back just now.
    other = await asyncpg.connect(store_url)
    try:
        async with asyncio.timeout(DEADLINE):
            accepting = other.transaction()
            await accepting.start()
            await other.execute("insert into bodies (day, seq, body) values ($1, nextval('places'), 'late')", day)
            pruning = asyncio.ensure_future(opened.prune(MONTH))
            waits = "select count(*) from pg_locks where relation = 'bodies'::regclass and not granted"
            while not await admin.fetchval(waits):  # noqa: ASYNC110  # locks can only be polled
                await asyncio.sleep(0.01)
            await accepting.commit()
            assert await pruning == Pruned(bodies=0, bytes=0, more=True)
    finally:
        await other.close()
    assert await admin.fetchval(f"select count(*) from bodies_d{day}") == 11


async def test_a_day_that_cannot_be_dropped_is_removed_row_by_row(
    opened: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await tidy(opened)  # empty days are gone
    day = today(clock)
    await accept(*[b"{}"] * 10)
    await deliver_all(opened)
    clock.advance(31 * DAY)
    await admin.execute("alter function drop_day rename to drop_day_no_more")
    failures = 0
    async with asyncio.timeout(DEADLINE):
        while await admin.fetchval("select count(*) from bodies"):
            try:
                await opened.prune(MONTH)
            except StoreUnavailable:
                failures += 1
    assert failures == 2  # its bodies, and its attempts
    assert day in await partitions(admin)
