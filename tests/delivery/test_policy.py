"""The policy decides alone: no clock, no store, no chance but what is handed in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery.outcomes import FIXES, Outcome, code_of_status, failure_of
from fotahook.delivery.policy import DAY, GROWTH, HOUR, Decision, Rules, decide, expired, window
from fotahook.store.records import Delivery, Health

from .conftest import DELIVERED, a_delivery, failed

RULES = Rules()


def decided(
    outcome: Outcome,
    delivery: Delivery | None = None,
    health: Health | None = None,
    *,
    seconds: float = 0.1,
    saturated: bool = True,
    jitter: float = 1.0,
) -> Decision:
    return decide(
        outcome,
        delivery or a_delivery(),
        health or Health(),
        seconds=seconds,
        saturated=saturated,
        jitter=jitter,
        rules=RULES,
    )


def after(*outcomes: Outcome, health: Health | None = None, jitter: float = 1.0) -> list[Decision]:
    """What a lane decides of one outcome after the other."""
    decisions = []
    for outcome in outcomes:
        decision = decided(outcome, health=health, jitter=jitter)
        decisions.append(decision)
        health = decision.health
    return decisions


# Endpoint or message


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert code_of_status(status) == "delivered"


@pytest.mark.parametrize(
    "code",
    [
        *("dns_error", "connection_refused", "connection_failed", "connection_lost", "blocked_address", "redirect"),
        "out_of_files",
        *("tls_untrusted", "tls_expired", "tls_wrong_host", "tls_failed", "response_invalid", "response_cut_off"),
        *("timeout_connect", "timeout_response", "response_too_slow", "url_invalid"),
        *("http_408", "http_429", "http_502", "http_503", "http_504", "http_520", "http_530"),
        *("tls_client_certificate", "proxy_refused"),
    ],
)
def test_endpoint_failures(code: str) -> None:
    assert failure_of(failed(code)) == "endpoint"


@pytest.mark.parametrize(
    "code", ["http_400", "http_404", "http_413", "http_500", "http_501", "http_505", "http_599", "handler_error"]
)
def test_message_failures(code: str) -> None:
    assert failure_of(failed(code)) == "message"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_endpoint_failure(status: int) -> None:
    assert failure_of(Outcome(code=code_of_status(status), status=status)) == "endpoint"


def test_every_outcome_but_success_comes_with_a_fix() -> None:
    assert DELIVERED.fix is None
    assert all(Outcome(code=code).fix for code in FIXES)
    assert failed("http_418").fix == FIXES["http_4xx"]
    assert failed("http_599").fix == FIXES["http_5xx"]
    assert failed("http_503").fix == FIXES["http_503"]
    assert Outcome(code="unheard_of").fix is None


# Success


def test_success_resets_the_health_of_the_lane() -> None:
    decision = decided(DELIVERED, health=Health(failures=5, window=1, refused=9, reason="dns_error", failed=3.0))
    assert decision.state == "delivered"
    assert decision.health == Health(window=2, succeeded=1, latency=0.1)


def test_a_new_lane_starts_with_four_and_the_window_doubles_with_each_round_up_to_eight() -> None:
    health, rounds = Health(), []
    assert window(health, RULES) == 4
    for _ in range(4):
        for _ in range(health.window):
            health = decided(DELIVERED, health=health).health
        rounds.append(health.window)
    assert rounds == [8, 8, 8, 8]


@pytest.mark.parametrize(
    ("seconds", "saturated", "jitter", "change"),
    [(0.1, True, 0.0, 1), (0.1, True, GROWTH, 0), (0.1, False, 0.0, 0), (0.4, True, 0.0, -1), (0.4, False, 0.0, -1)],
)
def test_a_steady_window_grows_while_answers_stay_fast_and_shrinks_when_they_slow_down(
    seconds: float, saturated: bool, jitter: float, change: int
) -> None:
    health = Health(window=20, succeeded=8, latency=0.1)
    decision = decided(DELIVERED, health=health, seconds=seconds, saturated=saturated, jitter=jitter)
    assert decision.health.window == 20 + change


def test_a_window_never_exceeds_its_cap() -> None:
    assert decided(DELIVERED, health=Health(window=64), jitter=0.0).health.window == RULES.in_flight == 64


def test_a_slow_receiver_is_slow_from_the_start_and_loses_no_window_for_it() -> None:
    health = Health()
    for _ in range(100):
        health = decided(DELIVERED, health=health, seconds=14.0, jitter=0.0).health
    assert health.window == RULES.in_flight


# Endpoint failures


def test_one_failure_among_successes_costs_its_delivery_a_moment_and_nothing_else() -> None:
    health = Health(window=16, succeeded=8)
    decision = decided(failed("http_503"), a_delivery(attempts=2), health)
    assert (decision.state, decision.attempts, decision.strikes) == ("pending", 2, 1)
    assert (decision.wait, decision.delay, decision.health.failures) == (0, 1, 0)
    assert decision.health.window == 8


def test_its_retries_take_longer_each_time_and_are_charged_to_nobody_up_to_five() -> None:
    health = Health(window=8, succeeded=8)
    delays = [decided(failed("timeout_response"), a_delivery(strikes=n), health).delay for n in range(5)]
    assert delays == [1, 2, 4, 8, 16]
    sixth = decided(failed("timeout_response"), a_delivery(strikes=5), health)
    assert (sixth.attempts, sixth.delay) == (1, 5)


def test_its_jitter_is_full() -> None:
    health = Health(succeeded=8)
    assert decided(failed("dns_error"), a_delivery(strikes=3), health, jitter=0.25).delay == 2


def test_a_lane_without_history_waits_after_three_failures_in_a_row() -> None:
    decisions = after(*[failed("connection_refused")] * 3)
    assert [decision.wait for decision in decisions] == [0, 0, 5]
    assert decisions[-1].health == Health(failures=1, window=1, reason="connection_refused")


def test_a_lane_waits_when_most_of_its_recent_attempts_failed() -> None:
    decisions = after(*[failed("http_503")] * 10, health=Health(window=8, succeeded=8))
    assert [decision.wait > 0 for decision in decisions].index(True) == 5
    assert all(decision.strikes == 1 and decision.attempts == 0 for decision in decisions)


def test_no_second_round_goes_to_an_endpoint_that_just_went_down() -> None:
    """Of eight in flight that fail one after the other, none is replaced."""
    health, in_flight = Health(window=8, succeeded=8), 8
    while True:
        decision = decided(failed("connection_refused"), health=health)
        in_flight -= 1
        health = decision.health
        if decision.wait > 0:
            break
        assert window(health, RULES) <= in_flight


@given(st.lists(st.sampled_from([True] * 19 + [False]), min_size=200, max_size=200), st.randoms(use_true_random=False))
def test_a_lane_that_fails_now_and_then_goes_on(accepted: list[bool], random: object) -> None:
    health = Health(window=8, succeeded=8)
    row = 0
    for success in accepted:
        decision = decided(DELIVERED if success else failed("http_503"), health=health)
        row = 0 if success else row + 1
        health = decision.health
        if row > 3:
            return
    assert health.failures == 0


def test_the_wait_doubles_from_five_seconds_to_an_hour() -> None:
    waits = [decided(failed("dns_error"), health=Health(failures=n)).wait for n in range(1, 12)]
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


def test_the_jitter_is_full() -> None:
    assert decided(failed("dns_error"), health=Health(failures=3), jitter=0.0).wait == 0
    assert decided(failed("dns_error"), health=Health(failures=3), jitter=0.5).wait == 20


def test_retry_after_is_honoured_up_to_the_cap_and_never_shortens_the_draw() -> None:
    assert decided(failed("http_503", retry_after=77)).wait == 77
    assert decided(failed("http_429", retry_after=10 * HOUR)).wait == HOUR
    for retry_after in (-3, 0, 0.5):
        assert decided(failed("http_503", retry_after=retry_after)).wait == 5


@pytest.mark.parametrize("outcome", [failed("http_429"), failed("http_503", retry_after=9)])
def test_being_asked_to_slow_down_pauses_the_lane_halves_its_window_and_is_charged_to_nobody(outcome: Outcome) -> None:
    decision = decided(outcome, a_delivery(strikes=9), Health(window=40, succeeded=8))
    assert decision.attempts == 0
    assert decision.wait > 0
    assert decision.health.window == 20


# Message failures


def test_a_refused_message_follows_its_own_schedule_and_ends_dead() -> None:
    delays, delivery = [], a_delivery()
    while True:
        decision = decided(failed("http_400"), delivery)
        if decision.state == "dead":
            break
        delays.append(decision.delay)
        delivery = msgspec.structs.replace(delivery, attempts=decision.attempts)
    assert delays == list(RULES.schedule[1:])
    assert decision.attempts == 8


def test_a_message_failure_does_not_back_off_the_lane() -> None:
    decision = decided(failed("http_500"), health=Health(window=4))
    assert (decision.wait, decision.health) == (0, Health(window=4, refused=1))


def test_ten_different_messages_refused_in_a_row_are_an_endpoint_failure() -> None:
    health = Health(window=8)
    for _ in range(9):
        decision = decided(failed("http_404"), health=health)
        assert decision.attempts == 1
        health = decision.health
    tenth = decided(failed("http_404"), health=health)
    assert (tenth.attempts, tenth.wait, tenth.health.window) == (0, 5, 1)
    probe = decided(failed("http_404"), a_delivery(attempts=1), tenth.health)
    assert (probe.attempts, probe.wait) == (1, 10)


def test_the_same_message_refused_again_is_not_a_different_one() -> None:
    decision = decided(failed("http_404"), a_delivery(attempts=1), Health(refused=8))
    assert decision.health.refused == 8
    assert decision.state == "pending"


# Gone, expired


def test_410_pauses_the_lane_and_keeps_the_message() -> None:
    decision = decided(failed("http_410"), a_delivery(attempts=3, strikes=1), Health(window=4))
    assert (decision.state, decision.attempts, decision.strikes, decision.pause) == ("pending", 3, 1, True)
    assert decision.health.reason == "http_410"


def test_a_message_expires_at_its_time_to_live() -> None:
    assert not expired(a_delivery(age=7 * DAY - 1), RULES, 0.0)
    assert expired(a_delivery(age=7 * DAY), RULES, 0.0)
    assert not expired(a_delivery(age=7 * DAY), RULES, 1.0)


# Total


codes = st.sampled_from([*FIXES, "delivered", "unheard_of", *(f"http_{status}" for status in range(400, 600, 7))])
outcomes = st.builds(
    Outcome,
    code=codes,
    status=st.none() | st.integers(100, 999),
    retry_after=st.none() | st.floats(-1e9, 1e9),
)
deliveries = st.builds(
    lambda attempts, strikes: a_delivery(attempts=attempts, strikes=strikes),
    st.integers(0, 20),
    st.integers(0, 1000),
)
healths = st.builds(
    Health,
    failures=st.integers(0, 10**6),
    window=st.integers(1, 64),
    refused=st.integers(0, 10**6),
    reason=st.none() | st.just("dns_error"),
    succeeded=st.floats(0, 8),
    failed=st.floats(0, 8),
    latency=st.floats(0, 100),
)


@given(outcomes, deliveries, healths, st.booleans(), st.floats(0, 1), st.floats(0, 100))
def test_the_policy_is_total_and_within_its_bounds(
    outcome: Outcome, delivery: Delivery, health: Health, saturated: bool, jitter: float, seconds: float
) -> None:
    decision = decided(outcome, delivery, health, saturated=saturated, jitter=jitter, seconds=seconds)
    assert 0 <= decision.wait <= RULES.backoff_cap
    assert 0 <= decision.delay <= max(RULES.schedule)
    assert 1 <= decision.health.window <= RULES.in_flight
    assert 1 <= window(decision.health, RULES) <= RULES.in_flight
    assert decision.health.succeeded + decision.health.failed <= 17
    assert decision.attempts - delivery.attempts in (0, 1)
    # Nothing is given up before its schedule is used up, and only success is called delivered.
    assert decision.state != "dead" or decision.attempts >= len(RULES.schedule)
    assert (decision.state == "delivered") == (outcome.code == "delivered")


@given(outcomes, deliveries, healths, st.booleans(), st.floats(0, 1))
def test_a_failing_lane_uses_up_no_retry_and_probes_with_one(
    outcome: Outcome, delivery: Delivery, health: Health, saturated: bool, jitter: float
) -> None:
    decision = decided(outcome, delivery, health, saturated=saturated, jitter=jitter)
    if decision.health.failures > health.failures:
        assert decision.attempts == delivery.attempts
        asked = outcome.status == 429 or outcome.retry_after is not None
        # An endpoint that is down already is probed with one, whatever it asks for.
        is_asking = asked and health.failures == 0
        assert decision.health.window == 1 or (is_asking and decision.health.window <= health.window)
