"""The PostgreSQL store alone: many processes side by side, and errors while the server is down."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from fotahook import store as store_package
from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.postgres import connection as connection_module
from fotahook.store.postgres import servers
from fotahook.store.postgres import store as store_module
from fotahook.store.postgres.connection import unsafe_settings
from fotahook.store.postgres.servers import Db
from fotahook.store.postgres.store import (
    MARGIN_SECONDS,
    STATEMENTS,
    LeaseHorizon,
    PostgresSession,
    PostgresStore,
    number_parameters,
)
from fotahook.store.records import (
    Health,
    LaneVerdict,
    Lease,
    NewMessage,
    Redelivery,
    Retention,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from fotahook.store.session import Session
from fotahook.store.sql import load_migrations, load_queries
from tests.deadlines import DEADLINE
from tests.ports import unused_port
from tests.postgres import Server, a_schema

from .conftest import ACCOUNT, URL, WELL, Accept, VirtualClock, hint, lease_one, quiet, settled

MESSAGE = NewMessage(account=ACCOUNT, body=b"{}")


@pytest.fixture
def engine() -> str:
    return "postgres"


@pytest.fixture
async def fresh_url(postgres_server: Server) -> AsyncIterator[str]:
    """An empty schema."""
    async with a_schema(postgres_server) as url:
        yield url


@pytest.fixture
async def other(store: Store, store_url: str, clock: VirtualClock) -> AsyncIterator[Store]:
    """The same store, as another process opened it."""
    other = await open_store(store_url, clock=clock)
    yield other
    await other.close()


@pytest.fixture
async def admin(store: Store, store_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection beside the store's own."""
    connection = await asyncpg.connect(store_url)
    yield connection
    await connection.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores opened from now on have short timeouts."""
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 3.0)
    limits = {"ACQUIRE": 2.0, "LOCK": 0.1, "STATEMENT": 1.0, "RESPONSE": 2.0}
    for name, seconds in limits.items():
        monkeypatch.setattr(connection_module, f"{name}_SECONDS", seconds)


async def once(condition: Callable[[], Awaitable[Any]]) -> None:
    """Return as soon as the condition holds."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 - it is the server that knows
            await asyncio.sleep(0.005)


def pool_of(store: Store) -> connection_module.ConnectionPool:
    assert isinstance(store, PostgresStore)
    return store._pool


# Opening


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret/rest@host/db",
        "postgresql://user:secret@[host/db",
        "postgresql://user:secret@host:port/db",
        "postgres://user:secret@host/db",
        "mysql://user:secret@host/db",
    ],
)
async def test_an_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as refused:
        await open_store(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("fotahook.store.postgres")]:
        monkeypatch.delitem(sys.modules, module)
    # The import replaces it, and later tests want this one.
    monkeypatch.setattr(store_package, "postgres", store_package.postgres)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ImportError, match=r"pip install 'fotahook\[postgres\]'"):
        await open_store("postgresql://127.0.0.1/db")


async def test_the_error_for_a_missing_server_has_no_password(postgres_server: Server) -> None:
    place = f"127.0.0.1:{unused_port()}/db"
    url = f"postgresql://user:secret@{place}?sslpassword=secret"
    with pytest.raises(StoreUnavailable) as unavailable:
        await open_store(url)
    text = str(unavailable.value)
    assert text.startswith(f"cannot open the store postgresql://{place}: PostgreSQL: ")
    assert text.endswith("; check the user, host, port and database in its URL, and that the server runs")
    assert "secret" not in text


async def test_a_missing_database_is_named(postgres_server: Server) -> None:
    with pytest.raises(StoreUnavailable, match='"absent" does not exist'):
        await open_store(postgres_server.url.replace("/postgres", "/absent"))


async def test_check_fails_on_a_read_only_server(store: Store, store_url: str) -> None:
    """Like a standby."""
    await store.check()
    standby = await open_store(f"{store_url}&default_transaction_read_only=on")
    with pytest.raises(StoreUnavailable, match="read-only transaction"):
        await standby.check()
    await standby.close()


