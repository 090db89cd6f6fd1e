"""What only the SQLite store promises: group commit, one dispatcher per file, honest errors."""

import asyncio
import contextlib
import itertools
import os
import re
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fotahook.store import SqliteStore, Store, open_store, sqlite_path
from fotahook.store.records import DispatchedElsewhere, Limits, NewMessage, StoreFull, StoreUnavailable
from fotahook.store.session import Session
from fotahook.store.sql import load_migrations, load_queries
from fotahook.store.sqlite.connection import Worker, connect, describe_error, translate
from fotahook.store.sqlite.store import run_to_end
from tests.modes import modes_bind

from .conftest import ACCOUNT, URL, WELL, Accept, VirtualClock, lease_one, settled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.parametrize("url", ["postgres://x", "sqlite://", "sqlite:///", "sqlite:///:memory:", "fotahook.db", ""])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///FILE"):
        await open_store(url)


def test_four_slashes_name_an_absolute_file() -> None:
    assert sqlite_path("sqlite:////var/lib/f.db") == "/var/lib/f.db"
    assert sqlite_path("sqlite:///f.db") == "f.db"


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^sqlite:///:memory: would keep nothing on disk"):
        sqlite_path("sqlite:///:memory:")


async def test_only_the_owner_can_read_the_file(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await SqliteStore.open(tmp_path / "missing" / "store.db")
    assert str(refused.value) == (
        f"cannot open the store {tmp_path}/missing/store.db: No such file or directory; "
        f"make the directory {tmp_path}/missing first"
    )


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=f"cannot open the store {tmp_path}: .*; name a file, not a directory"):
        await SqliteStore.open(tmp_path)


async def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreUnavailable, match=f"{path}: file is not a database .*; choose another file"):
        await SqliteStore.open(path)


async def test_the_database_of_something_else_is_named_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table theirs (number integer)")
    connection.close()
    with pytest.raises(StoreUnavailable, match=f"^{path} is the database of something else; choose another file"):
        await SqliteStore.open(path)


@pytest.mark.parametrize(("given", "milliseconds"), [(None, 70), (0, 0), (5.0, 5000)])
def test_a_connection_waits_for_the_busy_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch, given: float | None, milliseconds: int
) -> None:
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.07)
    with contextlib.closing(connect(path, busy_seconds=given)) as connection:
        assert connection.execute("pragma busy_timeout").fetchone() == {"timeout": milliseconds}


async def test_a_file_that_another_process_holds_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.01)
    store = await SqliteStore.open(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        for doing in (store.check(), SqliteStore.open(path)):
            with pytest.raises(StoreUnavailable, match=f"{path}: database is locked .*; another process holds it"):
                await doing
    await store.check()
    await store.close()


async def test_a_read_only_file_can_be_read_and_fails_the_check(path: Path) -> None:
    store = await SqliteStore.open(path)
    (accepted,) = await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    await store.close()
    path.chmod(0o444)
    with modes_bind():
        store = await SqliteStore.open(path)
        assert await store.message(accepted.id) is not None
        with pytest.raises(StoreUnavailable) as refused:
            await store.check()
        await store.close()
    assert str(refused.value) == (
        f"cannot open the store {path}: attempt to write a readonly database (SQLITE_READONLY); "
        f"give this user (uid {os.geteuid()}) the right to write to {path}, {path}-wal, {path}-shm"
    )


@pytest.mark.parametrize("made", [True, False])
async def test_a_read_only_folder_is_named(path: Path, made: bool) -> None:
    if made:
        await (await SqliteStore.open(path)).close()
    path.parent.chmod(0o555)
    with modes_bind(), pytest.raises(StoreUnavailable, match=f"the right to write to {path.parent}$"):
        await SqliteStore.open(path)


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error; check the file"),
        (OSError("odd"), "odd; check the file"),
    ],
)
def test_other_errors_are_described_too(path: Path, error: OSError | sqlite3.Error, description: str) -> None:
    assert description in describe_error(path, error)


async def test_a_store_of_a_newer_version_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 9999")
    connection.close()
    with pytest.raises(StoreUnavailable, match=f"the store sqlite:///{path} has schema 9999, of a newer fotahook"):
        await SqliteStore.open(path)


