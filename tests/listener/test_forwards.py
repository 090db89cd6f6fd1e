"""Forwards: one URL, many consumers, each with lanes of its own; where they may lie, and with what they are signed."""

import asyncio
import base64
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fotahook.contract import signing
from fotahook.contract.keys import account_signing_seed, generate_secret_key, parse_secret_key, signing_seed
from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.contract.operator import Attempt
from fotahook.contract.signing import format_public_key
from fotahook.delivery import Rules
from fotahook.listener import ForwardSettings, Listener, Settings
from fotahook.listener.forwards import Forward, Forwards
from fotahook.store.records import Message
from tests.deadlines import DEADLINE
from tests.delivery.conftest import a_delivery, a_lease
from tests.ports import unused_port

from .conftest import NOW, PROGRESS, Seen, reading, request, stored

Make = Callable[..., Listener]
KEY = generate_secret_key()


class Consumer:
    """A receiver of forwards that can be down; it answers with `status`."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.status = 200
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}/in"

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator["Consumer"]:
        app = web.Application()
        app.router.add_post("/in", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
            yield self
        finally:
            await runner.cleanup()

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.seen.items]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.status == 200:
            self.seen.add(({name.lower(): value for name, value in request.headers.items()}, body))
        return web.Response(status=self.status)


@pytest.fixture
def impatient(make: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes listeners whose forwards are asked again almost at once."""
    rules = functools.partial(Rules, backoff=0.02, backoff_cap=0.02)
    monkeypatch.setattr("fotahook.listener.inbox.Rules", rules)
    return lambda **options: make(clock=time.time, **options)


def about(device: str, number: int) -> bytes:
    return b'{"accountName": "a-1", "type": "upgradeProgress", "n": %d, "upgradeProgress": {"deviceList": ' % number + (
        b'[{"deviceId": "%s"}]}}' % device.encode()
    )


async def settled(inbox: str, message_id: str) -> Message:
    """The message once nothing of it is pending."""
    async with asyncio.timeout(DEADLINE):
        while True:
            message = await stored(inbox, message_id)
            if all(placement.state != "pending" for placement in message.deliveries):
                return message
            await asyncio.sleep(0.005)


async def tried(listener: Listener, message_id: str, times: int) -> list[Attempt]:
    """The attempts at a message, once they are so many."""
    store = (await listener._inbox.open()).store
    async with asyncio.timeout(DEADLINE):
        while len(attempts := await store.attempts(message_id)) < times:
            await store.wait(0.005)
    return attempts


# Lanes of their own


async def test_every_forward_gets_every_message_in_order_although_one_is_down_for_a_while(impatient: Make) -> None:
    """The others do not wait for it."""
    up, other, down = Consumer(), Consumer(), Consumer()
    listener = impatient()
    for consumer in (up, other, down):
        listener.forward(consumer.url)
    bodies = [about(f"d-{number % 3}", number) for number in range(30)]
    async with up.up(), other.up(), listener.running():
        answers = await asyncio.gather(*(request(listener, body) for body in bodies[:3]))
        for body in bodies[3:]:
            answers.append(await request(listener, body))
        await asyncio.gather(up.seen.wait(30), other.seen.wait(30))
        assert down.bodies == []
        async with down.up():
            await down.seen.wait(30)
    assert {answer.status for answer in answers} == {200}
    for consumer in (up, other, down):
        assert sorted(consumer.bodies) == sorted(bodies)
        for device in range(3):
            mine = [body for body in consumer.bodies if body in bodies[device::3]]
            assert mine == bodies[device::3]


async def test_a_message_goes_into_the_lanes_of_all_its_consumers(make: Make, inbox: str, seen: Seen) -> None:
    listener, consumer = make(), Consumer()
    listener.on_any(seen.add)
    listener.forward(consumer.url)
    listener.forward("http://localhost:9/", types=["firmwareList"])
    listener.forward("http://localhost:9/", accounts=["a-2"])
    async with consumer.up(), listener.running():
        plain = await request(listener, about("d", 1))
        await asyncio.gather(seen.wait(1), consumer.seen.wait(1))
        message = await settled(inbox, plain.json["id"])
    ours, theirs = sorted(message.deliveries, key=lambda placement: placement.consumer, reverse=True)
    assert ours.consumer == "handlers"
    assert theirs.consumer == Forwards(Settings()).add(consumer.url, None, None)
    assert {placement.state for placement in message.deliveries} == {"delivered"}


