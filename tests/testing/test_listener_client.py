"""The helpers for tests of listeners: posting, duplicates, reordering, waiting."""

import time
from pathlib import Path

import pytest

from fotahook import CallbackMessage, Listener
from fotahook.contract import signing
from fotahook.contract.messages import parse_message
from fotahook.listener import ForwardSettings
from fotahook.listener.adapters.wsgi import WsgiListener
from fotahook.testing import (
    Forwarded,
    Sandbox,
    campaign,
    firmware_available,
    listener_client,
    upgrade_progress,
    upgrade_scheduled,
)
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
    assert listener.settings.inbox == "sqlite:///never.db"


def test_a_sandbox_delivers_to_a_served_listener(listener: Listener, sandbox: Sandbox) -> None:
    seen: list[CallbackMessage] = []
    listener.on_any(seen.append)
    with listener_client(listener) as client:
        assert client.url == ""
    with listener_client(listener, serve=True) as client:
        sandbox.register("1", client.url)
        sandbox.wait_delivered(sandbox.publish("1", b'{"type": "x"}'))
        client.wait_for(handled=1)
    assert [message.kind for message in seen] == ["x"]


def test_duplicates_are_answered_and_not_handled_again(listener: Listener) -> None:
    seen: list[CallbackMessage] = []
    listener.on_any(seen.append)
    with listener_client(listener) as client:
        answers = client.post(b"1", b"2", duplicate=2)
        client.wait_for(handled=2)
    assert [answer.duplicate for answer in answers] == [False, True, True] * 2
    assert sorted(message.raw for message in seen) == [b"1", b"2"]


def test_a_seed_determines_the_order_of_reordered_posts(listener: Listener) -> None:
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


def test_posts_are_signed_and_may_be_late() -> None:
    options = {"secrets": [signing.format_secret(bytes(range(32)))], "sources": ["192.0.2.0/24"]}
    with listener_client(Listener(**options)) as client:  # type: ignore[arg-type]  # two of its options
        assert [answer.status for answer in client.post(b"{}")] == [200]
        (late,) = client.post(b"[]", late=400)
    assert late.status == 401
    assert "s old, more than 300 s" in (late.error or "")


def test_a_listener_with_public_keys_only_verifies_posts(sandbox: Sandbox) -> None:
    listener = Listener(public_keys=[sandbox.public_key])
    before = listener.settings.verification
    with listener_client(listener, serve=True) as client:
        assert [answer.status for answer in client.post(b"{}")] == [200]
        assert [answer.status for answer in client.post(b"[]", late=400)] == [401]
        sandbox.register("1", client.url)
        sandbox.wait_delivered(sandbox.publish("1", b'{"type": "x"}'))
    assert listener.settings.verification == before


def test_a_listener_with_keys_of_one_account_verifies_posts(sandbox: Sandbox) -> None:
    listener = Listener(public_keys=[f"1={sandbox.account_key('1')}"])
    with listener_client(listener, serve=True) as client:
        assert [answer.status for answer in client.post(b"{}")] == [200]
        sandbox.register("1", client.url)
        sandbox.wait_delivered(sandbox.publish("1", b'{"accountName": "1"}'))


def test_a_secret_takes_precedence_over_public_keys() -> None:
    public = signing.format_public_key(bytes(32))
    listener = Listener(secrets=[signing.format_secret(bytes(range(32)))], public_keys=[public])
    with listener_client(listener) as client:
        assert listener.settings.verification.public_keys == (signing.parse_public_key(public),)
        assert [answer.status for answer in client.post(b"{}")] == [200]


# Forwards


def test_forwards_are_recorded_and_not_sent(listener: Listener, sandbox: Sandbox) -> None:
    other = "https://billing.example/fota"
    listener.forward(sandbox.receiver.url)
    listener.forward(other, types=["firmwareList"])
    messages = [b'{"accountName": "1", "type": "%s", "firmwareList": []}' % kind for kind in (b"x", b"firmwareList")]
    with listener_client(listener) as client:
        first, second = client.post(*messages)
        assert client.wait_for(forwarded=3) == []
        assert client.handled == client.failures == []
    ours = [one for one in client.forwarded if one.url != other]
    assert ours == [
        Forwarded(id=answer.id or "", account="1", url=sandbox.receiver.url, body=body)
        for answer, body in zip((first, second), messages, strict=True)
    ]
    assert [(one.id, one.body) for one in client.forwarded if one.url == other] == [(second.id, messages[1])]
    assert sandbox.receiver.received == []