async def test_reopening_migrates_nothing_twice(path: Path) -> None:
    for _ in range(2):
        store = await SqliteStore.open(path)
        await store.close()
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("pragma user_version").fetchone()
    connection.close()
    assert version == load_migrations("sqlite")[-1].number


async def test_every_commit_is_synced(path: Path) -> None:
    store = await SqliteStore.open(path)
    (sync,) = (await store._writer.run(lambda db: db.execute("pragma synchronous").fetchone())).values()
    (mode,) = (await store._writer.run(lambda db: db.execute("pragma journal_mode").fetchone())).values()
    await store.close()
    assert (sync, mode) == (2, "wal")


async def test_one_process_dispatches_from_a_file(path: Path, clock: VirtualClock) -> None:
    first, second = await SqliteStore.open(path, clock=clock), await SqliteStore.open(path, clock=clock)
    await first.lease(1, 30)
    with pytest.raises(DispatchedElsewhere, match="another process dispatches"):
        await second.lease(1, 30)
    await first.close()
    assert await second.lease(1, 30) == []
    await second.close()


async def test_a_new_dispatcher_takes_the_old_ones_leases_over_at_once(
    path: Path, store: SqliteStore, accept: Accept, clock: VirtualClock
) -> None:
    await store.register(ACCOUNT, URL, actor="test")
    await accept(b"{}")
    old = await lease_one(store)
    await store.close()
    again = await SqliteStore.open(path, clock=clock)
    assert (await lease_one(again)).token > old.token
    await again.close()


async def test_another_process_that_holds_the_file_makes_the_store_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.01)
    store = await SqliteStore.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    message = NewMessage(account=ACCOUNT, body=b"{}")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.accept([message])
    other.execute("rollback")
    other.close()
    assert (await store.accept([message]))[0].id
    await store.close()


VISIT = """
import asyncio, sys
from fotahook.store import SqliteStore

async def visit():
    store = await SqliteStore.open(sys.argv[1])
    await store.message("any")
    await store.close()

asyncio.run(visit())
"""


