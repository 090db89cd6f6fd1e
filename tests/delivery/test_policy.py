"""The policy decides alone: no clock, no store, no chance but what is handed in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.delivery.outcomes import FIXES, Outcome, code_of_status, failure_of
from fotahook.delivery.policy import DAY, HOUR, Decision, Rules, decide, expired
from fotahook.store.records import Delivery, Health

from .conftest import DELIVERED, a_delivery, failed

RULES = Rules()


def decided(
    outcome: Outcome,
    delivery: Delivery | None = None,
    health: Health | None = None,
    *,
    others_succeeded: bool = False,
    jitter: float = 1.0,
) -> Decision:
    return decide(
        outcome,
        delivery or a_delivery(),
        health or Health(),
        others_succeeded=others_succeeded,
        jitter=jitter,
        rules=RULES,
    )


# Endpoint or message


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert code_of_status(status) == "delivered"


@pytest.mark.parametrize(
    "code",
    [
        *("dns_error", "connection_refused", "connection_failed", "connection_lost", "blocked_address", "redirect"),
        *("tls_untrusted", "tls_expired", "tls_wrong_host", "tls_failed", "response_invalid", "response_cut_off"),
        *("timeout_connect", "timeout_response", "response_too_slow", "url_invalid"),
        *("http_408", "http_429", "http_502", "http_503", "http_504"),
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
    decision = decided(DELIVERED, health=Health(failures=5, window=1, refused=9, reason="dns_error"))
    assert decision.state == "delivered"
    assert decision.health == Health(failures=0, window=2, refused=0, reason=None)


def test_the_window_doubles_with_each_round_up_to_the_lanes_limit() -> None:
    health, rounds = Health(), []
    for _ in range(5):
        for _ in range(health.window):
            health = decided(DELIVERED, health=health).health
        rounds.append(health.window)
    assert rounds == [2, 4, 8, 8, 8]


# Endpoint failures


def test_an_endpoint_failure_backs_off_the_lane_and_uses_up_no_retry() -> None:
    decision = decided(failed("connection_refused"), a_delivery(attempts=2), Health(window=8))
    assert (decision.state, decision.attempts, decision.strikes) == ("pending", 2, 1)
    assert (decision.wait, decision.delay) == (5, 5)
    assert decision.health == Health(failures=1, window=1, reason="connection_refused")


def test_the_backoff_doubles_from_five_seconds_to_an_hour() -> None:
    waits = [decided(failed("dns_error"), health=Health(failures=n)).wait for n in range(12)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


def test_the_jitter_is_full() -> None:
    assert decided(failed("dns_error"), health=Health(failures=3), jitter=0.0).wait == 0
    assert decided(failed("dns_error"), health=Health(failures=3), jitter=0.5).wait == 20


def test_retry_after_is_honoured_up_to_the_cap() -> None:
    assert decided(failed("http_503", retry_after=77)).wait == 77
    assert decided(failed("http_429", retry_after=10 * HOUR)).wait == HOUR
    assert decided(failed("http_503", retry_after=-3)).wait == 0


def test_a_failure_of_one_message_while_others_succeed_uses_up_its_retry() -> None:
    decision = decided(failed("timeout_response"), health=Health(window=8), others_succeeded=True)
    assert (decision.attempts, decision.wait, decision.delay) == (1, 0, 5)
    assert decision.health == Health(window=8)


def test_a_message_that_fails_again_in_a_recovered_lane_uses_up_a_retry() -> None:
    assert decided(failed("timeout_response"), a_delivery(strikes=1), Health()).attempts == 1
    assert decided(failed("timeout_response"), a_delivery(strikes=1), Health(failures=1)).attempts == 0


@pytest.mark.parametrize("outcome", [failed("http_429"), failed("http_503", retry_after=9)])
def test_a_request_to_slow_down_never_uses_up_a_retry(outcome: Outcome) -> None:
    decision = decided(outcome, a_delivery(strikes=3), Health(window=8), others_succeeded=True)
    assert decision.attempts == 0
    assert decision.wait > 0


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
    assert not expired(a_delivery(age=7 * DAY - 1), RULES)
    assert expired(a_delivery(age=7 * DAY), RULES)


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
    window=st.integers(1, 8),
    refused=st.integers(0, 10**6),
    reason=st.none() | st.just("dns_error"),
)


@given(outcomes, deliveries, healths, st.booleans(), st.floats(0, 1))
def test_the_policy_is_total_and_within_its_bounds(
    outcome: Outcome, delivery: Delivery, health: Health, others_succeeded: bool, jitter: float
) -> None:
    decision = decided(outcome, delivery, health, others_succeeded=others_succeeded, jitter=jitter)
    assert 0 <= decision.wait <= RULES.backoff_cap
    assert 0 <= decision.delay <= max(RULES.schedule)
    assert 1 <= decision.health.window <= RULES.in_flight
    assert decision.attempts - delivery.attempts in (0, 1)
    # Nothing is given up before its schedule is used up, and only success is called delivered.
    assert decision.state != "dead" or decision.attempts >= len(RULES.schedule)
    assert (decision.state == "delivered") == (outcome.code == "delivered")


@given(outcomes, deliveries, healths, st.booleans(), st.floats(0, 1))
def test_a_failing_lane_probes_with_one(
    outcome: Outcome, delivery: Delivery, health: Health, others_succeeded: bool, jitter: float
) -> None:
    decision = decided(outcome, delivery, health, others_succeeded=others_succeeded, jitter=jitter)
    if decision.health.failures > health.failures:
        assert decision.health.window == 1
        assert decision.attempts == delivery.attempts
