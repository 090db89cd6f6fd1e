"""Connections: kept ones that die, hosts with several addresses, and heads that are too large."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import fotahook
from fotahook.client import _sync

from .conftest import ACCOUNT, BODY, Chunks, OpenSdk, Peer, Received, opened, respond

LIST = "list_registered_callbacks"
TOKENS: dict[str, Any] = {
    "thingspace_oauth_credentials": fotahook.ThingspaceOauthCredentials("i", "s", fotahook.OauthToken("token")),
    "vz_m2m_token_credentials": fotahook.VZM2mTokenCredentials("session"),
}


def dying(peer: Peer, *answers: Chunks) -> list[str]:
    """The peer gives these answers to callback calls, and then its usual ones; the list grows by each call."""
    seen: list[str] = []
    usual, left = peer.routes["callbacks/"], iter(answers)

    def answer(call: Received) -> Chunks:
        seen.append(call.method)
        return next(left, None) or usual(call)

    peer.routes["callbacks/"] = answer
    return seen


@pytest.mark.parametrize("name", ["list_registered_callbacks", "register_callback"])
async def test_a_kept_connection_that_dies_is_replaced_once_and_shown_to_hooks(
    peer: Peer, open_sdk: OpenSdk, name: str
) -> None:
    calls: list[fotahook.Request] = []
    arguments = (ACCOUNT,) if name == LIST else (ACCOUNT, BODY)
    async with open_sdk(max_retries=0, on_request=calls.append, **TOKENS) as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
        seen = dying(peer, [None])
        assert (await sdk.call(name, *arguments)).is_success
        assert len(seen) == 2
        assert len(calls) == 3
        dying(peer, [None], [None])
        with pytest.raises(fotahook.ConnectionFailed):
            await sdk.call(name, *arguments)


async def test_a_401_after_which_the_server_closes_is_no_failed_connection(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk(max_retries=0) as sdk:
        await sdk.call(LIST, ACCOUNT)
        dying(peer, respond(401, {"fault": {"code": "900901"}}))
        usual, closing = peer.routes["oauth2/token"], iter([[None]])
        peer.routes["oauth2/token"] = lambda seen: next(closing, None) or usual(seen)
        assert (await sdk.call(LIST, ACCOUNT)).is_success


@pytest.mark.parametrize("answer", [[None], [b"HTTP/1.1 200 OK\r\n", None]])
async def test_a_new_connection_or_one_that_answered_is_not_replaced(
    peer: Peer, open_sdk: OpenSdk, answer: Chunks
) -> None:
    async with open_sdk(max_retries=0, **TOKENS) as sdk:
        if answer != [None]:
            await sdk.call(LIST, ACCOUNT)
        seen = dying(peer, answer)
        with pytest.raises(fotahook.ConnectionFailed):
            await sdk.call(LIST, ACCOUNT)
        assert len(seen) == 1


@pytest.fixture
def swallowing() -> Iterator[socket.socket]:
    """A listening socket whose queue is full: new connections to it hang."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    fill = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(hole.getsockname())
        fill.append(filler)
    yield hole
    for filler in [*fill, hole]:
        filler.close()


@pytest.mark.parametrize("number", [1, 3])
def test_an_address_that_swallows_packets_delays_a_call_for_a_moment_only(
    peer: Peer, swallowing: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = socket.getaddrinfo

    def several(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != "several.test":
            return real(host, port, *args, **kwargs)
        addresses = [swallowing.getsockname()] * number + [("127.0.0.1", peer.port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr("socket.getaddrinfo", several)
    with fotahook.Client(base_url=f"http://several.test:{peer.port}", max_retries=0, **TOKENS) as client:
        # Within the default timeout: without the last address, this would be a TimedOut.
        assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success


def test_connecting_stops_at_the_deadline(swallowing: socket.socket) -> None:
    url = f"http://127.0.0.1:{swallowing.getsockname()[1]}"
    with (
        fotahook.Client(base_url=url, timeout=0.1, max_retries=0, **TOKENS) as client,
        pytest.raises(fotahook.TimedOut),
    ):
        client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)


async def test_interim_responses_are_skipped_but_not_for_ever(peer: Peer, open_sdk: OpenSdk) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with open_sdk(max_retries=0, **TOKENS) as sdk:
        dying(peer, [hint * 3, *respond(200, {"url": "x"})])
        assert (await sdk.call(LIST, ACCOUNT)).data.url == "x"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\n" + (b"X-Long: " + b"x" * 60_000 + b"\r\n") * 5 + b"Content-Length: 0\r\n\r\n",
    ],
    ids=["interim responses", "a large head"],
)
def test_a_head_has_limits(peer: Peer, head: bytes) -> None:
    dying(peer, [head])
    with (
        fotahook.Client(base_url=peer.url, max_retries=0, **TOKENS) as client,
        pytest.raises(fotahook.ResponseError, match="more than"),
    ):
        client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)


def test_threads_take_idle_connections_at_once(peer: Peer) -> None:
    """No thread gets another's connection."""
    meeting = threading.Barrier(4)

    def meet(_: Received) -> Chunks:
        meeting.wait(60)
        return respond(200, {"url": "x"})

    peer.routes["callbacks/"] = meet
    with fotahook.Client(base_url=peer.url, **TOKENS) as client:
        call = client.software_management_callbacks_v2.list_registered_callbacks
        for _ in range(3):
            threads = [threading.Thread(target=call, args=(ACCOUNT,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert _sync.MAX_IDLE >= 4


async def test_authorities_are_not_loaded_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    loaded: list[threading.Thread] = []
    real = ssl.create_default_context

    def load(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        loaded.append(threading.current_thread())
        return real(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", load)
    async with opened("async", "https://127.0.0.1:1", None, max_retries=0, **TOKENS) as sdk:
        with pytest.raises(fotahook.ConnectionFailed):
            await asyncio.wait_for(sdk.call(LIST, ACCOUNT), 60)
    assert loaded
    assert threading.current_thread() not in loaded


def test_a_call_that_has_another_effect_when_repeated_is_not_replaced(peer: Peer) -> None:
    peer.routes["/v1/"] = lambda seen: respond(202, {"id": "m"}) if "first" in seen.target else [None]
    with fotahook.OperatorClient(peer.url, "i", "s") as operator:
        assert operator.redeliver("first").id == "m"
        with pytest.raises(fotahook.ConnectionFailed) as caught:
            operator.redeliver("second")
    assert caught.value.attempts == 1
    assert sum("second" in seen.target for seen in peer.seen) == 1
