"""The profile of ThingSpace: what is sent again, from where, with which registration, and what is lost."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from fotahook.listener import THINGSPACE_SOURCES, Listener
from fotahook.testing import Sandbox, listener_client, upgrade_progress
from fotahook.testing.simulator.thingspace import (
    LAG_SECONDS,
    RETRY_SECONDS,
    SOURCES,
    USER_AGENT,
    Registration,
    plan,
)

ACCOUNT = "0000123456-00001"
OLD, NEW = ("user", "old-password"), ("user", "new-password")


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(profile="thingspace", seed=1) as sandbox:
        yield sandbox


def attempts(sandbox: Sandbox) -> list[tuple[int, str]]:
    return [(one.attempt, one.outcome) for one in sandbox.deliveries()]


def bodies(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in sandbox.receiver.received]


# Plans


@given(seed=st.integers(), message=st.dictionaries(st.text(), st.text()), revision=st.integers(1, 9))
def test_a_plan_follows_from_its_seed_and_message(seed: int, message: dict[str, str], revision: int) -> None:
    body = json.dumps(message).encode()
    registrations = [Registration(10.0, revision, "https://h/")]
    planned = plan(seed, body, registrations, sent_at=11.0)
    assert planned is not None
    assert planned == plan(seed, body, registrations, sent_at=11.0)
    assert RETRY_SECONDS[0] <= planned.wait <= RETRY_SECONDS[1]
    assert set(planned.addresses) <= set(SOURCES)
    headers, sent = planned.request(body, 2)
    assert headers["User-Agent"] == USER_AGENT
    assert json.loads(sent) == {
        **message,
        "requestId": planned.request_id,
        "callbackCount": 2,
        "maxCallbackThreshold": 4,
    }


def test_the_addresses_are_published_ones() -> None:
    assert {f"{address}/32" for address in SOURCES} <= set(THINGSPACE_SOURCES)


def test_half_of_the_messages_come_with_the_former_registration_for_some_minutes() -> None:
    changes = [Registration(0.0, 1, "https://old/", OLD), Registration(100.0, 2, "https://new/", NEW)]

    def share(seconds: float) -> float:
        plans = [plan(3, b'{"n": %d}' % number, changes, sent_at=100 + seconds) for number in range(200)]
        counts = Counter(each and (each.url, each.basic) for each in plans)
        return counts["https://old/", OLD] / 200

    assert 0.3 < share(1) < 0.7
    assert 0.3 < share(LAG_SECONDS[0] - 1) < 0.7
    assert share(LAG_SECONDS[1]) == 0


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ([], None),
        ([Registration(200.0, 1, "https://late/")], None),
        ([Registration(0.0, 1, "https://old/"), Registration(50.0, 2, None)], None),
        ([Registration(0.0, 1, None), Registration(50.0, 2, "https://new/")], "https://new/"),
    ],
)
def test_without_a_registration_a_message_is_dropped(changes: list[Registration], url: str | None) -> None:
    planned = plan(1, b"{}", changes, sent_at=100.0)
    assert (planned and planned.url) == url


def test_a_registration_lags_even_if_it_was_deregistered_in_between() -> None:
    changes = [Registration(0.0, 1, "https://old/"), Registration(50.0, 2, None), Registration(51.0, 3, "https://new/")]
    urls = {(plan(1, b'{"n": %d}' % number, changes, sent_at=60.0) or changes[0]).url for number in range(50)}
    assert urls == {"https://old/", "https://new/"}


# In the sandbox


def test_a_message_that_is_accepted_comes_once(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT, basic=NEW)
    sandbox.wait_delivered(sandbox.publish(ACCOUNT, upgrade_progress()))
    [received] = sandbox.receiver.received
    assert received.headers["user-agent"] == USER_AGENT
    assert received.headers["x-forwarded-for"] in SOURCES
    assert received.id == ""
    sent = received.message
    assert (sent.username, sent.password) == NEW
    assert sent.extra["callbackCount"] == 1


@pytest.mark.parametrize("status", [403, 410, 429, 503])
def test_a_message_that_is_refused_comes_once_more_and_then_never_again(sandbox: Sandbox, status: int) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.answer_deliveries(status, times=2, retry_after=5)
    before = sandbox.now()
    lost = sandbox.publish(ACCOUNT, {"n": 1})
    sandbox.drain()
    assert sandbox.now() - before >= RETRY_SECONDS[0]
    sandbox.advance(24 * 3600)
    sandbox.drain()
    assert attempts(sandbox) == [(1, f"http_{status}"), (2, f"http_{status}")]
    with pytest.raises(TimeoutError, match="is dead"):
        sandbox.wait_delivered(lost)
    # The next one comes all the same.
    sandbox.wait_delivered(sandbox.publish(ACCOUNT, {"n": 2}))
    assert [body["n"] for body in bodies(sandbox)] == [2]


def test_a_refused_message_is_delivered_by_its_second_copy(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    sandbox.faults.drop_deliveries()
    message_id = sandbox.publish(ACCOUNT, {"n": 1})
    sandbox.drain()
    sandbox.wait_delivered(message_id)
    assert [body["callbackCount"] for body in bodies(sandbox)] == [2]


def test_what_comes_while_nothing_is_registered_is_lost(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT)
    with sandbox.client() as client:
        client.software_management_callbacks_v2.deregister_callback(ACCOUNT)
    sandbox.publish(ACCOUNT, {"n": 1})
    sandbox.register(ACCOUNT)
    sandbox.wait_delivered(sandbox.publish(ACCOUNT, {"n": 2}))
    sandbox.drain()
    assert [body["n"] for body in bodies(sandbox)] == [2]


def test_after_a_rotation_both_passwords_come_for_some_minutes(sandbox: Sandbox) -> None:
    sandbox.register(ACCOUNT, basic=OLD)
    sandbox.advance(3600)
    sandbox.register(ACCOUNT, basic=NEW)
    sandbox.advance(60)
    for number in range(20):
        sandbox.publish(ACCOUNT, {"n": number})
    sandbox.drain()
    assert {body["password"] for body in bodies(sandbox)} == {OLD[1], NEW[1]}
    sandbox.advance(LAG_SECONDS[1])
    sandbox.receiver.clear()
    for number in range(20, 40):
        sandbox.publish(ACCOUNT, {"n": number})
    sandbox.drain()
    assert {body["password"] for body in bodies(sandbox)} == {NEW[1]}


def test_a_slow_answer_brings_a_second_copy_which_a_listener_takes_as_the_same(sandbox: Sandbox) -> None:
    listener = Listener(sources=["thingspace"], trusted_proxies=["127.0.0.1/32"], basic=(OLD, NEW))
    seen: list[str | None] = []
    listener.on_any(lambda message: seen.append(message.campaign_id))
    with listener_client(listener, serve=True) as client:
        sandbox.register(ACCOUNT, client.url, basic=OLD)
        sandbox.publish(ACCOUNT, upgrade_progress(campaign="c-1"))
        sandbox.drain()
        sandbox.faults.delay_deliveries(4.3)
        sandbox.publish(ACCOUNT, upgrade_progress(campaign="c-2"))
        sandbox.drain()
        client.wait_for(handled=2)
        # Without the sender's proxy the address is another one.
        assert urllib3.request("POST", client.url, body=b"{}").status == 403
    # The second copy arrives while the first is still running.
    assert [one.attempt for one in sandbox.deliveries()] == [1, 2, 1]
    assert len({json.loads(one.body)["requestId"] for one in sandbox.deliveries()}) == 2
    assert seen == ["c-1", "c-2"]


def test_another_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="choose fotahook or thingspace"):
        Sandbox(profile="verizon")  # type: ignore[arg-type]
