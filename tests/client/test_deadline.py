"""`timeout=` bounds the whole call, however the time is spent."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, BODY, Chunks, OpenSdk, Peer, opened, respond

LIST = "list_registered_callbacks"
SHORT = 0.25
WITH_TOKEN = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", fotahook.OauthToken("token"))


class Drip:
    """Sends one byte every 20 ms until the client disconnects."""

    def __init__(self, *, before: bytes, byte: bytes) -> None:
        self.before, self.byte = before, byte
        self.stopped = threading.Event()

    def __call__(self, _: object) -> Iterator[bytes]:
        yield self.before
        while not self.stopped.wait(0.02):
            yield self.byte


DRIPS = {
    "nothing at all": Drip(before=b"", byte=b""),
    "the status line": Drip(before=b"HTTP/1.1 200 ", byte=b"O"),
    "a header": Drip(before=b"HTTP/1.1 200 OK\r\nX-Long: ", byte=b"x"),
    "headers without end": Drip(before=b"HTTP/1.1 200 OK\r\n", byte=b"X: y\r\n"),
    "interim answers": Drip(before=b"", byte=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the body": Drip(before=b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", byte=b" "),
    "the chunks": Drip(before=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", byte=b"1\r\n \r\n"),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_a_slow_drip_ends_at_the_deadline(peer: Peer, open_sdk: OpenSdk, drip: Drip) -> None:
    drip.stopped.clear()
    async with open_sdk() as sdk:
        await sdk.call("register_callback", ACCOUNT, BODY)
        peer.routes["callbacks/"] = drip
        with pytest.raises((fotahook.TimedOut, fotahook.ResponseError)) as caught:
            await sdk.call(LIST, ACCOUNT, timeout=SHORT)
        drip.stopped.set()
    # On a fast machine, endless headers reach their own limit first.
    assert isinstance(caught.value, fotahook.TimedOut) or drip is DRIPS["headers without end"]
    assert caught.value.request is not None


@pytest.mark.parametrize("part", ["oauth2/token", "session/login"])
async def test_the_deadline_includes_token_calls(peer: Peer, open_sdk: OpenSdk, part: str) -> None:
    drip = Drip(before=b"", byte=b"")
    peer.routes[part] = drip
    # The login needs a token: with one given, all of the time is spent on the login.
    known = {} if part == "oauth2/token" else {"thingspace_oauth_credentials": WITH_TOKEN}
    async with open_sdk(**known) as sdk:
        with pytest.raises(fotahook.TimedOut, match=part):
            await sdk.call(LIST, ACCOUNT, timeout=SHORT)
    drip.stopped.set()


async def test_waiting_for_a_token_ends_at_the_own_deadline(peer: Peer, open_sdk: OpenSdk) -> None:
    release_calls = threading.Event()
    inner = peer.routes["oauth2/token"]

    def slow(seen: object) -> Chunks:
        release_calls.wait(DEADLINE)
        return inner(seen)  # type: ignore[arg-type]

    peer.routes["oauth2/token"] = slow
    async with open_sdk() as sdk:
        first = asyncio.ensure_future(sdk.call(LIST, ACCOUNT))
        while not peer.seen:  # noqa: ASYNC110 - what is awaited happens in the peer's thread
            await asyncio.sleep(0.01)
        with pytest.raises(fotahook.TimedOut, match="another call was fetching the token"):
            await sdk.call(LIST, ACCOUNT, timeout=SHORT)
        release_calls.set()
        assert (await first).is_success
    assert peer.tokens == 1


async def test_a_timeout_is_not_retried(peer: Peer, open_sdk: OpenSdk) -> None:
    drip = Drip(before=b"", byte=b"")
    peer.routes["callbacks/"] = drip
    async with open_sdk() as sdk:
        await sdk.do("login")
        with pytest.raises(fotahook.TimedOut):
            await sdk.call(LIST, ACCOUNT, timeout=1)
    drip.stopped.set()
    assert len(peer.calls) == 1


async def test_a_connection_that_timed_out_is_not_reused(peer: Peer, open_sdk: OpenSdk) -> None:
    drip = Drip(before=b"", byte=b"")
    inner = peer.routes["callbacks/"]
    async with open_sdk() as sdk:
        await sdk.do("login")
        peer.routes["callbacks/"] = drip
        with pytest.raises(fotahook.TimedOut):
            await sdk.call(LIST, ACCOUNT, timeout=SHORT)
        drip.stopped.set()
        peer.routes["callbacks/"] = inner
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_a_large_request_ends_at_the_deadline(kind: str) -> None:
    """The server accepts the connection and reads nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        session = fotahook.VZM2mTokenCredentials("session")
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        long = fotahook.FotaV2CallbackRegistrationRequest("https://x/" + "y" * 16_000_000)
        async with opened(
            kind, url, None, thingspace_oauth_credentials=WITH_TOKEN, vz_m2m_token_credentials=session
        ) as sdk:
            with pytest.raises(fotahook.TimedOut):
                await sdk.call("register_callback", ACCOUNT, long, timeout=SHORT)


async def test_a_response_before_the_deadline_is_returned(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: [
        bytes([byte]) for piece in respond(200, {"url": "x"}) for byte in piece or b""
    ]
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).data.url == "x"
