"""Metrics, read by Prometheus's own parser, and stats."""

import math
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fotahook.service import Settings, build_app, split_metrics
from fotahook.service.metrics import Metrics
from fotahook.store import SqliteStore, Store
from fotahook.store.events import Backlog
from fotahook.store.records import Attempt, Health, LaneVerdict, NewMessage, Settlement, StoreUnavailable

from .conftest import ACCOUNT, MESSAGES, URL, Api, FakeClock, ask, client_of
from .serving import SECRET_KEY

WELL = LaneVerdict(health=Health())


class CountedStore:
    """A store that counts how often its backlog is read, and may be away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read = 0
        self.away = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    async def backlog(self) -> Backlog:
        self.read += 1
        if self.away:
            raise StoreUnavailable("away")
        return await self._store.backlog()


async def scraped(api: Api) -> Mapping[str, float]:
    answer = await api("GET", "/metrics")
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/plain; version=")
    return samples(answer.body)


def samples(text: bytes) -> Mapping[str, float]:
    """Each sample by its name and the values of its labels."""
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def attempt(store: Store, state: str, code: str | None) -> None:
    (lease,) = await store.lease(1, 30)
    delivery, *_ = await store.fetch(lease, 1)
    outcome = "delivered" if code is None else "failed"
    tried = Attempt(started_at=1.0, url=URL, outcome=outcome, error_code=code)
    settlement = Settlement(delivery=delivery, state=state, attempts=1, strikes=0, attempt=tried)  # type: ignore[arg-type]  # plain text
    await store.settle(lease, [settlement], WELL, keep=0)


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock=clock, monotonic=clock)


@pytest.fixture
def counted(store: SqliteStore) -> CountedStore:
    return CountedStore(store)


@pytest.fixture
async def measured(api: Api, counted: CountedStore, metrics: Metrics, clock: FakeClock) -> Api:
    """A service whose metrics are around its store, as those of a process that dispatches too."""
    api.store = metrics.around(counted)  # type: ignore[assignment, arg-type]  # a store in all but its class
    api.app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=clock), metrics=metrics)
    await api.store.register(ACCOUNT, URL, actor="test")
    return api


async def test_accepts_attempts_and_leases_are_counted(measured: Api, clock: FakeClock) -> None:
    for key in ("1", "2", "3", "1"):
        await measured("POST", MESSAGES, b"{}", {**measured.bearer, "Idempotency-Key": key})
    clock.advance(2)
    await attempt(measured.store, "pending", "timeout_connect")
    await attempt(measured.store, "dead", "http_500")
    await attempt(measured.store, "delivered", None)
    found = await scraped(measured)
    assert (found["fotahook_messages_accepted_total"], found["fotahook_messages_duplicate_total"]) == (3, 1)
    assert found["fotahook_attempts_total/timeout_connect"] == 1
    assert found["fotahook_attempts_total/http_500"] == 1
    assert found["fotahook_attempts_total/delivered"] == 1
    assert found["fotahook_messages_dead_total"] == 1
    assert (found["fotahook_leases_total"], found["fotahook_leased_lanes"]) == (3, 0)
    assert (found["fotahook_delivery_latency_seconds_count"], found["fotahook_delivery_latency_seconds_sum"]) == (1, 2)
    assert found["fotahook_store_commit_seconds_count/accept"] == 4
    assert found["fotahook_store_commit_seconds_count/settle"] == 3
    assert found["fotahook_store_commit_seconds_count/register"] == 1
    assert found["process_resident_memory_bytes"] > 1_000_000


async def test_the_backlog_is_that_of_the_whole_store(measured: Api, clock: FakeClock) -> None:
    await measured.store.accept([NewMessage(account=f"a{number}", body=b"{}") for number in range(3)])
    clock.advance(60)
    await measured.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    await attempt(measured.store, "dead", "http_500")
    found = await scraped(measured)
    assert (found["fotahook_backlog/pending"], found["fotahook_backlog/dead"]) == (3, 1)
    assert found["fotahook_oldest_undelivered_seconds"] == 60
    assert found["fotahook_store_up"] == 1


async def test_a_lane_is_leased_until_it_is_given_back(measured: Api) -> None:
    await measured.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    (lease,) = await measured.store.lease(1, 30)
    assert (await scraped(measured))["fotahook_leased_lanes"] == 1
    await measured.store.settle(lease, [], WELL, keep=0)
    assert (await scraped(measured))["fotahook_leased_lanes"] == 0


async def test_metrics_name_no_account(measured: Api) -> None:
    await measured.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    await attempt(measured.store, "delivered", None)
    assert ACCOUNT.encode() not in (await measured("GET", "/metrics")).body


async def test_metrics_are_served_while_the_store_is_unavailable(measured: Api, counted: CountedStore) -> None:
    counted.away = True
    found = await scraped(measured)
    assert found["fotahook_store_up"] == 0
    assert math.isnan(found["fotahook_backlog/pending"])
    assert found["fotahook_messages_accepted_total"] == 0


async def test_the_backlog_is_cached(measured: Api, counted: CountedStore, clock: FakeClock) -> None:
    for _ in range(5):
        await scraped(measured)
    assert counted.read == 1
    clock.advance(5)
    await scraped(measured)
    assert counted.read == 2


async def test_each_app_counts_for_itself(api: Api) -> None:
    other = build_app(api.store, Settings(secret_key=SECRET_KEY))
    await api("POST", MESSAGES, b"{}", api.bearer)
    assert (await scraped(api))["fotahook_messages_accepted_total"] == 1
    assert samples((await ask(other, "GET", "/metrics")).body)["fotahook_messages_accepted_total"] == 0


async def test_a_dispatcher_process_serves_metrics(api: Api, metrics: Metrics) -> None:
    app = build_app(metrics.around(api.store), Settings(secret_key=SECRET_KEY), calls=False, metrics=metrics)
    assert (await ask(app, "GET", "/v1/stats")).status == 404
    assert "fotahook_leases_total" in samples((await ask(app, "GET", "/metrics")).body)


async def test_strangers_see_no_metrics_and_others_need_a_token_for_all_accounts(api: Api) -> None:
    async def status(client: str = "192.0.2.1", **headers: str) -> int:
        return (await ask(api.app, "GET", "/metrics", headers=headers, client=client)).status

    assert await status("127.0.0.1") == await status("::1") == await status("::ffff:127.0.0.1") == 200
    # A proxy on this machine speaks for strangers.
    assert await status("127.0.0.1", **{"X-Forwarded-For": "192.0.2.1"}) == 401
    assert await status() == 401
    assert await status(**api.bearer) == 200
    assert await status(**await client_of(api, ["mine"])) == 403
    assert await status(**await client_of(api, scopes=("publish",))) == 403


async def test_metrics_with_an_address_of_their_own_are_nowhere_else(api: Api) -> None:
    settings = Settings(secret_key=SECRET_KEY, clock=api.clock, open_metrics=True)
    rest, own = split_metrics(build_app(api.store, settings))
    assert (await ask(rest, "GET", "/metrics")).status == 404
    assert (await ask(rest, "GET", "/readyz")).status == 200
    assert (await ask(own, "GET", "/metrics", client="192.0.2.1")).status == 200
    assert (await ask(own, "GET", "/readyz")).status == 200
    assert (await ask(own, "GET", "/v1/accounts", headers=api.bearer)).status == 404


# Stats


async def test_stats_are_counted_by_minute(measured: Api, clock: FakeClock) -> None:
    clock.advance(-clock() % 60)
    await measured.store.accept([NewMessage(account=ACCOUNT, body=b"{}") for _ in range(3)])
    await attempt(measured.store, "delivered", None)
    clock.advance(60)
    await attempt(measured.store, "dead", "http_500")
    await measured.sign_in()
    answer = await measured("GET", "/v1/stats?minutes=3", b"", measured.bearer)
    assert answer.json["totals"] == {"accepted": 3, "delivered": 1, "failed": 1, "dead": 1}
    before, first, second = answer.json["minutes"]
    assert before == {**first, "at": before["at"], "accepted": 0, "delivered": 0}
    assert (first["accepted"], first["delivered"], first["failed"], first["dead"]) == (3, 1, 0, 0)
    assert (second["accepted"], second["delivered"], second["failed"], second["dead"]) == (0, 0, 1, 1)
    assert first["at"] < second["at"]
    assert first["at"].endswith(":00Z")


async def test_stats_are_of_the_callers_accounts(api: Api) -> None:
    await api.store.accept([NewMessage(account=account, body=b"{}") for account in (ACCOUNT, ACCOUNT, "mine")])
    mine = await client_of(api, accounts=["mine"])
    assert (await api("GET", "/v1/stats", b"", mine)).json["totals"]["accepted"] == 1
    everything = await api("GET", "/v1/stats", b"", api.bearer)
    assert everything.json["totals"]["accepted"] == 3
    assert len(everything.json["minutes"]) == 60


@pytest.mark.parametrize("minutes", ["0", "1441", "x", "-1"])
async def test_invalid_minutes_are_refused(api: Api, minutes: str) -> None:
    answer = await api("GET", f"/v1/stats?minutes={minutes}", b"", api.bearer)
    assert answer.error == (400, "INVALID_PARAMETER")
