"""The SDK in programs that change what it stands on: time, certificates, threads, sockets; and that look at it."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import freezegun
import pytest
import trustme

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, OAUTH, USER, OpenSdk, Peer, tls_peer

LIST = "list_registered_callbacks"

CALL = """
client = fotahook.Client(base_url=sys.argv[1], timeout=30, max_retries=0,
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "s"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("u", "p"))
def call():
    return client.callbacks.list_registered_callbacks("a").is_success
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return (done.stdout + done.stderr).strip()


async def test_a_call_under_frozen_time_works(peer: Peer, open_sdk: OpenSdk) -> None:
    with freezegun.freeze_time("2026-01-01"):
        async with open_sdk() as sdk:
            assert (await sdk.call(LIST, ACCOUNT)).is_success
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success


def test_time_frozen_around_each_call_works_with_the_clients_own_clock(peer: Peer) -> None:
    with fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url, max_retries=0
    ) as client:
        for day in ("2026-01-01", "2026-01-02", "2031-01-01"):
            with freezegun.freeze_time(day, real_asyncio=True):
                assert client.callbacks.list_registered_callbacks(ACCOUNT).is_success
        assert client.callbacks.list_registered_callbacks(ACCOUNT).is_success
    assert peer.tokens >= 2


TRUSTSTORE = f"""
import sys, time, truststore
truststore.inject_into_ssl()
import fotahook
{CALL}
import ssl
real = ssl.create_default_context
ssl.create_default_context = lambda cafile=None, **options: real(cafile=sys.argv[2])
print(call())
try:
    client.with_options(timeout=0.3).callbacks.list_registered_callbacks("drip")
except fotahook.TimedOut as error:
    print("TimedOut")
"""


def test_the_deadline_holds_with_truststore(authority: trustme.CA, ca_file: str) -> None:
    peer = tls_peer(authority.issue_cert("localhost"))
    usual = peer.routes["callbacks/"]

    def drip(seen: Any) -> Any:
        if "drip" not in seen.target:
            yield from usual(seen)
            return
        yield b"HTTP/1.1 200 OK\r\nX-Long: "
        while True:
            yield b"x" * 10
            time.sleep(0.02)

    peer.routes["callbacks/"] = drip
    try:
        assert run(TRUSTSTORE, peer.url, ca_file) == "True\nTimedOut"
    finally:
        peer.close()


GEVENT = f"""
import sys, fotahook, fotahook.client
import gevent.monkey
gevent.monkey.patch_all()
{CALL}
import gevent
print([job.get() for job in [gevent.spawn(call) for _ in range(8)]] == [True] * 8)
"""


def test_gevent_may_patch_after_the_import(peer: Peer) -> None:
    assert run(GEVENT, peer.url) == "True"
    # One of the eight fetched the tokens, and the others waited for it.
    assert (peer.tokens, peer.sessions) == (1, 1)


SOCKETS = f"""
import sys, fotahook, pytest_socket
pytest_socket.disable_socket()
{CALL}
try:
    call()
except pytest_socket.SocketBlockedError:
    print("blocked")
pytest_socket.enable_socket()
print(call())
pytest_socket.socket_allow_hosts(["192.0.2.1"])
client = fotahook.Client(base_url=sys.argv[1], max_retries=0,
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "s"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("u", "p"))
try:
    call()
except RuntimeError:
    print("blocked")
"""


def test_sockets_that_were_blocked_once_are_free_again(peer: Peer) -> None:
    assert run(SOCKETS, peer.url).splitlines()[:3] == ["blocked", "True", "blocked"]


BARE = """
import sys
for name in ("aiohttp", "aiodns", "asyncpg", "httptools", "nacl", "starlette", "structlog", "uvicorn"):
    sys.modules[name] = None
from fotahook import *
import fotahook
print(hasattr(fotahook, "Listener"), set(fotahook.__all__) - set(dir()) == set())
"""


def test_everything_can_be_imported_without_extras() -> None:
    assert run(BARE) == "True True"


@pytest.mark.parametrize("form", [fotahook.Client, fotahook.AsyncClient])
async def test_a_client_can_be_replaced_by_a_mock_of_its_shape(form: Any) -> None:
    mock = create_autospec(form, instance=True)
    for controller in (mock.software_management_callbacks_v2, mock.callbacks):
        answer = controller.register_callback(ACCOUNT, "https://x.example")
        if form is fotahook.AsyncClient:
            await answer
        with pytest.raises(TypeError):
            controller.register_callback()
    assert mock.software_management_reports_v2.get_campaign_device_status
    with pytest.raises(AttributeError):
        mock.software_management_callbacks_v2.nothing  # noqa: B018


def test_callbacks_is_a_short_name_and_options_make_another_client(peer: Peer) -> None:
    with fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url, max_retries=0
    ) as client:
        assert client.callbacks is client.software_management_callbacks_v2
        client.login()
        patient = client.with_options(timeout=90, max_retries=5)
        assert (patient._defaults.timeout, patient._defaults.max_retries) == (90, 5)
        assert patient.callbacks.list_registered_callbacks(ACCOUNT).is_success
        assert (client._defaults.max_retries, peer.tokens, peer.sessions) == (0, 1, 1)
        with pytest.raises(ValueError, match="timeout must be"):
            client.with_options(timeout=0)
        shown = repr(patient)
        assert shown.startswith(f"Client(base_url='{peer.url}', oauth_client_id='an-id', session=SessionCredentials(")
        assert shown.endswith("timeout=90, max_retries=5)")
    assert "environment=staging, oauth_client_id=None" in repr(
        fotahook.Client(environment=fotahook.Environment.STAGING)
    )
    with pytest.raises(RuntimeError, match="the client is closed"):
        patient.login()


async def test_an_asynchronous_client_can_be_varied_too(peer: Peer) -> None:
    async with fotahook.AsyncClient(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, base_url=peer.url
    ) as client:
        both = (client, client.with_options(timeout=5))
        tasks = [asyncio.create_task(one.callbacks.list_registered_callbacks(ACCOUNT)) for one in both]
        assert [response.is_success for response in await asyncio.gather(*tasks)] == [True, True]


def test_the_examples_of_typing_pass_pyright_too() -> None:
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "basedpyright",
            "--project",
            "tests/typing/pyrightconfig.json",
            "--pythonpath",
            sys.executable,
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE * 2,
    )
    assert done.returncode == 0, done.stdout