async def test_without_handlers_only_messages_without_a_forward_have_the_handlers_lane(
    make: Make, inbox: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener, consumer = make(), Consumer()
    listener.forward(consumer.url, types=["upgradeProgress"])
    async with consumer.up(), listener.running():
        wanted = await request(listener, PROGRESS)
        unwanted = await request(listener, b'{"type": "other"}')
        await consumer.seen.wait(1)
        sent, kept = [await settled(inbox, answer.json["id"]) for answer in (wanted, unwanted)]
    assert [placement.consumer.partition(":")[0] for placement in sent.deliveries] == ["forward"]
    assert [placement.consumer for placement in kept.deliveries] == ["handlers"]
    assert "no handler for" in caplog.text


async def test_messages_that_were_not_forwarded_wait_across_restarts(impatient: Make) -> None:
    consumer, first = Consumer(), impatient()
    first.forward(consumer.url)
    async with first.running():
        answer = await request(first, PROGRESS)
    assert answer.status == 200
    without = impatient()
    async with without.running():
        # It leads nowhere now, and waits.
        (placement,) = (await stored(without.settings.inbox, answer.json["id"])).deliveries
        assert placement.state == "pending"
    again = impatient()
    again.forward(consumer.url)
    async with consumer.up(), again.running():
        await consumer.seen.wait(1)
    assert consumer.bodies == [PROGRESS]


async def test_a_lane_without_a_forward_says_what_to_do(make: Make) -> None:
    async with make()._forwards.open() as deliver:
        outcome = await deliver(a_lease(consumer="forward:gone"), a_delivery())
    assert outcome.code == "forward_missing"
    assert outcome.excerpt == "no forward has the lane forward:gone"
    assert outcome.fix == "The listener no longer has this forward: add it again; earlier attempts show its URL."


async def test_the_log_names_the_forward_that_failed_without_secrets(
    impatient: Make, caplog: pytest.LogCaptureFixture
) -> None:
    down, first = Consumer(), impatient()
    first.forward(f"{down.url}/tok-1?key=tok-2")
    async with first.running():
        answer = await request(first, PROGRESS)
        await tried(first, answer.json["id"], 1)
    assert f"message {answer.json['id']} of 0000123456-00001 to http://127.0.0.1:{down.port}: conn" in caplog.text
    assert "tok-" not in caplog.text
    caplog.clear()
    async with reading(first.settings.inbox) as store:
        before = len(await store.attempts(answer.json["id"]))
    without = impatient()
    async with without.running():
        await tried(without, answer.json["id"], before + 1)
    (forward,) = first._forwards._forwards
    assert f"of 0000123456-00001 to {forward.consumer}: forward_missing; " in caplog.text


async def test_a_receiver_that_answers_410_is_retried(impatient: Make, inbox: str) -> None:
    """A lane that is paused for good could not be resumed by anybody."""
    listener, consumer = impatient(), Consumer()
    consumer.status = 410
    listener.forward(consumer.url)
    async with consumer.up(), listener.running():
        answer = await request(listener, PROGRESS)
        attempts = await tried(listener, answer.json["id"], 2)
        consumer.status = 200
        await consumer.seen.wait(1)
    assert attempts[0].error_code == "forward_gone"
    assert attempts[0].fix is not None


# What is sent


@pytest.mark.parametrize("key", [None, KEY], ids=["made", "given"])
async def test_forwards_are_signed_with_a_key_of_the_inbox(make: Make, inbox: str, key: str | None) -> None:
    listener, consumer = make(forwarding=ForwardSettings(secret_key=key)), Consumer()
    assert listener.forward_key() is None
    listener.forward(consumer.url)
    async with consumer.up(), listener.running():
        answer = await request(listener, PROGRESS)
        ((headers, body),) = await consumer.seen.wait(1)
    kept = Path(inbox.removeprefix("sqlite:///") + ".key")
    secret = parse_secret_key(key or kept.read_text())
    assert kept.exists() == (key is None)
    public = signing.parse_public_key(format_public_key(signing_seed(secret)))
    signing.verify(headers, body, public_keys=[public], now=NOW)
    assert listener.forward_key() == format_public_key(signing_seed(secret))
    if key is None:
        # Another key would break the signatures at every consumer: it is refused, and the inbox says so.
        kept.unlink()
        replaced = make()
        replaced.forward(consumer.url)
        with pytest.raises(ValueError, match="not the one that the store was used with"):
            async with replaced.running():
                pass
        kept.write_text(base64.urlsafe_b64encode(secret).decode())
    assert listener.forward_key("a") == format_public_key(account_signing_seed(secret, "a"))
    assert (headers["webhook-id"], headers["fotahook-account"]) == (answer.json["id"], "0000123456-00001")


# Where they may lie


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("https://consumer.example/in", ()),
        ("http://127.0.0.1:9000/in", ()),
        ("http://[::1]:9000/in", ()),
        ("http://localhost:9000/in", ()),
        ("https://127.0.0.9/", ()),
        ("http://10.1.2.3/in", ("10.0.0.0/8",)),
        ("http://worker:9000/in", ("172.16.0.0/12",)),
    ],
)
async def test_a_forward_may_be_public_local_or_in_an_allowed_network(url: str, opened: tuple[str, ...]) -> None:
    forwards = Forwards(Settings(forwarding=ForwardSettings(secret_key=KEY, allow_networks=opened)))
    forwards.add(url, None, None)
    async with forwards.open():
        pass


