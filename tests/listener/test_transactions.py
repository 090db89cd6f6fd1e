"""`context.transaction`: on PostgreSQL the writes of a handler commit with its message, exactly once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from fotahook import CallbackMessage, Listener
from fotahook.delivery import Deliver, Outcome
from fotahook.listener import Context
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Lease, NewMessage, StoreUnavailable
from fotahook.store.transaction import AlreadyHandled
from tests.deadlines import DEADLINE
from tests.postgres import Server, a_schema

from .conftest import PROGRESS, Seen, request

Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
INSERT = "insert into upgrades values ($1)"


@pytest.fixture
async def url(postgres_server: Server) -> AsyncIterator[str]:
    async with a_schema(postgres_server) as url:
        yield url


@pytest.fixture
async def db(url: str) -> AsyncIterator[Db]:
    connection = await asyncpg.connect(url)
    await connection.execute("create table upgrades (id text not null)")
    yield connection
    await connection.close()


@pytest.fixture
def listener(url: str) -> Listener:
    return Listener(url, schedule=(0.0, 0.0, 0.0))


async def upgrades(db: Db) -> list[str]:
    return [row["id"] for row in await db.fetch("select id from upgrades")]


async def once(db: Db, condition: str) -> None:
    """Wait until the server says that something is so."""
    async with asyncio.timeout(DEADLINE):
        while not await db.fetchval(condition):  # noqa: ASYNC110  # a server tells nobody
            await asyncio.sleep(0.01)


async def test_what_a_handler_writes_commits_with_the_message(listener: Listener, db: Db, seen: Seen) -> None:
    @listener.on_any
    async def write(message: CallbackMessage, context: Context) -> None:
        assert await context.transaction.fetchval("select count(*) from upgrades") == 0
        assert await context.transaction.execute(INSERT, context.id) == "INSERT 0 1"
        await context.transaction.executemany(INSERT, [("a",), ("b",)])
        assert [row["id"] for row in await context.transaction.fetch("select id from upgrades order by id limit 2")]
        found = await context.transaction.fetchrow("select id from upgrades where id = $1", "a")
        assert found is not None
        assert found["id"] == "a"
        # Nobody else sees it before.
        assert await upgrades(db) == []
        seen.add(context.id)

    async with listener.running():
        await request(listener, PROGRESS)
        (message_id,) = await seen.wait(1)
    assert await upgrades(db) == [message_id, "a", "b"]


async def test_a_process_that_dies_before_it_settles_handles_nothing_twice(
    listener: Listener, db: Db, seen: Seen
) -> None:
    def forgetting(deliver: Deliver) -> Deliver:
        """The first outcome is lost, as if the process had died after the commit."""
        attempts = 0

        async def deliver_and_die(lease: Lease, delivery: Delivery) -> Outcome:
            nonlocal attempts
            attempts += 1
            outcome = await deliver(lease, delivery)
            seen.add(outcome.code)
            return Outcome(code="handler_error") if attempts == 1 else outcome

        return deliver_and_die

    calls: list[int] = []

    @listener.on_any
    async def write(message: CallbackMessage, context: Context) -> None:
        calls.append(context.attempt)
        await context.transaction.execute(INSERT, context.id)
        calls.append(-context.attempt)

    listener.wrap(lambda store: store, forgetting)
    async with listener.running():
        await request(listener, PROGRESS)
        assert await seen.wait(2) == ["delivered", "delivered"]
    assert len(await upgrades(db)) == 1
    assert calls == [1, -1, 2]


async def test_nothing_commits_unless_all_handlers_succeed(listener: Listener, db: Db, seen: Seen) -> None:
    @listener.on_any
    async def write(message: CallbackMessage, context: Context) -> None:
        await context.transaction.execute(INSERT, f"attempt {context.attempt}")

    @listener.on_any
    async def fail_once(message: CallbackMessage, context: Context) -> None:
        if context.attempt == 1:
            raise RuntimeError("not yet")
        seen.add(await context.transaction.fetchval("select count(*) from upgrades"))

    async with listener.running():
        await request(listener, PROGRESS)
        assert await seen.wait(1) == [1]
    assert await upgrades(db) == ["attempt 2"]


async def test_a_handler_that_ignores_a_failed_statement_is_called_again(
    listener: Listener, db: Db, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    @listener.on_any
    async def ignore(message: CallbackMessage, context: Context) -> None:
        await context.transaction.execute(INSERT, f"attempt {context.attempt}")
        if context.attempt == 1:
            with pytest.raises(asyncpg.PostgresError):
                await context.transaction.execute("select 1 / 0")
        seen.add(context.attempt)

    async with listener.running():
        await request(listener, PROGRESS)
        assert await seen.wait(2) == [1, 2]
    assert await upgrades(db) == ["attempt 2"]
    assert "a statement in it had failed" in caplog.text


async def test_a_redelivered_message_is_handled_again(listener: Listener, db: Db, seen: Seen) -> None:
    @listener.on_any
    async def write(message: CallbackMessage, context: Context) -> None:
        await context.transaction.execute(INSERT, context.id)
        seen.add(context.id)

    async with listener.running():
        await request(listener, PROGRESS)
        (message_id,) = await seen.wait(1)
        await once(db, "select true from attempts where state = 'delivered'")
        await listener.redeliver(message_id)
        await seen.wait(2)
    assert await upgrades(db) == [message_id] * 2


@pytest.mark.parametrize("kind", ["plain", "sqlite"])
async def test_it_needs_an_async_handler_and_postgresql(listener: Listener, inbox: str, seen: Seen, kind: str) -> None:
    def ask(context: Context) -> None:
        with pytest.raises(RuntimeError, match="needs an async handler, and an inbox at postgresql"):
            _ = context.transaction
        seen.add("asked")

    def plain(message: CallbackMessage, context: Context) -> None:
        ask(context)

    async def coroutine(message: CallbackMessage, context: Context) -> None:
        ask(context)

    asked = listener if kind == "plain" else Listener(inbox)
    asked.on_any(plain if kind == "plain" else coroutine)
    async with asked.running():
        await request(asked, PROGRESS)
        await seen.wait(1)


# The store's part.


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    yield store
    await store.close()


async def one_delivery(store: Store) -> Delivery:
    await store.accept([NewMessage(account="a", body=b"{}", consumers=("handlers",))])
    (lease,) = await store.lease(1, 60)
    (delivery,) = await store.fetch(lease, 1)
    return delivery


@pytest.mark.parametrize("first_ends", ["commit", "close"])
async def test_a_second_attempt_waits_for_the_first(store: Store, db: Db, first_ends: str) -> None:
    delivery = await one_delivery(store)
    first, second = store.transaction(delivery), store.transaction(delivery)
    assert first is not None
    assert second is not None
    await first.execute(INSERT, "first")
    waiting = asyncio.create_task(second.execute(INSERT, "second"))
    await once(db, "select true from pg_stat_activity where wait_event_type = 'Lock'")
    if first_ends == "commit":
        await first.commit()
        with pytest.raises(AlreadyHandled):
            await waiting
        with pytest.raises(AlreadyHandled):
            await second.execute(INSERT, "again")
        with pytest.raises(AlreadyHandled):
            await second.commit()
    await first.close()
    if first_ends == "close":
        assert await waiting == "INSERT 0 1"
        await second.commit()
    await second.close()
    assert await upgrades(db) == ["first" if first_ends == "commit" else "second"]


async def test_a_transaction_that_never_began_ends_without_a_connection(store: Store) -> None:
    transaction = store.transaction(await one_delivery(store))
    assert transaction is not None
    await transaction.commit()
    await transaction.close()


async def test_a_lost_connection_is_logged_when_the_transaction_ends(
    store: Store, db: Db, caplog: pytest.LogCaptureFixture
) -> None:
    transaction = store.transaction(await one_delivery(store))
    assert transaction is not None
    pid = await transaction.fetchval("select pg_backend_pid()")
    await db.fetchval("select pg_terminate_backend($1)", pid)
    # The server's last words, or the driver's, whichever is read first.
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        await transaction.execute("select 1")
    with caplog.at_level(logging.WARNING, "fotahook.store"):
        await transaction.close()
    assert "could not be rolled back" in caplog.text


async def test_a_closed_store_has_no_connections(store: Store) -> None:
    transaction = store.transaction(await one_delivery(store))
    assert transaction is not None
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await transaction.execute("select 1")
