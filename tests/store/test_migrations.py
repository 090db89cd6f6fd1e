"""Stores of other versions are refused when they are opened, and migrated one transaction at a time."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fotahook.contract.events import AttemptFinished, CallbackChanged, MessageAccepted
from fotahook.store import SqliteStore, Store, migrate_store, open_store
from fotahook.store.postgres import connection as postgres_schema
from fotahook.store.records import NewMessage, StoreUnavailable, WrongSchema
from fotahook.store.sql import load_migrations
from fotahook.store.sqlite import connection as sqlite_schema
from tests.migrations import add_migration
from tests.postgres import a_schema

from .conftest import ACCOUNT, ENGINES, URL, Accept
from .test_events import read

pytestmark = pytest.mark.parametrize("engine", ENGINES)


def newest(engine: str) -> int:
    return load_migrations(engine)[-1].number


def next_name(engine: str) -> str:
    return f"{newest(engine) + 1:04}_extra"


@pytest.fixture
async def fresh_url(engine: str, store_url: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where there is nothing yet."""
    if engine == "sqlite":
        yield store_url
        return
    async with a_schema(request.getfixturevalue("postgres_server")) as url:
        yield url


async def test_the_first_of_two_migrations_creates_the_store(engine: str, fresh_url: str) -> None:
    done, again = await asyncio.gather(migrate_store(fresh_url), migrate_store(fresh_url))
    first, second = (done, again) if done.applied else (again, done)
    assert (first.before, first.after) == (0, newest(engine))
    assert first.applied == tuple(migration.name for migration in load_migrations(engine))
    assert (second.after, second.applied) == (newest(engine), ())
    await (await open_store(fresh_url)).close()


async def test_a_store_that_is_up_to_date_is_left_as_it_is(engine: str, store: Store, store_url: str) -> None:
    done = await migrate_store(store_url)
    assert (done.before, done.after, done.applied) == (newest(engine), newest(engine), ())
    await store.check()