@pytest.mark.parametrize(
    ("url", "opened", "reason"),
    [
        ("http://consumer.example/in", (), "needs https://"),
        ("http://worker:9000/in", (), "--allow-network"),
        ("https://10.1.2.3/in", (), "a private network"),
        ("https://10.1.2.3/in", ("192.168.0.0/16",), "a private network"),
        ("http://169.254.169.254/", ("10.0.0.0/8",), "link-local"),
    ],
)
async def test_other_addresses_are_refused_at_the_start(
    make: Make, url: str, opened: tuple[str, ...], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener = make(forwarding=ForwardSettings(secret_key=KEY, allow_networks=opened), accept_timeout=0.5)
    listener.forward(url)
    with pytest.raises(ValueError, match=reason):
        async with listener.running():
            pass
    # On a busy machine the time may be over before the reason is known.
    while reason not in caplog.text:
        assert (await request(listener, PROGRESS)).error == (503, "INBOX_AWAY")


async def test_a_name_that_resolves_to_this_machine_is_not_local(impatient: Make) -> None:
    """Only a URL that says so opens loopback: a foreign name's records may say anything."""
    listener = impatient()
    listener.forward("https://localtest.invalid/")
    listener.forward("http://localhost:9/")
    async with listener._forwards.open() as deliver:
        lane = next(iter(listener._forwards.urls))
        outcome = await deliver(a_lease(consumer=lane), a_delivery())
    assert outcome.code == "dns_error"
    assert not Forward(url="https://localtest.invalid/", types=None, accounts=None, consumer=lane).networks(())


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "http://user:pw@localhost/", "//x", "http://exa mple/", "https://h/#f"]
)
def test_an_invalid_url_raises_value_error(make: Make, url: str) -> None:
    with pytest.raises(ValueError, match="a forward to") as refused:
        make().forward(url)
    assert "pw" not in str(refused.value)


def test_a_refused_forward_is_named_without_the_secrets_of_its_url() -> None:
    with pytest.raises(ValueError, match="needs https") as refused:
        Forward(url="http://h.example/?token=hush", types=None, accounts=None, consumer="c").networks(())
    assert "http://h.example/?token=***" in str(refused.value)
    with pytest.raises(ValueError, match="not globally reachable") as refused:
        Forward(url="https://10.0.0.1/?token=hush", types=None, accounts=None, consumer="c").networks(())
    assert "hush" not in str(refused.value)


def test_invalid_forward_settings_raise_value_error() -> None:
    for options, reason in (
        ({"secret_key": "short"}, "base64"),
        ({"allow_networks": ("here",)}, "CIDR"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
        ({"timeout": float("inf")}, "above 0"),
    ):
        with pytest.raises(ValueError, match=reason):
            ForwardSettings(**options)
    with pytest.raises(ValueError, match="secret key"):
        ForwardSettings().key("postgresql://host/db")
    assert KEY not in repr(ForwardSettings(secret_key=KEY))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secret_key": 5}, "secret_key must be a string, not int"),
        ({"allow_networks": "10.0.0.0/8"}, "allow_networks must be a list"),
        ({"allow_networks": 5}, "allow_networks must be a list"),
        ({"allow_networks": (5,)}, "allow_networks must have only strings"),
        ({"timeout": True}, "timeout must be a number, not bool"),
        ({"timeout": "5"}, "timeout must be a number, not str"),
    ],
)
def test_forward_settings_of_the_wrong_type_raise_type_error(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=f"^{reason}"):
        ForwardSettings(**options)


def test_networks_may_be_an_iterator() -> None:
    forwarding = ForwardSettings(allow_networks=(each for each in ("10.0.0.0/8",)))  # type: ignore[arg-type]  # what is tried
    assert forwarding.allow_networks == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": 5}, "url must be a string, not int"),
        ({"types": "firmwareList"}, "types must be a list"),
        ({"types": 5}, "types must be a list"),
        ({"types": [5]}, "types must have only strings, and one of them is int"),
        ({"accounts": [None]}, "accounts must have only strings"),
    ],
)
def test_a_forward_of_the_wrong_type_raises_type_error(make: Make, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=f"^{reason}"):
        make().forward(**{"url": "https://consumer.example/", **options})


async def test_a_running_listener_accepts_no_more_forwards(make: Make) -> None:
    listener = make()
    async with listener.running():
        with pytest.raises(RuntimeError, match="is running"):
            listener.forward("https://consumer.example/")


@pytest.mark.parametrize(
    ("types", "accounts", "wants"),
    [
        (None, None, True),
        ({"upgradeProgress"}, None, True),
        ({"firmwareList"}, None, False),
        (None, {"a-1", "a-2"}, True),
        (None, {"a-2"}, False),
        ({"upgradeProgress"}, {"a-2"}, False),
        (set(), None, False),
    ],
)
def test_a_forward_may_be_limited_to_types_and_accounts(
    types: set[str] | None, accounts: set[str] | None, wants: bool
) -> None:
    message: CallbackMessage = parse_message(about("d", 1))
    forwards = Forwards(Settings())
    forwards.add("https://consumer.example/", types, accounts)
    assert bool(forwards.consumers("a-1", message)) is wants


def test_consumers_keep_their_names() -> None:
    """What waits for them in inboxes is found by these."""
    consumer = Forwards(Settings()).add("https://consumer.example/in", None, None)
    assert consumer == "forward:e97c79011f84e898"
