"""Retries: which failures are retried, after which delay, and until when."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

import fotahook

from .conftest import ACCOUNT, BODY, Chunks, Clock, OpenSdk, Peer, Received, respond

LIST = "list_registered_callbacks"


def failing(peer: Peer, times: int, pieces: Chunks) -> None:
    """Make the first callback calls fail."""
    inner = peer.routes["callbacks/"]
    peer.routes["callbacks/"] = lambda seen: pieces if len(peer.calls) <= times else inner(seen)


# Which statuses are retried is a property in test_flow.
@pytest.mark.parametrize(
    ("status", "name"),
    [(408, LIST), (429, "register_callback"), (500, "update_callback"), (503, "deregister_callback")],
)
async def test_every_call_is_tried_twice_more(
    peer: Peer, open_sdk: OpenSdk, clock: Clock, status: int, name: str
) -> None:
    failing(peer, 2, respond(status))
    arguments = (ACCOUNT, BODY) if name in ("register_callback", "update_callback") else (ACCOUNT,)
    async with open_sdk() as sdk:
        assert (await sdk.call(name, *arguments)).is_success
    assert len(peer.calls) == 3
    assert clock.waits == [0.25, 0.5]


async def test_a_connection_lost_is_tried_again(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    failing(peer, 2, [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234", None])
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert len(clock.waits) == 2


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_other_refusals_stand(peer: Peer, open_sdk: OpenSdk, clock: Clock, status: int) -> None:
    peer.routes["callbacks/"] = lambda _: respond(status, {"errorCode": "INVALID_ACCESS"})
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ApiException):
            await sdk.call(LIST, ACCOUNT)
    assert clock.waits == []


async def test_retries_end(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    peer.routes["callbacks/"] = lambda _: respond(503)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ServerError):
            await sdk.call(LIST, ACCOUNT)
        assert len(peer.calls) == 3
        with pytest.raises(fotahook.ServerError):
            await sdk.call(LIST, ACCOUNT, max_retries=0)
        assert len(peer.calls) == 4
    async with open_sdk(max_retries=5) as sdk:
        with pytest.raises(fotahook.ServerError):
            await sdk.call(LIST, ACCOUNT)
    assert len(peer.calls) == 10
    assert clock.waits[2:] == [0.25, 0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("value", "wait"),
    [("7", 7.0), ("0", 0.0), ("100000", 60.0), ("soon", 0.25), ("-5", 0.25), ("Sun, 32 Foo 2026 00:00:00 GMT", 0.25)],
)
async def test_retry_after_is_honoured_up_to_a_minute(
    peer: Peer, open_sdk: OpenSdk, clock: Clock, value: str, wait: float
) -> None:
    failing(peer, 1, respond(429, b"", f"Retry-After: {value}\r\n"))
    async with open_sdk(timeout=600) as sdk:
        await sdk.call(LIST, ACCOUNT)
    assert clock.waits == [wait]


@pytest.mark.parametrize(("ahead", "wait"), [(20, 20.0), (-20, 0.0)])
async def test_retry_after_may_be_a_date(peer: Peer, open_sdk: OpenSdk, clock: Clock, ahead: int, wait: float) -> None:
    date = format_datetime(datetime.fromtimestamp(clock.time + ahead, UTC), usegmt=True)
    failing(peer, 1, respond(503, b"", f"Retry-After: {date}\r\n"))
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
    assert clock.waits == [wait]


async def test_no_wait_goes_past_the_deadline(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    peer.routes["callbacks/"] = lambda _: respond(429, b"", "Retry-After: 30\r\n")
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.RateLimited) as caught:
            await sdk.call(LIST, ACCOUNT, timeout=20)
    assert caught.value.headers["retry-after"] == "30"
    assert clock.waits == []
    assert len(peer.calls) == 1


@pytest.mark.parametrize("name", ["register_callback", "deregister_callback"])
async def test_one_idempotency_key_goes_with_all_tries_of_a_call(peer: Peer, open_sdk: OpenSdk, name: str) -> None:
    failing(peer, 2, respond(503))
    arguments = (ACCOUNT, BODY) if name == "register_callback" else (ACCOUNT,)
    async with open_sdk() as sdk:
        await sdk.call(name, *arguments)
        await sdk.call(name, *arguments)
    keys = [call.headers["idempotency-key"] for call in peer.calls]
    assert keys[0] == keys[1] == keys[2] != keys[3]


async def test_reading_needs_no_idempotency_key(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
    assert all("idempotency-key" not in seen.headers for seen in peer.seen)


@pytest.mark.parametrize("part", ["oauth2/token", "session/login"])
async def test_the_calls_for_tokens_are_tried_again_too(peer: Peer, open_sdk: OpenSdk, clock: Clock, part: str) -> None:
    inner = peer.routes[part]
    tried: list[Received] = []

    def route(seen: Received) -> Chunks:
        tried.append(seen)
        return respond(503) if len(tried) < 3 else inner(seen)

    peer.routes[part] = route
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert len(tried) == 3
