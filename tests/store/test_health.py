"""StoreHealth checks the store for any number of callers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fotahook.store import SqliteStore
from fotahook.store.base import StoreHealth
from fotahook.store.records import StoreUnavailable


class CountingStore(SqliteStore):
    """Counts its checks, which fail with the message that is set, if one is."""

    checks = 0
    failure: str | None = None

    async def check(self) -> None:
        self.checks += 1
        if self.failure is not None:
            raise StoreUnavailable(self.failure)
        await super().check()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    store = await CountingStore.open(tmp_path / "store.db")
    assert isinstance(store, CountingStore)
    yield store
    await store.close()


async def test_concurrent_callers_share_one_check(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.store.base.CHECK_SECONDS", 3600.0)
    health = StoreHealth(store)
    assert await asyncio.gather(*(health.error() for _ in range(20))) == [None] * 20
    assert store.checks == 1


async def test_each_error_is_reported_once(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.store.base.CHECK_SECONDS", 0.0)
    reported: list[str] = []
    reporting, silent = StoreHealth(store, on_error=lambda error: reported.append(str(error))), StoreHealth(store)
    for store.failure in ("locked", "locked", "moved", None, "moved"):
        for health in (reporting, silent):
            error = await health.error()
            assert (None if error is None else str(error)) == store.failure
    assert reported == ["locked", "moved", "moved"]
