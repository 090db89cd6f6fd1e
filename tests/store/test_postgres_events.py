"""Transactions that end in another order than they began: no event is skipped."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from fotahook.contract.events import MessageAccepted
from fotahook.store import Store, open_store
from fotahook.store.events import EventCursor, EventPage
from fotahook.store.postgres.servers import Connection

from .conftest import ACCOUNT, Accept, VirtualClock
from .test_events import read

WRITERS = 5
STEPS = 150


@pytest.fixture
def engine() -> str:
    return "postgres"


@pytest.fixture
async def writers(store: Store, store_url: str) -> AsyncIterator[list[Connection]]:
    """Connections of other processes, each for one transaction at a time."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(WRITERS):
            connections.append(await asyncpg.connect(store_url))
            stack.push_async_callback(connections[-1].close)
        yield connections


async def write(writer: Connection, message_id: str) -> None:
    """As a process does it that accepts a message: a lane is locked before a number is drawn."""
    await writer.execute("insert into lanes (account, consumer, held) values ($1, '', true)", f"lane of {message_id}")
    await writer.execute(
        "insert into messages (id, account, size, sha256, accepted_at) values ($1, $2, 0, '', store_now())",
        message_id,
        ACCOUNT,
    )


def messages(found: EventPage) -> list[str]:
    return [event.data.id for event in found.events if isinstance(event.data, MessageAccepted)]


async def test_events_wait_for_transactions_that_began_earlier(
    store: Store, accept: Accept, writers: list[Connection]
) -> None:
    async with writers[0].transaction():
        await write(writers[0], "early")
        (late,) = await accept(b"{}")
        held_back = await store.events(EventCursor(), limit=10)
        assert (held_back.events, held_back.more) == ((), True)
    assert messages(await read(store)) == ["early", late.id]


async def test_events_do_not_wait_for_a_rolled_back_transaction(
    store: Store, accept: Accept, writers: list[Connection]
) -> None:
    transaction = writers[0].transaction()
    await transaction.start()
    await write(writers[0], "never")
    (late,) = await accept(b"{}")
    assert messages(await store.events(EventCursor(), limit=10)) == []
    await transaction.rollback()
    assert messages(await read(store)) == [late.id]


async def test_cursors_are_valid_in_other_processes(
    store: Store, store_url: str, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1", b"2")
    here = await read(store)
    other = await open_store(store_url, clock=clock)
    try:
        there = await other.events(here.cursor, limit=10)
        assert (there.events, there.lost) == ((), False)
    finally:
        await other.close()


@pytest.mark.parametrize("seed", range(3))
async def test_every_event_is_read_once_and_in_order_however_transactions_overlap(
    seed: int, store: Store, writers: list[Connection]
) -> None:
    chance = random.Random(seed)
    begun: dict[int, tuple[asyncpg.transaction.Transaction, str]] = {}
    kept: set[str] = set()
    cursor, seen = EventCursor(), list[str]()
    for step in range(STEPS):
        number = chance.randrange(WRITERS)
        if number not in begun:
            transaction = writers[number].transaction()
            await transaction.start()
            begun[number] = (transaction, f"message {step}")
            await write(writers[number], f"message {step}")
        else:
            transaction, message = begun.pop(number)
            if chance.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                kept.add(message)
        found = await store.events(cursor, limit=chance.randint(1, 5))
        cursor, seen = found.cursor, seen + messages(found)
    for transaction, _ in begun.values():
        await transaction.rollback()
    seen += messages(await read(store, cursor))
    assert len(seen) == len(kept)
    assert set(seen) == kept
    stored = [row["id"] for row in await writers[0].fetch("select id from messages order by seq")]
    assert seen == stored
