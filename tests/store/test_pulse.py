"""Whether a store is well, for any number of those who ask."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fotahook.store import SqliteStore
from fotahook.store.base import StoreUnavailable
from fotahook.store.health import Pulse


class Counted(SqliteStore):
    """Counts how often it was tried; away for the reason that is set, if one is."""

    tried = 0
    away: str | None = None

    async def check(self) -> None:
        self.tried += 1
        if self.away is not None:
            raise StoreUnavailable(self.away)
        await super().check()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Counted]:
    store = await Counted.open(tmp_path / "store.db")
    assert isinstance(store, Counted)
    yield store
    await store.close()


async def test_a_store_is_tried_once_in_a_while_however_many_ask(
    store: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.store.health.PAUSE_SECONDS", 3600.0)
    pulse = Pulse(store)
    assert await asyncio.gather(*(pulse.trouble() for _ in range(20))) == [None] * 20
    assert store.tried == 1


async def test_each_trouble_is_told_once(store: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.store.health.PAUSE_SECONDS", 0.0)
    told: list[str] = []
    pulse, silent = Pulse(store, tell=lambda trouble: told.append(str(trouble))), Pulse(store)
    for store.away in ("locked", "locked", "moved", None, "moved"):
        for each in (pulse, silent):
            trouble = await each.trouble()
            assert (None if trouble is None else str(trouble)) == store.away
    assert told == ["locked", "moved", "moved"]
