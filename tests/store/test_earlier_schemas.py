"""Stores that earlier versions made are migrated with their data, and go on delivering.

``schemas/`` has such a store of each schema, as SQL: delivered, dead, redelivered, pruned, keyed, held and waiting
messages, and one of a listener.
"""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fotahook.store import migrate_store, open_store
from fotahook.store.base import Store
from fotahook.store.records import Message, MessageFilter, NewMessage
from fotahook.store.sql import load_migrations
from tests.postgres import a_schema

from .conftest import ENGINES, URL, WELL, VirtualClock, settled

SCHEMAS = Path(__file__).with_name("schemas")
NEWEST = {engine: load_migrations(engine)[-1].number for engine in ENGINES}

pytestmark = pytest.mark.parametrize(
    ("engine", "version"),
    # Not every number is one of both engines.
    [(engine, migration.number) for engine in ENGINES for migration in load_migrations(engine)[:-1]],
)


@pytest.fixture
async def migrated(
    engine: str, version: int, tmp_path: Path, clock: VirtualClock, request: pytest.FixtureRequest
) -> AsyncIterator[Store]:
    """A store that had this schema."""
    sql = (SCHEMAS / f"{engine}_{version}.sql").read_text()
    async with contextlib.AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path}/old.db"
        if engine == "sqlite":
            with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as file:
                file.executescript(sql)
        else:
            url = await stack.enter_async_context(a_schema(request.getfixturevalue("postgres_server")))
            connection = await asyncpg.connect(url)
            await connection.execute(sql)
            await connection.close()
        done = await migrate_store(url)
        assert (done.before, done.after) == (version, NEWEST[engine])
        store = await open_store(url, clock=clock)
        yield store
        await store.close()


def name(body: bytes | None) -> str:
    found: str = json.loads(body or b'{"n": "pruned"}')["n"]
    return found


async def deliver_all(store: Store) -> list[str]:
    """Deliver what is due, and what becomes due by that; the names of the messages in order."""
    names = []
    while leases := await store.lease(10, 30):
        for lease in leases:
            deliveries = await store.fetch(lease, 10)
            names += [name(delivery.body) for delivery in deliveries]
            await store.settle(lease, [settled(each) for each in deliveries], WELL, keep=0)
    return names


async def found(store: Store, account: str) -> dict[str, Message]:
    """The messages of an account by their names, newest first."""
    listed = (await store.messages(account, MessageFilter(), limit=100)).messages
    messages = [await store.message(message.id) for message in listed]
    return {name(message.body): message for message in messages if message is not None}


async def test_it_goes_on_delivering_in_order(migrated: Store) -> None:
    names = await deliver_all(migrated)
    assert sorted(names) == [
        *("chain 1", "chain 2", "chain 3", "free", "known by bytes", "known by bytes", "redelivered", "waits")
    ]
    assert [each for each in names if each.startswith("chain")] == ["chain 1", "chain 2", "chain 3"]
    await migrated.register("moved", URL, actor="test")
    assert await deliver_all(migrated) == ["held"]
    assert (await migrated.backlog()).pending == 0


async def test_what_is_settled_stays_settled(migrated: Store) -> None:
    messages = await found(migrated, "open")
    assert list(messages) == [
        *("free", "chain 3", "chain 2", "chain 1", "pruned", "redelivered", "dead", "delivered"),
    ]
    states = {name: [each.state for each in message.deliveries] for name, message in messages.items()}
    assert (states["delivered"], states["dead"], states["pruned"]) == (["delivered"], ["dead"], ["delivered"])
    assert (states["redelivered"], states["chain 2"]) == (["pending"], ["pending"])
    assert messages["chain 3"].deliveries[0].behind == messages["chain 1"].id
    assert messages["dead"].deliveries[0].attempts == 8
    assert messages["pruned"].body is None
    attempts = await migrated.attempts(messages["delivered"].id)
    assert [attempt.outcome for attempt in attempts] == ["failed", "delivered"]
    (lane,) = await migrated.lanes("open")
    assert (lane.pending, lane.dead) == (5, 1)
    assert (await migrated.redeliver(messages["dead"].id)).refused is None
    assert (await migrated.lanes("open"))[0].dead == 0


async def test_duplicates_are_still_known_and_numbers_go_on(migrated: Store) -> None:
    messages = await found(migrated, "open")
    again = [
        NewMessage(account="open", body=b'{"n":"delivered"}', idempotency_key="key-1"),
        NewMessage(account="open", body=b'{"n":"pruned"}', idempotency_key="key-2"),
        NewMessage(account="open", body=b'{"n":"new"}'),
    ]
    *duplicates, new = await migrated.accept(again)
    assert all(one.duplicate and not one.conflict for one in duplicates)
    assert [one.id for one in duplicates] == [messages["delivered"].id, messages["pruned"].id]
    assert not new.duplicate
    assert next(iter(await found(migrated, "open"))) == "new"
