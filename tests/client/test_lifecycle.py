"""Nothing leaks after a close, a cancellation, an interrupt or a fork."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, OAUTH, USER, Chunks, OpenSdk, Peer, Received, opened, respond

LIST = "list_registered_callbacks"


def open_sockets() -> int:
    gc.collect()
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(link) and "socket" in os.readlink(link) for link in links)


def waiting(peer: Peer) -> threading.Event:
    """Block callback calls until the event is set."""
    release_calls = threading.Event()

    def wait(_: Received) -> Chunks:
        release_calls.wait(DEADLINE)
        return respond(200, {"url": "x"})

    peer.routes["callbacks/"] = wait
    return release_calls


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in the peer's thread
            await asyncio.sleep(0.005)


async def test_closing_leaves_no_connection(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await asyncio.gather(*(sdk.call(LIST, ACCOUNT) for _ in range(4)))
        assert peer.connections >= 1
    await until(lambda: peer.connections == 0)


async def test_a_closed_client_raises_runtime_error(open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
    with pytest.raises(RuntimeError, match="the client is closed"):
        await sdk.call(LIST, ACCOUNT)


async def test_closing_twice_is_allowed(open_sdk: OpenSdk, kind: str) -> None:
    async with open_sdk() as sdk:
        await sdk.do("close" if kind == "sync" else "aclose")
    with pytest.raises(RuntimeError, match="the client is closed"):
        await sdk.call(LIST, ACCOUNT)


async def test_closing_during_a_call_leaves_no_connection(peer: Peer) -> None:
    release_calls = waiting(peer)
    async with opened("sync", peer.url, None) as sdk:
        call = asyncio.ensure_future(sdk.call(LIST, ACCOUNT))
        await until(lambda: peer.calls)
        sdk.client.close()
        release_calls.set()
        assert (await call).is_success
    await until(lambda: peer.connections == 0)


async def test_cancelling_leaves_no_connection_and_no_task(peer: Peer) -> None:
    release_calls = waiting(peer)
    before = asyncio.all_tasks()
    async with opened("async", peer.url, None) as sdk:
        call = asyncio.ensure_future(sdk.call(LIST, ACCOUNT))
        await until(lambda: peer.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release_calls.set()
        peer.routes["callbacks/"] = lambda _: respond(200, {"url": "y"})
        assert (await sdk.call(LIST, ACCOUNT)).data.url == "y"
    await until(lambda: peer.connections == 0)
    assert asyncio.all_tasks() == before


async def test_after_a_cancelled_token_fetch_the_next_call_fetches_it(peer: Peer) -> None:
    release_calls = threading.Event()
    inner = peer.routes["oauth2/token"]

    def slow(seen: Received) -> Chunks:
        release_calls.wait(DEADLINE)
        return inner(seen)

    peer.routes["oauth2/token"] = slow
    async with opened("async", peer.url, None) as sdk:
        calls = [asyncio.ensure_future(sdk.call(LIST, ACCOUNT)) for _ in range(3)]
        await until(lambda: peer.seen)
        calls[0].cancel()
        release_calls.set()
        assert (await calls[1]).is_success
        assert (await calls[2]).is_success
    assert len(peer.calls) == 2


def test_an_async_client_can_be_used_in_several_loops_in_turn(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    client = fotahook.AsyncClient(thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url)

    async def some() -> None:
        calls = [client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT) for _ in range(4)]
        await asyncio.gather(*calls)

    for _ in range(2):
        asyncio.run(some())
        # Its connections end with the loop, although the client was not closed.
        asyncio.run(until(lambda: peer.connections == 0))
    asyncio.run(client.aclose())
    gc.collect()
    assert caplog.record_tuples == []
    assert (peer.tokens, peer.sessions) == (1, 1)


async def test_a_client_dropped_without_a_close_leaves_no_connection(
    peer: Peer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    form: Any = fotahook.Client if kind == "sync" else fotahook.AsyncClient
    client = form(thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url)
    login = client.login()
    if kind == "async":
        await login
    assert peer.connections == 1
    del client
    gc.collect()
    await until(lambda: peer.connections == 0)
    assert caplog.record_tuples == []


INTERRUPTED = """
import gc, os, signal, sys, threading, fotahook
client = fotahook.Client(
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "s", fotahook.OauthToken("t")),
    vz_m2m_token_credentials=fotahook.VZM2mTokenCredentials("t"), base_url=sys.argv[1])
callbacks = client.software_management_callbacks_v2
try:
    callbacks.list_registered_callbacks("1")
except KeyboardInterrupt:
    print("interrupted", flush=True)
