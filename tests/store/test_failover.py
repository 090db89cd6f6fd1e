"""Several servers in one URL: the store follows the one that accepts writes, and never goes back to a former one."""

import asyncio
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar
from unittest.mock import ANY

import asyncpg
import pytest

from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.events import Backlog
from fotahook.store.postgres import servers
from fotahook.store.postgres.servers import Address, NotPrimary, Servers, addresses_of
from fotahook.store.records import NewMessage, StoreUnavailable
from tests.deadlines import DEADLINE
from tests.postgres import Pair, Server

T = TypeVar("T")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach."""
    with tempfile.TemporaryDirectory(prefix="fotahook-postgres-") as name:
        yield Path(name)


@pytest.fixture
def pair(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        yield pair
    finally:
        for server in (pair.standby, pair.primary):
            server.stop(signal.SIGKILL)


@pytest.fixture
async def followed(pair: Pair) -> AsyncIterator[Store]:
    store = await open_store(pair.url)
    await pair.make_synchronous()
    try:
        yield store
    finally:
        await store.close()


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """The result of a call that is repeated while the store is unavailable, as a publisher does."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u:p@a:1,b:2/db", [("a", 1), ("b", 2)]),
        ("postgresql://u:p@a,b:2/db", [("a", 5432), ("b", 2)]),
        ("postgresql://[::1]:7,[fe80::1]/db", [("::1", 7), ("fe80::1", 5432)]),
        ("postgresql:///db?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///db?host=a,b&port=9", [("a", 9), ("b", 9)]),
        ("postgresql:///db?host=%2Frun%2Fpostgresql", [("/run/postgresql", 5432)]),
        ("postgresql:///db", []),
    ],
)
def test_both_spellings_of_several_servers_are_read(url: str, found: list[tuple[str, int]]) -> None:
    assert addresses_of(url) == [Address(*one) for one in found]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:secret@a/db", "postgresql://u:secret@a:x/db", "postgresql://u:secret@a:0/db",
        "postgresql:///db?host=a,b&port=1,2,3&password=secret", "postgresql://u:secret@[a/db", "postgresql://a:70000/db",
        # asyncpg ends the password at the first @, and would connect to another host than we looked at.
        "postgresql://u:sec@secret@127.0.0.1:5432/db", "postgresql://u:sec@secret@a,b/db",
    ],
)  # fmt: skip
def test_what_is_no_url_of_servers_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL of a PostgreSQL server") as refused:
        addresses_of(url)
    assert "secret" not in str(refused.value)
    assert "(an @ as %40)" in str(refused.value)


@pytest.mark.parametrize("trouble", ["frozen", "killed"])
async def test_a_store_follows_the_promotion_of_the_standby(
    pair: Pair, followed: Store, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (before,) = await followed.accept([NewMessage(account="a", body=b"1")])
    if trouble == "frozen":
        pair.primary.freeze()
    else:
        pair.primary.stop(signal.SIGKILL)
    hanging = asyncio.create_task(followed.accept([NewMessage(account="a", body=b"2")]))
    await asyncio.to_thread(pair.standby.promote)
    (after,) = await eventually(lambda: followed.accept([NewMessage(account="a", body=b"3")]))
    # The call that hung was ended, long before its own time was over.
    await asyncio.wait([hanging], timeout=DEADLINE)
    assert isinstance(hanging.exception(), StoreUnavailable)
    assert await followed.message(before.id) is not None
    assert await followed.message(after.id) is not None
    # A frozen server never closes its connections.
    assert ("the store's server was replaced" in caplog.text) is (trouble == "frozen")


async def test_a_primary_that_nobody_missed_is_left_for_the_promoted_standby(
    pair: Pair, followed: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(pair.standby.promote)
    # No standby confirms what the former primary commits.
    (after,) = await eventually(lambda: followed.accept([NewMessage(account="a", body=b"1")]))
    assert "the store's server was replaced" in caplog.text
    # Nor does one go there that starts now.
    started = await open_store(pair.url)
    assert await started.message(after.id) is not None
    await started.close()


async def test_a_former_primary_that_comes_back_is_left_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Servers(pair.url)
    (await followed.connect()).terminate()
    pair.primary.stop(signal.SIGKILL)
    await asyncio.to_thread(pair.standby.promote)
    (await followed.connect()).terminate()
    pair.primary.start()
    for _ in range(5):
        found = await followed.connect()
        assert await found.fetchval("select inet_server_port()") == pair.standby.port
        found.terminate()
    pair.standby.stop(signal.SIGKILL)
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 1.5)
    with pytest.raises(TimeoutError):
        await followed.connect()


async def test_a_connection_that_is_found_and_not_needed_is_closed(postgres_server: Server) -> None:
    async def find() -> servers.Connection:
        connection: servers.Connection = await asyncpg.connect(postgres_server.url)
        return connection

    found, late = asyncio.create_task(find()), asyncio.create_task(asyncio.sleep(DEADLINE, None))
    await found
    await servers.discard([found, late])  # type: ignore[list-item]  # it finds nothing
    assert found.result().is_closed()
    assert late.cancelled()


async def test_without_a_primary_there_is_no_connection(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 1.0)
    pair.primary.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{pair.standby.port}/postgres"):
        await open_store(pair.url)
    pair.standby.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable, match="Connect call failed"):
        await open_store(pair.url)
    assert issubclass(NotPrimary, OSError)


async def test_a_server_that_restarts_is_followed(folder: Path) -> None:
    server = Server(folder)
    server.start()
    store = await open_store(server.url)
    try:
        await store.accept([NewMessage(account="a", body=b"1")])
        server.stop(signal.SIGKILL)
        server.start()
        await eventually(lambda: store.accept([NewMessage(account="a", body=b"2")]))
        assert await store.backlog() == Backlog(pending=2, dead=0, oldest_age=ANY)
    finally:
        await store.close()
        server.stop(signal.SIGQUIT)
