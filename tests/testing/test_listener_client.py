"""The helpers with which users try their listeners: posting, repetition, disorder, waiting."""

import time
from pathlib import Path

import pytest

from fotahook import CallbackMessage, Listener
from fotahook.contract import signing
from fotahook.contract.messages import parse_message
from fotahook.testing import Sandbox, campaign, firmware_available, listener_client, upgrade_progress, upgrade_scheduled
from fotahook.testing.listener import Postable, _bytes


@pytest.fixture
def listener() -> Listener:
    return Listener(inbox="sqlite:///never.db", schedule=(0.0, 0.0))


def test_a_message_is_posted_and_handled(listener: Listener) -> None:
    seen: list[CallbackMessage] = []
    listener.on("upgradeProgress", status="UpgradeSuccess")(seen.append)
    with listener_client(listener) as client:
        (answer,) = client.post(upgrade_progress())
        assert client.wait_for(handled=1) == [answer.id]
    assert (answer.status, answer.duplicate, answer.error) == (200, False, None)
    assert [message.campaign_id for message in seen] == ["60b5d639-ccdc-4db8-8824-069bd94c95bf"]
    assert not Path("never.db").exists()
    assert listener.inbox == "sqlite:///never.db"


def test_a_sandbox_delivers_to_a_listener_that_is_served(listener: Listener, sandbox: Sandbox) -> None:
    seen: list[CallbackMessage] = []
    listener.on_any(seen.append)
    with listener_client(listener) as client:
        assert client.url == ""
    with listener_client(listener, serve=True) as client:
        sandbox.register("1", client.url)
        sandbox.wait_delivered(sandbox.publish("1", b'{"type": "x"}'))
        client.wait_for(handled=1)
    assert [message.kind for message in seen] == ["x"]


def test_repetitions_are_answered_and_not_shown_again(listener: Listener) -> None:
    seen: list[CallbackMessage] = []
    listener.on_any(seen.append)
    with listener_client(listener) as client:
        answers = client.post(b"1", b"2", duplicate=2)
        client.wait_for(handled=2)
    assert [answer.duplicate for answer in answers] == [False, True, True] * 2
    assert sorted(message.raw for message in seen) == [b"1", b"2"]


def test_a_campaign_may_come_in_disorder_that_a_seed_repeats(listener: Listener) -> None:
    seen: list[bytes] = []

    @listener.on_any
    async def note(message: CallbackMessage) -> None:
        seen.append(message.raw)

    messages = list(campaign("a-1", devices=1))
    for _ in range(2):
        with listener_client(listener) as client:
            client.post(*messages, reorder=1)
            client.wait_for(handled=3)
    bodies = [message.body for message in messages]
    assert seen[:3] == seen[3:]
    assert seen[:3] != bodies
    assert sorted(seen[:3]) == sorted(bodies)


def test_posts_are_proved_and_may_be_late() -> None:
    options = {"secrets": [signing.format_secret(bytes(range(32)))], "sources": ["192.0.2.0/24"]}
    with listener_client(Listener(**options)) as client:  # type: ignore[arg-type]  # two of its options
        assert [answer.status for answer in client.post(b"{}")] == [200]
        (late,) = client.post(b"[]", late=400)
    assert late.status == 401
    assert "s old, more than 300 s" in (late.error or "")


def test_waiting_in_vain_tells_why(listener: Listener) -> None:
    @listener.on_any
    async def fail(message: CallbackMessage) -> None:
        raise ValueError("the reason")

    with listener_client(listener) as client:
        with pytest.raises(TimeoutError, match=r"^0 of 1 messages are handled$"):
            client.wait_for(handled=1, timeout=0)
        client.post(b"{}")
        while not client.failures:
            time.sleep(0.002)
        with pytest.raises(TimeoutError, match="the reason"):
            client.wait_for(handled=1, timeout=0)
        assert "ValueError: the reason" in client.failures[0]
        assert client.handled == []


@pytest.mark.parametrize("message", [firmware_available(), upgrade_scheduled(), upgrade_progress()])
def test_the_messages_are_what_they_say(message: Postable) -> None:
    read = parse_message(_bytes(message))
    assert read.account_name == "0000123456-00001"
    assert read.kind == read.type
    assert read.firmware_list or read.devices[0].device_id == "990013907835573"
    assert not read.extra