@pytest.mark.parametrize("setting", ["off", "local"])
async def test_a_session_whose_commits_are_not_durable_is_refused(fresh_url: str, setting: str) -> None:
    """The setting `local` does not wait for a synchronous standby, so a failover would lose what was answered."""
    with pytest.raises(StoreUnavailable, match=f"synchronous_commit is {setting}"):
        await open_store(f"{fresh_url}&synchronous_commit={setting}")


async def test_a_pooler_that_shares_a_session_is_refused(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def same_backend(self: object, statement: str) -> int:
        return 7

    monkeypatch.setattr(asyncpg.Connection, "fetchval", same_backend)
    with pytest.raises(StoreUnavailable, match="pool_mode = session"):
        await open_store(fresh_url)


def test_settings_that_would_lose_or_garble_data_are_refused() -> None:
    well = {"fsync": "on", "synchronous_commit": "remote_apply", "server_encoding": "UTF8"}
    assert unsafe_settings(well) is None
    assert "fsync is off" in (unsafe_settings(well | {"fsync": "off"}) or "")
    assert "LATIN1" in (unsafe_settings(well | {"server_encoding": "LATIN1"}) or "")


async def test_every_commit_is_synced_even_if_the_servers_setting_changes(store: Store, admin: Db) -> None:
    try:
        await admin.execute("alter system set synchronous_commit = off")
        await admin.execute("select pg_reload_conf()")
        await once(lambda: admin.fetchval("select current_setting('synchronous_commit') = 'off'"))
        async with pool_of(store).connection() as db:
            assert await db.fetchval("select current_setting('synchronous_commit')") == "on"
    finally:
        await admin.execute("alter system reset synchronous_commit")
        await admin.execute("select pg_reload_conf()")


# Migrations


async def version_of(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("select max(number) from fotahook_migrations")
    finally:
        await connection.close()


async def test_concurrent_starts_migrate_once(fresh_url: str) -> None:
    stores = await asyncio.gather(*(open_store(fresh_url) for _ in range(4)))
    for store in stores:
        await store.close()
    assert await version_of(fresh_url) == load_migrations("postgres")[-1].number


async def test_a_store_of_a_newer_version_is_left_alone(store: Store, store_url: str, admin: Db) -> None:
    await admin.execute("insert into fotahook_migrations (number) values (9999)")
    with pytest.raises(StoreUnavailable, match="newer fotahook"):
        await open_store(store_url)


async def test_a_search_path_without_a_schema_is_refused(postgres_server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="no schema has been selected"):
        await open_store(f"{postgres_server.url}?search_path=absent")


# While the server is down


async def test_a_restarted_server_is_used_again(
    postgres_server: Server, registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    lease = await lease_after(registered, accept)
    postgres_server.stop()
    try:
        for call in (accept(b"{}"), registered.lease(1, 30), registered.settle(lease, [], WELL, keep=0)):
            with pytest.raises(StoreUnavailable):
                await call
    finally:
        postgres_server.start()
    assert await registered.settle(lease, [], WELL, keep=0) is None
    assert len(await accept(b"{}")) == 1


async def lease_after(store: Store, accept: Accept) -> Lease:
    await accept(b"{}")
    return await lease_one(store)


async def test_what_was_accepted_survives_a_server_that_is_killed(
    postgres_server: Server, registered: Store, accept: Accept
) -> None:
    ids = [accepted.id for accepted in await accept(*(b"%d" % number for number in range(50)))]
    in_hand = asyncio.gather(*(accept(b"x") for _ in range(10)), return_exceptions=True)
    await asyncio.sleep(0)
    postgres_server.stop(signal.SIGKILL)
    try:
        outcomes = await in_hand
    finally:
        postgres_server.start()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, StoreUnavailable)
        else:
            ids += [accepted.id for accepted in outcome]
    for message_id in ids:
        assert await registered.message(message_id) is not None


@pytest.mark.usefixtures("impatient")
async def test_calls_to_an_unresponsive_server_time_out(
    postgres_server: Server, store_url: str, clock: VirtualClock
) -> None:
    store = await open_store(store_url, clock=clock)
    postgres_server.freeze()
    try:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await store.accept([MESSAGE])
            with pytest.raises(StoreUnavailable):
                await open_store(store_url)
    finally:
        postgres_server.thaw()
    assert len(await store.accept([MESSAGE])) == 1
    postgres_server.freeze()
    try:
        async with asyncio.timeout(DEADLINE):
            await store.close()
    finally:
        postgres_server.thaw()


@pytest.mark.usefixtures("impatient")
async def test_a_slow_statement_times_out(store: Store, registered: Store) -> None:
    async with pool_of(store).connection() as db:
        with pytest.raises(StoreUnavailable, match="statement timeout"), connection_module.translated():
            await db.execute("select pg_sleep(10)", timeout=5)
    assert await store.callback(ACCOUNT) is not None


@pytest.mark.usefixtures("impatient")
async def test_a_lane_that_somebody_keeps_locked_makes_the_store_unavailable(registered: Store, admin: Db) -> None:
    async with admin.transaction():
        await admin.execute("select from lanes for update")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await registered.accept([MESSAGE])
    assert len(await registered.accept([MESSAGE])) == 1


async def test_an_exhausted_pool_makes_the_store_unavailable(
    registered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contextlib.AsyncExitStack() as taken:
        for _ in range(connection_module.POOL_SIZE):
            await taken.enter_async_context(pool_of(registered).connection())
        with monkeypatch.context() as impatient:
            impatient.setattr(connection_module, "ACQUIRE_SECONDS", 0.1)
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await registered.callback(ACCOUNT)
    assert await registered.callback(ACCOUNT) is not None


@pytest.mark.usefixtures("impatient")
async def test_closing_does_not_wait_forever_for_a_running_call(registered: Store) -> None:
    async with pool_of(registered).connection() as db:
        await registered.close()
        with pytest.raises(StoreUnavailable), connection_module.translated():
            await db.fetchval("select 1")


async def test_a_closed_store_can_be_closed_again(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.message("m")


# Failures of single calls


async def test_a_full_disk_fails_only_the_call_that_needs_space(registered: Store, admin: Db) -> None:
    await admin.execute(
        "create function disk() returns trigger language plpgsql as $$ begin"
        " if new.size > 100 then raise 'could not extend file' using errcode = 'disk_full'; end if; return new;"
        " end $$; create trigger disk before insert on messages for each row execute function disk()"
    )
    large = msgspec.structs.replace(MESSAGE, body=b"x" * 1000)
    first, full, second = await asyncio.gather(
        registered.accept([MESSAGE]),
        registered.accept([MESSAGE, large]),
        registered.accept([MESSAGE]),
        return_exceptions=True,
    )
    assert isinstance(full, StoreFull)
    assert "could not extend file" in str(full)
    assert not isinstance(first, BaseException)
    assert not isinstance(second, BaseException)
    assert (await registered.lanes(ACCOUNT))[0].pending == 2


async def test_text_that_cannot_be_stored_fails_only_its_own_call(registered: Store) -> None:
    broken, surrogate = (msgspec.structs.replace(MESSAGE, type=text) for text in ("a\0b", "\ud800"))
    first, *refused = await asyncio.gather(
        *(registered.accept([message]) for message in (MESSAGE, broken, surrogate)), return_exceptions=True
    )
    assert not isinstance(first, BaseException)
    assert [type(each) for each in refused] == [StoreError, StoreError]


async def test_the_outcome_of_a_hostile_receiver_can_always_be_written(registered: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 1)
    hostile = settled(delivery)
    hostile = msgspec.structs.replace(
        hostile, attempt=msgspec.structs.replace(hostile.attempt, excerpt="a\0b\ud800", url="https://x/\0", fix="\0")
    )
    await registered.settle(lease, [hostile], WELL, keep=0)
    (attempt,) = await registered.attempts(accepted.id)
    assert (attempt.excerpt, attempt.url, attempt.fix) == ("a\ufffdb\ufffd", "https://x/\ufffd", "\ufffd")


# Sharing


async def test_concurrent_calls_share_a_transaction(registered: Store, accept: Accept, admin: Db) -> None:
    await asyncio.gather(*(accept(b"{}") for _ in range(200)))
    transactions = await admin.fetchval("select count(distinct xmin::text) from messages")
    assert transactions <= 2


async def test_concurrent_processes_accept_and_settle_side_by_side(
    registered: Store, other: Store, clock: VirtualClock
) -> None:
    accounts = [f"account-{number}" for number in range(10)]
    messages = [NewMessage(account=account, body=b"{}", consumers=("c",)) for account in accounts]
    await asyncio.gather(*(store.accept(messages[::step]) for store in (registered, other) for step in (1, -1) * 5))
    seen = 0
    while found := await asyncio.gather(registered.lease(3, 30), other.lease(3, 30)):
        if not any(found):
            break
        assert not {lease.lane for lease in found[0]} & {lease.lane for lease in found[1]}
        for store, leases in zip((registered, other), found, strict=True):
            for lease in leases:
                deliveries = await store.fetch(lease, 100)
                seen += len(deliveries)
                await store.settle(lease, [settled(each) for each in deliveries], WELL, keep=0)
    assert seen == 200


async def test_an_idempotency_key_that_another_process_is_storing_is_waited_for(registered: Store, admin: Db) -> None:
    message = msgspec.structs.replace(MESSAGE, idempotency_key="k", consumers=("here",))
    async with admin.transaction():
        await admin.execute(
            "insert into messages (id, account, idempotency_key, size, sha256, accepted_at)"
            " values ('first', $1, 'k', 2, sha256('{}'), 0)",
            ACCOUNT,
        )
        accepting = asyncio.ensure_future(registered.accept([message, MESSAGE]))
        await once(lambda: admin.fetchval("select exists (select from pg_locks where not granted)"))
    first, second = await accepting
    assert (first.id, first.duplicate, first.conflict, second.duplicate) == ("first", True, False, False)


async def test_a_lane_that_another_process_is_making_is_waited_for(store: Store, admin: Db) -> None:
    async with admin.transaction():
        await admin.execute("insert into lane_names (account, consumer) values ($1, '')", ACCOUNT)
        await admin.execute("insert into lanes (account, consumer, held) values ($1, '', true)", ACCOUNT)
        accepting = asyncio.ensure_future(store.accept([MESSAGE]))
        await once(lambda: admin.fetchval("select exists (select from pg_locks where not granted)"))
    await accepting
    assert len(await store.lanes(ACCOUNT)) == 1


async def test_a_transaction_rolled_back_by_a_deadlock_is_run_again(
    registered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registered.accept([msgspec.structs.replace(MESSAGE, account=account) for account in ("a", "b")])

    async def cross(first: str, second: str, reached: asyncio.Event, go_on: asyncio.Event) -> int:
        """Lock one lane, then another, while another transaction does so crosswise; how often it ran."""
        runs = 0

        async def job(db: Session) -> int:
            nonlocal runs
            runs += 1
            # From the second run on it begins with the lane that the other one holds, so that there is no second
            # deadlock: its own might be free for a moment before the other one, which waits for it, has woken up.
            for account in (first, second) if runs == 1 else (second, first):
                assert isinstance(db, PostgresSession)
                await db.connection.execute("select from lanes where account = $1 for update", account)
                reached.set()
                await go_on.wait()
            return runs

        return await registered._write(job)

    async def deadlock() -> tuple[int | BaseException, int | BaseException]:
        one, two = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(DEADLINE):
            return await asyncio.gather(cross("a", "b", one, two), cross("b", "a", two, one), return_exceptions=True)

    assert set(await deadlock()) == {1, 2}
    monkeypatch.setattr(store_module, "TRANSACTION_TRIES", 1)
    (rolled_back,) = [outcome for outcome in await deadlock() if isinstance(outcome, BaseException)]
    assert isinstance(rolled_back, StoreUnavailable)


async def test_a_locked_lane_is_left_to_others_until_it_is_late(
    registered: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await accept(b"{}")
    await registered.register("other", URL, actor="test")
    await accept(b"{}", account="other")
    async with admin.transaction():
        await admin.execute("select from lanes where account = $1 for no key update", ACCOUNT)
        (lease,) = await registered.lease(10, 30)
        assert lease.account == "other"
        clock.advance(2)
        leasing = asyncio.ensure_future(registered.lease(10, 30))
        await once(lambda: admin.fetchval("select exists (select from pg_locks where not granted)"))
    (late,) = await leasing
    assert late.account == ACCOUNT


@pytest.mark.usefixtures("impatient")
async def test_a_late_lane_that_stays_locked_does_not_cost_the_others(
    registered: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await accept(b"{}")
    await registered.register("other", URL, actor="test")
    clock.advance(2)
    await accept(b"{}", account="other")
    async with admin.transaction():
        await admin.execute("select from lanes where account = $1 for no key update", ACCOUNT)
        (lease,) = await registered.lease(10, 30)
    assert lease.account == "other"
    assert (await lease_one(registered)).account == ACCOUNT


async def test_a_full_lease_does_not_wait_for_late_lanes(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    for account in ("a", "b"):
        await registered.register(account, URL, actor="test")
        await accept(b"{}", account=account)
    clock.advance(2)
    assert len(await registered.lease(1, 30)) == 1


async def test_a_redelivery_that_another_process_runs_is_left_to_it(
    registered: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    await registered.settle(lease, [settled(one, "dead") for one in await registered.fetch(lease, 10)], WELL, keep=0)
    assert await registered.redeliver_all(ACCOUNT, "dead", since=0, until=clock() + 1) == 1
    async with admin.transaction():
        await admin.execute("select from redeliveries for update")
        assert await registered.tidy(Retention()) is False
    assert await registered.tidy(Retention()) is True


async def test_a_message_under_redelivery_is_not_pruned(
    registered: Store, accept: Accept, admin: Db, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    lease = await lease_one(registered)
    await registered.settle(lease, [settled(one) for one in await registered.fetch(lease, 10)], WELL, keep=0)
    clock.advance(10)
    async with admin.transaction():
        await admin.execute("select from messages for no key update")
        tidying = asyncio.ensure_future(registered.tidy(Retention(seconds=1)))
        await once(lambda: admin.fetchval("select exists (select from pg_locks where not granted)"))
        await admin.execute(
            "insert into pending (lane, seq, place, ready, due, born) select l.id, m.seq, m.seq, true, 0, 0"
            " from lanes l join messages m using (account)"
        )
    await tidying
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.body == b"{}"


async def test_a_copy_of_a_pruned_message_is_refused(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}")
    lease = await lease_one(registered)
    await registered.settle(lease, [settled(one) for one in await registered.fetch(lease, 10)], WELL, keep=0)
    clock.advance(10)
    while await registered.tidy(Retention(seconds=1)):
        pass
    assert await registered.redeliver(accepted.id, as_new=True) == Redelivery(refused="pruned")
    assert await registered.redeliver("nothing", as_new=True) == Redelivery(refused="unknown")


async def test_the_second_of_two_settlings_of_one_lease_builds_on_the_first(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2")
    lease = await lease_one(registered)
    found = await registered.fetch(lease, 10)
    trouble = LaneVerdict(health=Health(failures=1))
    first, second = await asyncio.gather(
        registered.settle(lease, [settled(found[0])], trouble, keep=30),
        registered.settle(lease, [settled(found[1])], WELL, keep=30),
    )
    assert first is not None
    assert second is not None
    assert (first.health.failures, second.health.failures) == (1, 0)


# Hints


async def test_a_hint_reaches_other_processes(registered: Store, other: Store, accept: Accept) -> None:
    await hint(registered)
    await hint(other)
    await quiet(other)
    waiting = asyncio.ensure_future(hint(other))
    await accept(b"{}")
    await waiting
    assert await other.due_in() == 0


async def test_a_lane_given_back_with_more_to_send_is_a_hint(registered: Store, other: Store, accept: Accept) -> None:
    await hint(registered)
    await hint(other)
    await accept(b"{}")
    lease = await lease_one(registered)
    await quiet(other)
    waiting = asyncio.ensure_future(hint(other))
    await registered.settle(lease, [], WELL, keep=0)
    await waiting


async def test_a_lost_connection_for_notifications_is_made_again(
    registered: Store, other: Store, admin: Db, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "RECONNECT_SECONDS", 0.01)
    await hint(registered)
    await hint(other)
    await quiet(registered)
    await quiet(other)
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where pid <> pg_backend_pid()"
        " and (query like 'LISTEN%' or query like '%pg_notify%' or query = 'select $1::text')"
    )
    # A store hints at work whenever it connects: it cannot know what it has missed.
    await hint(registered)
    await hint(other)
    await quiet(other)
    waiting = asyncio.ensure_future(hint(other))
    await accept(b"{}")
    await waiting


async def test_an_idle_connection_for_notifications_is_asked_for_a_sign_of_life(
    store_url: str, admin: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", 0.5)
    store = await open_store(store_url)
    asked = "select exists (select from pg_stat_activity where query = 'select $1::text')"
    try:
        await once(lambda: admin.fetchval(asked))
    finally:
        await store.close()


# The SQL files


def test_parameters_are_numbered_by_name_and_casts_are_left() -> None:
    assert number_parameters("select :a::text, :b, :a") == ("select $1::text, $2, $1", ["a", "b"])


def test_queries_are_read_by_name_without_comments() -> None:
    queries = load_queries("postgres")
    assert queries["callback"].startswith("select account")
    assert not any("--" in sql or sql.endswith(";") for sql in queries.values())


PLANS: dict[str, tuple[list[object], set[str]]] = {
    "lease": ([0.0, 50, 30.0], {"lanes_by_next", "Tid Scan"}),
    "sweep_lanes": (["", "", 50, 0.0], {"lane_names_pkey", "Backward using lanes_by_name"}),
    "lease_late": ([0.0, 50, 30.0], {"lanes_by_next", "lanes_by_id"}),
    "fetch": (
        [[1, 2], [100, 100], [1000, 1000], ["{}", "{7,8}"]],
        {"pending_ready", "messages_pkey", "bodies_pkey", "Backward using lanes_by_id"},
    ),
    "lock_lanes": (['[["a", ""]]', [1]], {"Backward using lanes_by_name", "Backward using lanes_by_id"}),
    "due_in": ([0.0], {"lanes_by_next"}),
    "promote": ([[1], ["k"], [1]], {"pending_by_key", "Backward using lanes_by_id"}),
    "old_bodies": ([1.0, 0, 200], {"bodies_pkey", "messages_pkey", "pending_pkey"}),
    "old_attempts": ([1.0, 0, 200], {"attempts_by_number", "bodies_pkey", "pending_pkey"}),
    "old_messages": ([1.0, 0, 200], {"messages_pkey", "bodies_pkey", "pending_pkey"}),
    "forget_keys": ([["a"], ["k"], [1.0]], {"messages_by_idempotency_key"}),
    "add_pending": ([[1], [1], ["k"], 1.0, [1]], {"pending_by_key", "Backward using lanes_by_id", "Tid Scan"}),
    "settle": (
        [[1], [1], [""], *[[1]] * 5, [""], [""], [1], *[[""]] * 4, [True]],
        {"pending_pkey", "Backward using lanes_by_id"},
    ),
    "keep_lanes": (
        [*[[1]] * 4, [True], *[[1]] * 3, [""], *[[1]] * 3],
        {"pending_ready", "Backward using lanes_by_id", "Tid Scan"},
    ),
    "delivery_statuses": ([[1]], {"pending_pkey", "attempts_pkey"}),
    "redeliver": ([[1], None], {"pending_by_key", "pending_pkey", "messages_pkey", "attempts_pkey"}),
    "following": (["a", 0, 9, 100], {"messages_by_account"}),
    "redeliverable": ([[1], 0.0, 1.0, "dead"], {"messages_pkey", "pending_pkey", "attempts_pkey"}),
    "messages_accepted": ([0, 9, 100], {"messages_pkey"}),
    "attempts_finished": ([0, 9, 100], {"attempts_by_number", "attempts_pkey", "messages_pkey", "lanes_by_id"}),
    "callbacks_changed": ([0, 9, 100], {"callback_history_by_number", "callback_history_pkey"}),
    "lanes_changed": ([0, 9, 100], {"lane_changes_pkey", "lanes_by_id"}),
    "remove_counts": ([1440, 1000], {"counts_pkey"}),
    "next_fine_minute": ([0, 60], {"counts_pkey"}),
    "backlog": ([], {"pending_pkey", "dead_pkey", "messages_pkey"}),
    "stats": ([60, None], {"counts_pkey"}),
}


@pytest.fixture
async def crowded(store: Store, admin: Db) -> Store:
    """A store whose tables the planner knows to be large."""
    await admin.execute(
        "insert into lanes (account, consumer, held, due) select n, '', false, n from generate_series(1, 2000) n;"
        "insert into messages (id, account, size, sha256, accepted_at)"
        " select n, n % 2000, 0, '', 0 from generate_series(1, 20000) n;"
        "insert into bodies (day, seq, body) select 0, n, '' from generate_series(1, 20000) n;"
        "insert into attempts (day, seq, lane, started_at, outcome, phases, excerpt, at, state, charged)"
        " select 0, n, n % 2000 + 1, 0, 'delivered', '', '', 0, 'delivered', 1 from generate_series(1, 20000) n;"
        "insert into pending (seq, lane, place, key, ready, due, born)"
        " select n, n % 2000 + 1, n, n % 100, true, n, 0 from generate_series(1, 20000) n;"
        "analyze lanes, messages, bodies, attempts, pending"
    )
    return store


async def plan_of(store: Store, name: str) -> str:
    async with pool_of(store).connection() as db:
        lines = await db.fetch(f"explain {STATEMENTS[name][0]}", *PLANS[name][0])
    # An index of a partition is named after the partition.
    plan = re.sub(r"_(?:default|d\d+)_", "_", "\n".join(line[0] for line in lines))
    return plan.replace("attempts_number_idx", "attempts_by_number")


@pytest.mark.parametrize("name", PLANS)
async def test_frequent_statements_use_an_index_on_small_tables(name: str, store: Store) -> None:
    check_plan(name, await plan_of(store, name))


async def test_frequent_statements_use_an_index_on_large_tables(crowded: Store) -> None:
    for name in PLANS:
        check_plan(name, await plan_of(crowded, name))


def check_plan(name: str, plan: str) -> None:
    assert not re.search("Seq Scan|Bitmap|Hash Join|hashed", plan), plan
    assert all(index in plan for index in PLANS[name][1]), plan


async def test_the_lease_and_the_fetch_read_in_the_order_of_their_index(crowded: Store) -> None:
    lease, fetch = await plan_of(crowded, "lease"), await plan_of(crowded, "fetch")
    # What is read is limited before anything is sorted.
    choice = lease[lease.index("CTE due") : lease.index("CTE taken")]
    assert choice.index("Limit") < choice.index("LockRows") < choice.index("Index Scan using lanes_by_next")
    assert "Sort" not in choice
    assert "Sort" not in fetch[fetch.index("Limit") :]


# A long snapshot, as that of pg_dump


async def pages(store: Store, name: str, *values: object) -> int:
    """The pages that a statement reads; what it writes is rolled back."""
    async with pool_of(store).connection() as db:
        undone = db.transaction()
        await undone.start()
        plan = await db.fetch(f"explain (analyze, buffers, timing off) {STATEMENTS[name][0]}", *values)
        await undone.rollback()
    hit, read = re.findall(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", "\n".join(row[0] for row in plan))[0]
    return int(hit or 0) + int(read or 0)


async def test_leasing_and_fetching_read_no_more_beside_a_long_snapshot(
    store: PostgresStore, store_url: str, admin: Db, clock: VirtualClock
) -> None:
    accounts = ("a", "b", "c")
    for account in accounts:
        await store.register(account, URL, actor="test")
    lane = await admin.fetchval("select id from lanes where account = 'a'")
    snapshot = await asyncpg.connect(store_url)
    found: list[dict[str, int]] = []
    try:
        async with snapshot.transaction(isolation="repeatable_read", readonly=True):
            await snapshot.fetch("select from lanes")
            for number in range(60):
                keys = [None, "k"] * 5
                await store.accept(
                    [NewMessage(account=account, body=b"{}", ordering_key=key) for account in accounts for key in keys]
                )
                if number in (10, 59):
                    since = store._due_since()
                    found.append(
                        {
                            "lease": await pages(store, "lease", since, 10, 30.0),
                            "due_in": await pages(store, "due_in", since),
                            "fetch": await pages(store, "fetch", [lane], [100], [1000], ["{}"]),
                            "lock_lanes": await pages(store, "lock_lanes", "[]", [lane]),
                        }
                    )
                await deliver_all(store)
                clock.advance(5)
    finally:
        await snapshot.close()
    early, late = found
    # Indexes have another level by now; what was settled is not walked over.
    assert all(late[name] <= 2 * early[name] for name in early), found


async def deliver_all(store: Store) -> None:
    """Settle what is due, a few at a time."""
    while leases := await store.lease(10, 30):
        for lease in leases:
            deliveries = await store.fetch(lease, 3)
            await store.settle(lease, [settled(each) for each in deliveries], WELL, keep=0)


# Where the search for due lanes begins


def test_the_search_for_due_lanes_begins_behind_what_was_leased() -> None:
    horizon = LeaseHorizon()
    assert horizon.since() == float("-inf")
    horizon.looked(1000.0, 1000.0)
    assert horizon.since() == 1000.0 - MARGIN_SECONDS
    horizon.looked(1010.0, 1005.0)
    assert horizon.since() == 1005.0 - MARGIN_SECONDS
    horizon.lower(float("inf"))
    assert horizon.since() == 1005.0 - MARGIN_SECONDS
    horizon.lower(500.0)
    assert horizon.since() == 500.0 - MARGIN_SECONDS
    horizon.looked(1020.0, 1020.0)
    # The clock went back.
    horizon.looked(400.0, 400.0)
    assert horizon.since() == float("-inf")


async def test_a_lane_is_leased_that_became_due_before_a_time_that_the_store_has_seen(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    assert isinstance(registered, PostgresStore)
    await accept(b"{}")
    registered._horizon.looked(clock() + 60, clock() + 60)
    assert await registered.lease(10, 30) == []
    # It notices that the clock went back.
    assert len(await registered.lease(10, 30)) == 1


async def test_the_clock_of_these_tests_stands_still_in_a_transaction_as_that_of_a_server_does(
    store: Store, store_url: str, clock: VirtualClock
) -> None:
    db = await asyncpg.connect(store_url)
    for expected in (clock(), clock() + 40):
        async with db.transaction():
            assert await db.fetchval("select store_now()") == expected
            clock.advance(40)
            assert await db.fetchval("select store_now()") == expected
    await db.close()


async def test_a_sweep_finds_lanes_that_became_due_while_the_clock_was_back(
    store: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store, PostgresStore)
    for account in ("a", "b", "c"):
        await store.register(account, URL, actor="test")
    clock.advance(50 * store_module.DAY)
    assert await store.lease(10, 30) == []
    clock.advance(-40 * store_module.DAY)
    for account in ("a", "b", "c"):
        await accept(b"{}", account=account)
    await store.pause("c")
    clock.advance(40 * store_module.DAY)
    # Nobody has looked while the clock was back.
    assert await store.lease(10, 30) == []
    monkeypatch.setattr(store_module, "SWEEP_LANES", 1)
    found: list[str] = []
    for _ in range(5):
        store._sweep_at = 0
        found += [lease.account for lease in await store.lease(10, 30)]
    assert sorted(found) == ["a", "b"]


async def test_the_limit_of_a_lease_hides_no_lane(store: Store, accept: Accept, clock: VirtualClock) -> None:
    for number in range(5):
        await store.register(f"account-{number}", URL, actor="test")
        await accept(b"{}", account=f"account-{number}")
        clock.advance(10)
    leased = [lease.account for _ in range(5) for lease in await store.lease(1, 300)]
    assert leased == [f"account-{number}" for number in range(5)]