links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
print("sockets", sum("socket" in os.readlink(link) for link in links if os.path.lexists(link)), flush=True)
print(callbacks.list_registered_callbacks("2").data.url)
client.close()
"""


def test_an_interrupt_leaves_no_connection_and_the_client_goes_on(peer: Peer) -> None:
    interrupted = threading.Event()

    def first_waits(seen: Received) -> Chunks:
        if seen.target.endswith("/1"):
            process.send_signal(signal.SIGINT)
            # No response and no end of the connection: only the interrupt ends the call.
            interrupted.wait(DEADLINE)
        return respond(200, {"url": "later"})

    peer.routes["callbacks/"] = first_waits
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, peer.url]
    # Unbuffered: a buffered readline() would take lines away from communicate().
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    first = process.stdout.readline()
    interrupted.set()
    out, errors = process.communicate(timeout=DEADLINE)
    assert (first + out, errors) == (b"interrupted\nsockets 0\nlater\n", b"")


FORKED = """
import os, sys, threading, fotahook
client = fotahook.Client(
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "s"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("u", "p"), base_url=sys.argv[1])
callbacks = client.software_management_callbacks_v2
callbacks.list_registered_callbacks("before")
held = sys.argv[2] == "held"
if held:
    client._pipeline.transport._locks[client._pipeline.bearer].acquire()
    client._pipeline.bearer.value = None
pid = os.fork()
for _ in range(5):
    if pid == 0 or not held:
        callbacks.list_registered_callbacks("child" if pid == 0 else "parent")
client.close()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print("done")
"""


@pytest.mark.parametrize("lock", ["free", "held"])
def test_a_client_used_before_a_fork_works_in_parent_and_child(peer: Peer, lock: str) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKED, peer.url, lock]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
    asked = [seen.target.rpartition("/")[2] for seen in peer.calls]
    assert asked.count("child") == 5
    assert asked.count("parent") == (5 if lock == "free" else 0)


def test_sixty_four_threads_share_one_client(peer: Peer) -> None:
    client = fotahook.Client(thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url)
    peer.routes["callbacks/"] = lambda seen: respond(200, {"url": seen.target.rpartition("/")[2]})

    def work(index: int) -> list[str | None]:
        calls = client.software_management_callbacks_v2
        answers = [calls.list_registered_callbacks(f"{index}-{turn}").data for turn in range(5)]
        return [data.url if data else None for data in answers]

    with ThreadPoolExecutor(64) as threads:
        results = list(threads.map(work, range(64)))
    client.close()
    assert results == [[f"{index}-{turn}" for turn in range(5)] for index in range(64)]
    assert (peer.tokens, peer.sessions) == (1, 1)


def test_a_lost_idle_connection_is_replaced(peer: Peer) -> None:
    closing = [*respond(200, {"url": "x"}), None]
    peer.routes["callbacks/"] = lambda _: closing
    with fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url, max_retries=0
    ) as client:
        for _ in range(3):
            assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success
            while peer.connections:
                time.sleep(0.001)


def test_surplus_idle_connections_are_closed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.client._sync.MAX_IDLE", 1)
    meeting = threading.Barrier(2)

    def meet(_: Received) -> Chunks:
        meeting.wait(DEADLINE)
        return respond(200, {"url": "x"})

    with fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url
    ) as client:
        client.login()
        peer.routes["callbacks/"] = meet
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(client.software_management_callbacks_v2.list_registered_callbacks, ["a", "b"]))
        assert all(answer.is_success for answer in answers)
        while peer.connections != 1:
            time.sleep(0.001)


def test_a_failed_call_leaves_no_socket(peer: Peer) -> None:
    before = open_sockets()
    with fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url, max_retries=0
    ) as client:
        client.login()
        for pieces in ([None], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", None], [b"nonsense\r\n\r\n", None]):
            peer.routes["callbacks/"] = lambda _, pieces=pieces: pieces  # type: ignore[misc]
            with pytest.raises(fotahook.FotahookError):
                client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
    while peer.connections:
        time.sleep(0.001)
    assert open_sockets() <= before


def test_every_address_of_a_name_is_tried(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = socket.create_server(("127.0.0.1", 0))
    address = dead.getsockname()
    dead.close()
    real = socket.getaddrinfo

    def two(host: str, port: int, **kwargs: Any) -> Any:
        family, kind, number, name, good = real("127.0.0.1", peer.port, **kwargs)[0]
        return [(family, kind, number, name, address), (family, kind, number, name, good)] if port == 1 else []

    monkeypatch.setattr("socket.getaddrinfo", two)
    for port, works in ((1, True), (2, False)):
        url = f"http://two.invalid:{port}"
        with fotahook.Client(
            thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=url, max_retries=0
        ) as client:
            if works:
                assert client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success
            else:
                with pytest.raises(fotahook.ConnectionFailed, match="has no address"):
                    client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