@pytest.mark.parametrize("forwarding", [ForwardSettings(), ForwardSettings(ca_file=Path("/nowhere/production.pem"))])
def test_recorded_forwards_need_neither_an_allowed_network_nor_an_authority(forwarding: ForwardSettings) -> None:
    """As `fotahook listen --allow-network` gives in production."""
    listener = Listener(forwarding=forwarding)
    listener.forward("http://10.0.0.5/x")
    with listener_client(listener) as client:
        client.post(b"{}")
        client.wait_for(forwarded=1)
    assert [one.url for one in client.forwarded] == ["http://10.0.0.5/x"]
    with pytest.raises(ValueError, match="needs https://"), listener_client(listener, forward=True):
        pass


def test_forwards_are_sent_on_request(listener: Listener, sandbox: Sandbox) -> None:
    listener.forward(sandbox.receiver.url)
    with listener_client(listener, forward=True) as client:
        (answer,) = client.post(b"{}")
        client.wait_for(forwarded=1)
    (received,) = sandbox.receiver.received
    assert received.id == answer.id
    assert [(one.id, one.url) for one in client.forwarded] == [(answer.id, sandbox.receiver.url)]


def test_a_failed_forward_is_named_by_its_origin(listener: Listener) -> None:
    listener.on_any(lambda message: None)
    listener.forward("http://127.0.0.1:9/tok?key=tok")
    with listener_client(listener, forward=True) as client:
        client.post(b"{}")
        client.wait_for(handled=1)
        while not client.failures:
            time.sleep(0.002)
        said = r"^handled: 1; forwarded: 0 of 1; the last failure:\nforward to http://127.0.0.1:9: connection_refused: "
        with pytest.raises(TimeoutError, match=said) as raised:
            client.wait_for(forwarded=1, timeout=0)
    assert "tok" not in str(raised.value)


def test_waiting_for_missing_handlers_says_what_to_wait_for(listener: Listener) -> None:
    listener.forward("https://billing.example/fota", types=["x"])
    with listener_client(listener) as client:
        client.post(b'{"type": "x"}', b'{"type": "nobody wants it"}')
        client.wait_for(forwarded=1, handled=1)
        with pytest.raises(TimeoutError, match=r"^handled: 1 of 2; forwarded: 1; .*: wait for forwarded=$"):
            client.wait_for(handled=2, timeout=0)
        with pytest.raises(TimeoutError, match=r"^handled: 1 of 2; forwarded: 1 of 2; "):
            client.wait_for(handled=2, forwarded=2, timeout=0)
        with pytest.raises(TypeError, match="handled= or forwarded="):
            client.wait_for()


# Invalid arguments


def test_a_negative_number_of_duplicates_is_refused(listener: Listener) -> None:
    with listener_client(listener) as client:
        with pytest.raises(ValueError, match=r"duplicate=-1.*0 or more"):
            client.post(b"{}", duplicate=-1)
        assert len(client.post(b"{}", duplicate=0)) == 1


@pytest.mark.parametrize(("wrong", "named"), [(5, "int"), (time, "module"), (WsgiListener(Listener()), "WsgiListener")])
def test_anything_but_a_listener_is_refused(wrong: Listener, named: str) -> None:
    with pytest.raises(TypeError, match=f"takes a fotahook.Listener, not {named}$"), listener_client(wrong):
        pass


def test_a_listener_is_in_one_test_at_a_time(listener: Listener) -> None:
    with listener_client(listener) as client:
        with pytest.raises(RuntimeError, match="under test already"), listener_client(listener):
            pass
        client.post(b"{}")
        client.wait_for(handled=1)
    assert listener.settings.inbox == "sqlite:///never.db"


# Waiting


def test_a_timeout_gives_the_reason(listener: Listener) -> None:
    @listener.on_any
    async def fail(message: CallbackMessage) -> None:
        raise ValueError("the reason")

    with listener_client(listener) as client:
        with pytest.raises(TimeoutError, match=r"^handled: 0 of 1$"):
            client.wait_for(handled=1, timeout=0)
        client.post(b"{}")
        while not client.failures:
            time.sleep(0.002)
        with pytest.raises(TimeoutError, match="the reason"):
            client.wait_for(handled=1, timeout=0)
        assert "ValueError: the reason" in client.failures[0]
        assert client.handled == []


@pytest.mark.parametrize("message", [firmware_available(), upgrade_scheduled(), upgrade_progress()])
def test_the_contract_knows_the_single_messages(message: Postable) -> None:
    read = parse_message(_bytes(message))
    assert read.account_name == "0000123456-00001"
    assert read.kind == read.type
    assert read.firmware_list or read.devices[0].device_id == "990013907835573"
    assert not read.extra
