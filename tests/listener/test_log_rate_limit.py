"""What anybody can cause to be logged is logged in full at first, and then as a number."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fotahook.contract import signing
from fotahook.listener import Listener
from fotahook.listener.requests import LOG_BURST, LOG_INTERVAL_SECONDS, LogRateLimit
from fotahook.store import SqliteStore

from .conftest import NOW, PROGRESS, SECRET, request

Make = Callable[..., Listener]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_logged_and_then_one_line_a_minute_with_the_number_of_the_rest(clock: Clock) -> None:
    limit = LogRateLimit(clock)
    assert [limit.hit(401) for _ in range(LOG_BURST + 2)] == [0] * LOG_BURST + [None] * 2
    clock.now += LOG_INTERVAL_SECONDS - 1
    assert limit.hit(401) is None
    clock.now += 1
    assert [limit.hit(401) for _ in range(3)] == [3, None, None]
    clock.now += LOG_INTERVAL_SECONDS
    assert limit.hit(401) == 2
    # Nothing was left untold for a minute.
    clock.now += LOG_INTERVAL_SECONDS
    assert [limit.hit(401) for _ in range(LOG_BURST + 1)] == [0] * LOG_BURST + [None]


def test_each_kind_is_counted_by_itself(clock: Clock) -> None:
    limit = LogRateLimit(clock)
    assert [limit.hit(404, burst=1) for _ in range(3)] == [0, None, None]
    assert limit.hit(401) == 0


def test_a_clock_that_is_set_back_does_not_silence_the_log(clock: Clock) -> None:
    limit = LogRateLimit(clock)
    assert [limit.hit(507, burst=1) for _ in range(2)] == [0, None]
    clock.now -= 3600
    assert limit.hit(507, burst=1) == 1


def test_threads_neither_log_more_nor_lose_count(clock: Clock) -> None:
    limit = LogRateLimit(clock)
    with ThreadPoolExecutor(8) as threads:
        logged = [due for due in threads.map(lambda _: limit.hit(401), range(2000)) if due is not None]
    assert logged == [0] * LOG_BURST
    clock.now += LOG_INTERVAL_SECONDS
    assert limit.hit(401) == 2000 - LOG_BURST


async def test_rejections_do_not_fill_the_log(make: Make, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    listener = make(clock=clock, secrets=[signing.format_secret(SECRET)])
    for _ in range(50):
        assert (await request(listener, PROGRESS)).status == 401
    assert len(caplog.records) == LOG_BURST
    assert "more were" not in caplog.text
    clock.now += LOG_INTERVAL_SECONDS
    assert (await request(listener, PROGRESS, client="192.0.2.7")).status == 401
    *_, logged = caplog.messages
    assert len(caplog.records) == LOG_BURST + 1
    assert logged.startswith("rejected a message with 401 from 192.0.2.7: ")
    assert logged.endswith(" (45 more responses with 401 since the last such line)")


async def test_a_full_inbox_does_not_fill_the_log(make: Make, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    listener = make(clock=clock)
    large = b'"' + b"x" * 100_000 + b'"'
    async with listener.running():
        handling = await listener._inbox.open()
        assert isinstance(handling.store, SqliteStore)
        await handling.store._writer.run(lambda db: db.execute("pragma max_page_count = 1"))
        caplog.clear()
        for _ in range(20):
            assert (await request(listener, large)).status == 507
        clock.now += LOG_INTERVAL_SECONDS
        assert (await request(listener, large)).status == 507
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == LOG_BURST + 1
    assert logged[0].getMessage().startswith("the inbox is full: ")
    assert logged[-1].getMessage().endswith(" (15 more responses with 507 since the last such line)")