async def test_an_older_store_is_refused_until_it_is_migrated(
    engine: str, registered: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_migration(monkeypatch)
    with pytest.raises(WrongSchema, match=r"has schema \d+ and .* works with \d+: run fotahook admin migrate") as older:
        await open_store(store_url)
    assert store_url.partition("?")[0] in str(older.value)
    with pytest.raises(WrongSchema):
        await registered.check()
    done = await migrate_store(store_url)
    assert (done.before, done.applied) == (newest(engine), (next_name(engine),))
    await registered.check()
    again = await open_store(store_url)
    try:
        callback = await again.callback(ACCOUNT)
        assert callback is not None
        assert callback.url == URL
    finally:
        await again.close()


async def test_a_newer_store_is_refused_and_not_migrated_back(
    engine: str, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as next_version:
        add_migration(next_version)
        await migrate_store(store_url)
    for refused in (open_store(store_url), migrate_store(store_url), store.check()):
        with pytest.raises(WrongSchema, match=r"newer fotahook.*install"):
            await refused


async def test_concurrent_migrations_apply_once(
    engine: str, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_migration(monkeypatch)
    all_done = await asyncio.gather(*(migrate_store(store_url) for _ in range(4)))
    assert sorted(done.applied for done in all_done) == [(), (), (), (next_name(engine),)]
    assert len({done.after for done in all_done}) == 1


async def test_a_running_process_goes_on_while_another_one_migrates(
    engine: str, registered: Store, store_url: str, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_migration(monkeypatch)
    accepted, _ = await asyncio.gather(accept(b"{}"), migrate_store(store_url))
    message = await registered.message(accepted[0].id)
    assert message is not None


async def test_a_migration_that_fails_leaves_the_store_as_it_was(
    engine: str, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as next_version:
        add_migration(next_version, "create table half (id integer);\ninsert into nowhere values (1);")
        with pytest.raises(StoreUnavailable, match="nowhere"):
            await migrate_store(store_url)
    await store.check()
    add_migration(monkeypatch, "create table half (id integer);")
    assert len((await migrate_store(store_url)).applied) == 1


async def test_a_migration_stays_applied_if_the_next_one_fails(
    engine: str, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = load_migrations(engine)[-1].number + 1
    add_migration(monkeypatch)
    add_migration(monkeypatch, "insert into nowhere values (1);")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await migrate_store(store_url)
    with pytest.raises(WrongSchema, match=f"has schema {good} "):
        await store.check()


async def test_a_database_that_is_no_store_is_left_alone(engine: str, store_url: str, tmp_path: Path) -> None:
    if engine == "postgres":
        with pytest.raises(StoreUnavailable, match="no schema has been selected"):
            await migrate_store(store_url.partition("?")[0] + "?search_path=absent")
        return
    path = tmp_path / "else.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table notes (text)")
    connection.close()
    for refused in (SqliteStore.open(path), migrate_store(f"sqlite:///{path}")):
        with pytest.raises(StoreUnavailable, match="something else"):
            await refused


OLD_ROWS = """
insert into callback_history (account, revision, url, actor, at) values ('a', 1, 'https://x.example/', 'test', 1.0);
insert into callback_history (account, revision, url, actor, at) values ('a', 2, null, 'test', 4.0);
insert into messages (id, account, idempotency_key, size, sha256, accepted_at) values ('m', 'a', 'k', 2, SHA, 2.0);
insert into messages (id, account, idempotency_key, size, sha256, accepted_at)
    values ('n', 'a', 'body:DIGEST', 2, BYTES, 3.5);
insert into messages (id, account, idempotency_key, size, sha256, accepted_at)
    values ('o', 'b', 'body:DIGEST', 2, BYTES, 3.7);
insert into credentials (kind, id, owner, secret_hash, scopes, created_at)
    values ('client', 'dev', '', DEV, OPERATE, 1), ('user', 'dev', '', DEV, NONE, 1),
        ('client', 'app', '', DEV, NONE, 1);
insert into lanes (account, consumer, held) values ('a', '', HELD);
insert into lanes (account, consumer, held) values ('b', '', HELD);
insert into deliveries (seq, lane, place, state, due, born)
    select m.seq, l.id, m.seq, 'ready', 0, 0 from messages m join lanes l on l.account = 'b' where m.id = 'o';
insert into attempts (seq, lane, started_at, outcome, phases, excerpt)
    select m.seq, l.id, 3.0, 'delivered', '{"total": 1.5}', 'ok'
    from messages m join lanes l on l.account = m.account where m.id = 'm';
"""


async def execute(engine: str, url: str, sql: str) -> None:
    if engine == "postgres":
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()
        return
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
        file.executescript(sql)


async def test_data_of_the_first_version_is_migrated(
    engine: str, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first_version:
        for schema in (sqlite_schema, postgres_schema):
            first = load_migrations(engine)[:1]
            first_version.setattr(schema, "load_migrations", lambda engine, first=first: first)
        await migrate_store(fresh_url)
    digest = hashlib.sha256(b"{}").hexdigest()
    dev = hashlib.sha256(b"dev-secret").hexdigest()
    sqlite = {"SHA": "x''", "HELD": "1", "BYTES": f"x'{digest}'", "DEV": f"x'{dev}'"}
    sqlite |= {"OPERATE": "'publish operate'", "NONE": "'operated'"}
    postgres = {"SHA": "''", "HELD": "true", "BYTES": f"'\\x{digest}'", "DEV": f"'\\x{dev}'"}
    postgres |= {"OPERATE": "'{publish,operate}'", "NONE": "'{operated}'"}
    sql = OLD_ROWS.replace("DIGEST", digest)
    for name, value in (sqlite if engine == "sqlite" else postgres).items():
        sql = sql.replace(name, value)
    await execute(engine, fresh_url, sql)
    await migrate_store(fresh_url)
    store = await open_store(fresh_url)
    try:
        events = (await read(store)).events
        assert [(type(event.data), event.data.at.timestamp()) for event in events] == [
            (CallbackChanged, 1.0),
            (MessageAccepted, 2.0),
            (AttemptFinished, 3.0),
            (MessageAccepted, 3.5),
            (MessageAccepted, 3.7),
            (CallbackChanged, 4.0),
        ]
        (attempt,) = await store.attempts("m")
        assert (attempt.outcome, attempt.phases.total, attempt.resent) == ("delivered", 1.5, False)
        assert [change.revision for change in await store.callback_history("a", 9)] == [2, 1]
        messages = [
            NewMessage(account="a", body=b"{}", idempotency_key="k"),
            # In a lane to a callback this is the publisher's own key.
            NewMessage(account="b", body=b"{}", idempotency_key=f"body:{digest}"),
        ]
        accepted = await store.accept(messages)
        assert [(one.id, one.duplicate) for one in accepted] == [("m", True), ("o", True)]
        # Who operated could read bodies, and still may; what --dev made is known by its owner.
        client, user = await store.credentials("client", "dev"), await store.credentials("user", "dev")
        assert [each.scopes for each in (*client, *user)] == [("publish", "operate", "bodies"), ("operated",)]
        assert [(each.id, each.scopes) for each in await store.credentials("client", "")] == [("app", ("operated",))]
    finally:
        await store.close()
