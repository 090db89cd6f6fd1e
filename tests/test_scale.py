"""The model of docs/scale.md, and the campaign that is simulated for it."""

import pytest
from bench import capacity, simulation
from bench.capacity import Constants, Cost, database_of, imbalance, limits, needed, per_message

FOUND = Constants(
    measured="on a day",
    accept_client=Cost(1010, 110, 20),
    accept_server=Cost(2020, 220, 40),
    deliver_client=Cost(240, 60, 42),
    deliver_server=Cost(230, 50, 32),
    log_bytes=Cost(4000, 2200, 2020),
    rows=6,
    bodies_bytes=700,
    attempts_bytes=200,
    ids_bytes=300,
    post=100,
)


def test_a_cost_goes_through_the_points_that_were_measured() -> None:
    cost = Cost(1000, 100, 20)
    assert [cost.at(count) for count in capacity.POINTS] == [1000, 100, 20]
    assert cost.at(10**0.5) == pytest.approx(550)
    assert cost.at(10**1.5) == pytest.approx(60)
    assert (cost.at(0.5), cost.at(5000)) == (1000, 20)


def test_cpu_is_added_up_where_it_is_spent() -> None:
    assert per_message(FOUND, 10, 100) == {"api": 110, "dispatcher": 142, "server": 220 + 32}


def test_processes_and_databases_grow_with_the_rate() -> None:
    calm = needed(FOUND, 10, batch=10, turn=10)
    assert (calm.api, calm.dispatchers, calm.databases, calm.server_cores) == (2, 2, 1, 1)
    assert calm.connections == 4 * capacity.POOL
    busy = needed(FOUND, 100_000, batch=10, turn=10)
    # 110 µs and 160 µs of a core of which 70 % are planned for; 270 µs on databases of 16 cores.
    assert (busy.api, busy.dispatchers, busy.databases) == (16, 23, 3)
    assert busy.server_cores <= capacity.SERVER_CORES
    assert busy.log_mb == pytest.approx(220)
    heavy = needed(FOUND, 1_000_000, batch=10, turn=10)
    assert heavy.databases == 25


def test_the_log_may_ask_for_another_database() -> None:
    wordy = Constants(
        **{name: getattr(FOUND, name) for name in Constants.__struct_fields__} | {"log_bytes": Cost(1e6, 1e6, 1e6)}
    )
    assert needed(wordy, 1000, batch=10, turn=10).databases == 8


def test_what_is_exhausted_first_comes_first() -> None:
    found = limits(FOUND, batch=10, turn=10)
    rates = [rate for _, rate in found]
    assert rates == sorted(rates)
    assert found[0][0].startswith("one process with `--role all`")
    assert found[0][1] == pytest.approx(1e6 / 270)


def test_the_page_shows_what_follows_from_the_constants() -> None:
    page = capacity.PAGE.read_text()
    assert capacity.fill(page, capacity.load()) == page
    assert all(f"<!-- {name} -->\n| " in page for name in capacity.blocks(FOUND))


def test_constants_are_written_and_read_back(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "CONSTANTS", tmp_path / "constants.json")  # type: ignore[operator]
    capacity.save(FOUND)
    assert capacity.load() == FOUND


def test_one_more_database_only_takes_accounts() -> None:
    databases = ["a", "b", "c"]
    accounts = [f"{number:010}-00001" for number in range(3000)]
    before = {account: database_of(account, databases) for account in accounts}
    after = {account: database_of(account, [*databases, "d"]) for account in accounts}
    moved = [account for account in accounts if before[account] != after[account]]
    assert {after[account] for account in moved} == {"d"}
    assert len(moved) == pytest.approx(750, rel=0.15)


def test_a_large_account_cannot_be_divided() -> None:
    even = {f"account-{number}": 1.0 for number in range(20_000)}
    assert imbalance(even, ["a", "b"]) == pytest.approx(1, abs=0.05)
    assert imbalance(even | {"large": 20_000.0}, ["a", "b"]) == pytest.approx(1.5, abs=0.05)


def test_a_simulated_campaign_delivers_all_but_what_hangs_and_is_the_same_each_time() -> None:
    first, second = (simulation.run(150, 1_500, 11) for _ in range(2))
    same = set(first) - {"seconds", "cpu_us"}
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert 0.9 * first["messages"] < first["delivered"] <= first["messages"]
    assert first["healthy p50"] < 0.2
    assert first["healthy p99"] < 2
    # What is down for half an hour is delivered once it is back, after few attempts.
    assert first["down p99"] < simulation.CAMPAIGN_SECONDS
    assert first["attempts_hanging"] < 60


def test_a_virtual_loop_says_when_nothing_will_happen() -> None:
    loop = simulation.VirtualLoop()
    try:
        with pytest.raises(RuntimeError, match="nothing will ever happen"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()
