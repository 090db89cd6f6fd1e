"""Each alert that the documentation recommends fires when what it is about happens, and not before."""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fotahook.service import Settings, build_app
from fotahook.service.metrics import Metrics
from fotahook.store import SqliteStore
from fotahook.store.records import Attempt, Health, LaneVerdict, NewMessage, Settlement, StoreFull

from .conftest import ACCOUNT, URL, Answer, FakeClock, ask
from .serving import SECRET_KEY

Samples = dict[str, float]


class Operated:
    """A service, its store, and what Prometheus would have read from it."""

    def __init__(self, store: SqliteStore, clock: FakeClock) -> None:
        metrics = Metrics(clock=clock, monotonic=clock)
        self.clock, self.file = clock, store
        self.store = metrics.around(store)
        self._app = build_app(self.store, Settings(secret_key=SECRET_KEY, clock=clock), metrics=metrics)
        self.scrapes: list[Samples] = []

    async def ready(self) -> Answer:
        return await ask(self._app, "GET", "/readyz")

    async def scrape(self) -> Samples:
        # The results of health checks and of counts are kept for seconds.
        self.clock.advance(60)
        self._health_is_due()
        text = (await ask(self._app, "GET", "/metrics")).body.decode()
        samples = {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        self.scrapes.append(samples)
        return samples

    def rate(self, name: str) -> float:
        return self.scrapes[-1].get(name, 0.0) - self.scrapes[-2].get(name, 0.0)

    def _health_is_due(self) -> None:
        for resource in self._app.resources.values():
            resource._service.store_health._checked_at = float("-inf")


@pytest.fixture
async def operated(store: SqliteStore, clock: FakeClock) -> Operated:
    operated = Operated(store, clock)
    await operated.store.register(ACCOUNT, URL, actor="test")
    await operated.scrape()
    return operated


def is_down(operated: Operated) -> bool:
    return operated.scrapes[-1]["fotahook_store_up"] == 0


def is_late(operated: Operated) -> bool:
    return operated.scrapes[-1]["fotahook_oldest_undelivered_seconds"] > 3600


def has_dead(operated: Operated) -> bool:
    return operated.rate("fotahook_messages_dead_total") > 0


def stands_still(operated: Operated) -> bool:
    return operated.rate("fotahook_leases_total") == 0 and operated.scrapes[-1]["fotahook_backlog/pending"] > 0


def is_slow(operated: Operated) -> bool:
    """Whether the bucket that holds 99 % of the commits ends above half a second."""
    count = operated.rate("fotahook_store_commit_seconds_count/accept")
    return count > 0 and operated.rate("fotahook_store_commit_seconds_bucket/0.5/accept") < 0.99 * count


async def fill(operated: Operated) -> None:
    await operated.file._writer.run(lambda db: db.execute("pragma max_page_count = 1"))
    with suppress(StoreFull):
        while True:
            await operated.store.accept([NewMessage(account=ACCOUNT, body=b"x" * 1000)])


async def make_read_only(operated: Operated) -> None:
    await operated.file._writer.run(lambda db: db.execute("pragma query_only = on"))


async def fail_for_an_hour(operated: Operated) -> None:
    await operated.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    operated.clock.advance(3601)


async def give_up(operated: Operated) -> None:
    await operated.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    (lease,) = await operated.store.lease(1, 30)
    (delivery,) = await operated.store.fetch(lease, 1)
    attempt = Attempt(started_at=1.0, url=URL, outcome="failed", error_code="http_500")
    dead = Settlement(delivery=delivery, state="dead", attempts=1, strikes=0, attempt=attempt)
    await operated.store.settle(lease, [dead], LaneVerdict(health=Health()), keep=0)


async def deliver_nothing(operated: Operated) -> None:
    await operated.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])


async def write_slowly(operated: Operated) -> None:
    accept = operated.file.accept

    async def slow(messages: list[NewMessage]) -> object:
        accepted = await accept(messages)
        operated.clock.advance(0.7)
        return accepted

    operated.file.accept = slow  # type: ignore[assignment, method-assign]  # a disk that takes its time
    await operated.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])


Condition = Callable[[Operated], bool]
Trouble = Callable[[Operated], Awaitable[None]]

ALERTS: dict[str, tuple[Condition, tuple[Trouble, ...]]] = {
    "`fotahook_store_up == 0` for a minute": (is_down, (fill, make_read_only)),
    "`fotahook_oldest_undelivered_seconds > 3600`": (is_late, (fail_for_an_hour,)),
    "`rate(fotahook_messages_dead_total[15m]) > 0`": (has_dead, (give_up,)),
    '`rate(fotahook_leases_total[5m]) == 0` while `fotahook_backlog{state="pending"} > 0`': (
        stands_still,
        (deliver_nothing,),
    ),
    "`histogram_quantile(0.99, rate(fotahook_store_commit_seconds_bucket[5m])) > 0.5`": (is_slow, (write_slowly,)),
}


@pytest.mark.parametrize(
    ("alert", "trouble"), [(alert, trouble) for alert, (_, troubles) in ALERTS.items() for trouble in troubles]
)
async def test_an_alert_fires(operated: Operated, alert: str, trouble: Trouble) -> None:
    condition, _ = ALERTS[alert]
    await operated.scrape()
    assert not condition(operated)
    await trouble(operated)
    await operated.scrape()
    assert condition(operated)


@pytest.mark.parametrize(
    ("trouble", "error"), [(fill, (503, "NOT_READY")), (make_read_only, (503, "STORE_UNAVAILABLE"))]
)
async def test_a_store_that_takes_no_writes_is_not_ready(
    operated: Operated, trouble: Trouble, error: tuple[int, str]
) -> None:
    assert (await operated.ready()).status == 200
    await trouble(operated)
    operated._health_is_due()
    assert (await operated.ready()).error == error


def test_these_are_the_alerts_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    table = page.partition("| alert | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [re.split(r" \| ", row.strip("| "))[0] for row in table.splitlines()] == list(ALERTS)