async def test_a_short_lived_process_does_not_remove_the_log(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.register(ACCOUNT, URL, actor="a")
    visitor = await asyncio.create_subprocess_exec(sys.executable, "-c", VISIT, str(path))
    assert await visitor.wait() == 0
    assert await store.deregister(ACCOUNT, actor="a")
    await store.close()


async def test_a_full_disk_takes_nothing_and_says_so(path: Path) -> None:
    store = await SqliteStore.open(path)
    pages = (await store._writer.run(lambda db: db.execute("pragma page_count").fetchone()))["page_count"]
    await store._writer.run(lambda db: db.execute(f"pragma max_page_count = {pages}").fetchone())
    small, large = (NewMessage(account=ACCOUNT, body=b"x" * size) for size in (10, 1_000_000))
    answers = await asyncio.gather(store.accept([small]), store.accept([large]), return_exceptions=True)
    assert isinstance(answers[1], StoreFull)
    await store._writer.run(lambda db: db.execute("pragma max_page_count = 1000000").fetchone())
    assert (await store.accept([large]))[0].duplicate is False
    await store.close()


async def test_large_bodies_are_written_in_chunks(
    store: Store, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.store.sqlite.store.CHUNK_BYTES", 10)
    bodies = [b"x" * size for size in (4, 6, 1, 20, 0)]
    accepted = await accept(*bodies)
    stored = [await store.message(answer.id) for answer in accepted]
    assert [message.body for message in stored if message] == bodies
    assert await store.accept([]) == []


async def test_deduplication_keys_with_equal_hashes_are_distinguished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.store.sqlite.store.key_hash", lambda account, key: 1)
    messages = [
        NewMessage(account=account, body=body, idempotency_key=key, idempotency_window=60.0)
        for account, body, key in itertools.product("ab", (b"1", b"2"), ("i", "j"))
    ]
    in_one_batch = await store.accept(messages)
    one_by_one = [(await store.accept([message]))[0] for message in messages]
    for answers in (in_one_batch, one_by_one):
        # Two keys of each account.
        assert len({answer.id for answer in answers}) == 2 * 2
        assert [answer.conflict for answer in answers] == [False, False, True, True] * 2


async def test_a_message_that_cannot_be_written_fails_only_its_own_accept(path: Path) -> None:
    store = await SqliteStore.open(path)
    gate = Gate()
    blocking = asyncio.ensure_future(store._writer.run(gate.job))
    await asyncio.to_thread(gate.reached.wait)
    messages = [NewMessage(account=ACCOUNT, body=b"{}", type=kind) for kind in ("a", "\ud800", "c\0d")]
    accepts = [asyncio.ensure_future(store.accept([message])) for message in messages]
    await asyncio.sleep(0)  # lets every accept be handed over
    gate.open()
    await blocking
    first, failed, third = await asyncio.gather(*accepts, return_exceptions=True)
    assert isinstance(failed, UnicodeEncodeError)
    for answers, kind in ((first, "a"), (third, "c\0d")):
        assert isinstance(answers, list)
        stored = await store.message(answers[0].id)
        assert stored is not None
        assert stored.type == kind
    await store.close()


async def test_of_two_settlings_that_give_the_same_lane_back_one_counts(path: Path, clock: VirtualClock) -> None:
    store = await SqliteStore.open(path, clock=clock)
    await store.register(ACCOUNT, URL, actor="test")
    await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    lease = await lease_one(store)
    (delivery,) = await store.fetch(lease, 10)
    gate = Gate()
    blocking = asyncio.ensure_future(store._writer.run(gate.job))
    await asyncio.to_thread(gate.reached.wait)
    settles = [asyncio.ensure_future(store.settle(lease, [settled(delivery)], WELL, keep=0)) for _ in range(2)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(blocking, *settles)
    assert len(await store.attempts(delivery.message)) == 1
    await store.close()


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
async def test_nothing_is_written_to_a_removed_file(name: str, path: Path) -> None:
    store = await SqliteStore.open(path)
    message = NewMessage(account=ACCOUNT, body=b"{}")
    away = path.with_name("elsewhere")
    path.with_name(name).rename(away)
    with pytest.raises(StoreUnavailable, match=f"{name} was removed or replaced"):
        await store.accept([message])
    path.with_name(name).touch()
    with pytest.raises(StoreUnavailable, match=f"{name} was removed or replaced"):
        await store.accept([message])
    away.rename(path.with_name(name))
    (accepted,) = await store.accept([message])
    await store.close()
    again = await SqliteStore.open(path)
    assert await again.message(accepted.id) is not None
    await again.close()


async def test_reads_that_fail_are_translated(path: Path) -> None:
    store = await SqliteStore.open(path)
    with pytest.raises(StoreUnavailable, match="no such table"):
        await store._workers["read"].run(lambda db: db.execute("select * from absent"))
    await store.close()


async def test_a_failed_peek_is_repeated_by_the_thread(path: Path) -> None:
    store = await SqliteStore.open(path)
    callback = await store.register(ACCOUNT, URL, actor="test")
    # Every statement of this connection ends with an error from now on.
    store._peeking.set_progress_handler(lambda: 1, 1)
    assert await store.callback(ACCOUNT) == callback
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.callback(ACCOUNT)


# The worker


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("create table numbers (number integer primary key)")
    yield connection
    connection.close()


def writer_on(connection: sqlite3.Connection) -> Worker:
    return Worker(connection, begin="begin immediate", end="commit")


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute("insert into numbers values (?)", (number,)).rowcount


class Gate:
    """A job that keeps the writer busy until it is opened, so that jobs gather behind it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def job(self, db: sqlite3.Connection) -> None:
        self.reached.set()
        self._open.wait()


async def test_writes_of_the_same_moment_share_a_commit(store: SqliteStore, clock: VirtualClock) -> None:
    commits: list[str] = []
    store._writer._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "commit" else None)
    accepts = [store.accept([NewMessage(account=ACCOUNT, body=b"{}")]) for _ in range(20)]
    await asyncio.gather(*accepts, store.register(ACCOUNT, URL, actor="test"), store.pause("other"))
    assert len(commits) == 1


async def test_a_write_that_fails_undoes_its_own_changes_only(store: SqliteStore) -> None:
    async def failing(db: Session) -> None:
        await db.rows("set_limits", account="failed", **msgspec.structs.asdict(Limits(in_flight=1)))
        raise RuntimeError("on purpose")

    writes = [store.register("first", URL, actor="test"), store._write(failing), store.pause("second")]
    _, failed, _ = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(failed, RuntimeError)
    assert await store.limits("failed") == Limits()
    assert await store.callback("first") is not None
    assert [lane.state for lane in await store.lanes("second")] == ["paused"]


async def test_a_commit_that_fails_fails_its_job(connection: sqlite3.Connection) -> None:
    connection.execute("pragma foreign_keys = on")
    connection.execute("create table orphans (number integer references numbers deferrable initially deferred)")
    writer = writer_on(connection)
    # Deferred constraints are checked by the commit itself, which is then refused.
    with pytest.raises(StoreUnavailable, match="FOREIGN KEY"):
        await writer.run(lambda db: db.execute("insert into orphans values (7)"))
    assert await writer.run(insert(1)) == 1
    await writer.close()


async def test_closing_finishes_queued_jobs_and_can_be_repeated(connection: sqlite3.Connection) -> None:
    writer, gate = writer_on(connection), Gate()
    jobs = [asyncio.ensure_future(writer.run(job)) for job in (gate.job, insert(1))]
    await asyncio.to_thread(gate.reached.wait)
    gate.open()
    await writer.close()
    await writer.close()
    assert await asyncio.gather(*jobs) == [None, 1]
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await writer.run(insert(2))


class Unreliable(sqlite3.Connection):
    """A connection on which the next rollbacks fail."""

    failures = 0

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "rollback" and self.failures > 0:
            self.failures -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *values)


@pytest.mark.usefixtures("connection")
async def test_a_failed_rollback_fails_only_the_next_transaction(path: Path) -> None:
    unreliable = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Unreliable)
    unreliable.failures = 1
    writer = writer_on(unreliable)

    def broken(db: sqlite3.Connection) -> None:
        insert(1)(db)
        raise sqlite3.OperationalError("disk I/O error")

    for job in (broken, insert(2)):
        with pytest.raises(StoreUnavailable):
            await writer.run(job)
    assert await writer.run(insert(3)) == 1
    await writer.close()
    with contextlib.closing(sqlite3.connect(path)) as again:
        assert again.execute("select * from numbers").fetchall() == [(3,)]


async def test_a_job_that_raises_stop_iteration_fails(connection: sqlite3.Connection) -> None:
    writer = writer_on(connection)

    def stop(_: sqlite3.Connection) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await writer.run(stop)
    await writer.close()


def test_a_caller_whose_loop_is_gone_does_not_stop_the_worker(connection: sqlite3.Connection) -> None:
    writer, gate = writer_on(connection), Gate()

    async def leave() -> None:
        task = asyncio.ensure_future(writer.run(gate.job))
        await asyncio.to_thread(gate.reached.wait)
        task.cancel()

    async def come() -> int:
        try:
            return await writer.run(insert(1))
        finally:
            await writer.close()

    asyncio.run(leave())
    gate.open()
    assert asyncio.run(come()) == 1


async def test_a_transaction_that_sqlite_ends_by_itself_fails(connection: sqlite3.Connection) -> None:
    writer = writer_on(connection)

    def full(db: sqlite3.Connection) -> None:
        insert(1)(db)
        db.execute("rollback")
        raise sqlite3.OperationalError("disk full")

    with pytest.raises(StoreUnavailable, match="disk full"):
        await writer.run(full)
    assert await writer.run(lambda db: db.execute("select count(*) from numbers").fetchone()) == (0,)
    await writer.close()


async def test_a_read_sees_one_state_of_the_store(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("pragma journal_mode = wal")
    reader = Worker(sqlite3.connect(path, isolation_level=None, check_same_thread=False))

    def count_twice(db: sqlite3.Connection) -> tuple[object, object]:
        before = db.execute("select count(*) from numbers").fetchone()
        connection.execute("insert into numbers values (1)")
        return before, db.execute("select count(*) from numbers").fetchone()

    assert await reader.run(count_twice) == ((0,), (0,))
    await reader.close()


def test_a_shared_transaction_that_waits_is_refused() -> None:
    async def job() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waited for something else"):
        run_to_end(job())


def test_errors_are_translated() -> None:
    error = sqlite3.OperationalError("disk full")
    error.sqlite_errorname = "SQLITE_FULL"
    assert isinstance(translate(error), StoreFull)
    assert isinstance(translate(sqlite3.DatabaseError("broken")), StoreUnavailable)
    other = ValueError()
    assert translate(other) is other


# The SQL files


def test_queries_are_read_by_name_without_comments() -> None:
    queries = load_queries("sqlite")
    assert queries["callback"].startswith("select account")
    assert not any("--" in sql or sql.endswith(";") for sql in queries.values())


async def test_the_lease_reads_an_index(path: Path) -> None:
    store = await SqliteStore.open(path)
    query = "explain query plan " + load_queries("sqlite")["lease"]
    values = {"now": 1.0, "seconds": 1.0, "limit": 1}
    plan = await store._writer.run(lambda db: [row["detail"] for row in db.execute(query, values)])
    await store.close()
    assert any("lanes_by_next" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("lanes", "pending USING PRIMARY KEY (lane=?)"),
        ("lanes", "dead USING PRIMARY KEY (lane=?)"),
        ("recent", "COVERING INDEX messages_by_account"),
        ("recent_pending", "pending USING PRIMARY KEY (lane=? AND seq<?)"),
        ("recent_dead", "dead USING PRIMARY KEY (lane=? AND seq<?)"),
    ],
)
async def test_listing_undelivered_messages_does_not_scan_delivered_ones(path: Path, name: str, index: str) -> None:
    store = await SqliteStore.open(path)
    query = "explain query plan " + load_queries("sqlite")[name]
    values = {"account": "a", "lane": 1, "before": 1, "limit": 1, "now": 1.0}
    plan = await store._workers["read"].run(lambda db: [row["detail"] for row in db.execute(query, values)])
    await store.close()
    assert any(index in step for step in plan), plan
    scans = [
        step for step in plan if "SCAN" in step and not re.search("VIRTUAL TABLE|subquery|CONSTANT ROW|buckets", step)
    ]
    assert not scans, plan
    # Only what the lanes found is sorted in the end, a page of each.
    inner = list(itertools.takewhile(lambda step: not step.startswith("SCAN (subquery"), plan))
    assert not any("TEMP B-TREE" in step for step in inner), plan


async def test_the_fetch_reads_an_index_in_order(path: Path) -> None:
    store = await SqliteStore.open(path)
    query = "explain query plan " + load_queries("sqlite")["fetch"]
    values = {"now": 1.0, "lane": 1, "limit": 1, "without": "[]", "max_bytes": 1}
    plan = await store._workers["read"].run(lambda db: [row["detail"] for row in db.execute(query, values)])
    await store.close()
    assert any("pending_ready" in step for step in plan), plan
    # What was delivered of the lane is not gone through for each of them.
    assert any("pending_by_key" in step for step in plan), plan
    # At most as many as are fetched are sorted, to sum up their sizes.
    assert sum("TEMP B-TREE" in step for step in plan) <= 1, plan


@pytest.mark.parametrize(("name", "width"), [("put_off", 5), ("bury", 4), ("end_pending", 2), ("promote", 2)])
async def test_settling_finds_deliveries_by_their_numbers(path: Path, name: str, width: int) -> None:
    store = await SqliteStore.open(path)
    row = f"({', '.join('?' * width)})"
    query = "explain query plan " + load_queries("sqlite")[name].format(rows=f"{row}, {row}")
    plan = await store._writer.run(lambda db: [step["detail"] for step in db.execute(query, (1,) * query.count("?"))])
    await store.close()
    assert any("USING PRIMARY KEY (lane=? AND seq=?)" in step for step in plan), plan
    assert not any(re.match("SCAN (pending|p)\\b", step) for step in plan), plan
