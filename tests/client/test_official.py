"""Compared with the official SDK: the same requests, the same results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from verizon.configuration import Configuration, Environment, Server
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
from verizon.verizon_client import VerizonClient

import fotahook
from fotahook.contract.servers import servers_of

from .conftest import BODY, LISTENER, Peer, Received, opened

REQUIRED = {"authorization", "vz-m2m-token", "accept"}
ACCOUNTS = ["0000123456-00001", "a/b c", "MyAccount-1", "ä&=+"]
CALLS = ["list_registered_callbacks", "update_callback", "register_callback", "deregister_callback"]


@contextmanager
def official_client(peer: Peer) -> Iterator[Any]:
    """The official SDK, pointed at the peer."""
    servers = Configuration.environments[Environment.PRODUCTION]
    before = dict(servers)
    servers[Server.SOFTWARE_MANAGEMENT_V2] = f"{peer.url}/api/fota/v2"
    servers[Server.OAUTH_SERVER] = f"{peer.url}/api/ts/v1"
    client = VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("an-id", "a-client-secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials("session-1"),
    )
    try:
        yield client
    finally:
        client.config.http_client.session.close()
        servers.update(before)


@pytest.fixture
def official(peer: Peer) -> Iterator[Any]:
    with official_client(peer) as client:
        yield client.software_management_callbacks_v2


def essence(seen: Received) -> tuple[Any, ...]:
    """The parts that must be equal: method, path, required headers, and the body as JSON."""
    import json

    required = {name: value for name, value in seen.headers.items() if name in REQUIRED}
    return seen.method, seen.target, required, json.loads(seen.body) if seen.body else None


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("name", CALLS)
async def test_each_request_is_the_official_sdks(peer: Peer, official: Any, kind: str, name: str, account: str) -> None:
    with_body = name in ("update_callback", "register_callback")
    theirs = [account, FotaV2CallbackRegistrationRequest(url=LISTENER)] if with_body else [account]
    ours = [account, BODY] if with_body else [account]
    getattr(official, name)(*theirs)
    peer.tokens = 0
    async with opened(kind, peer.url, None) as sdk:
        await sdk.call(name, *ours)
    first, second = peer.calls
    assert essence(first) == essence(second)
    assert set(second.headers) >= REQUIRED


async def test_the_token_request_is_the_official_sdks(peer: Peer, official: Any, kind: str) -> None:
    official.list_registered_callbacks("0000123456-00001")
    async with opened(kind, peer.url, None) as sdk:
        await sdk.call("list_registered_callbacks", "0000123456-00001")
    first, second = (seen for seen in peer.seen if seen.target.endswith("/token"))
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)
    for name in ("authorization", "content-type"):
        assert first.headers[name] == second.headers[name]


@pytest.mark.parametrize("ours", list(fotahook.Environment))
def test_the_servers_are_the_official_sdks(ours: fotahook.Environment) -> None:
    name = {"MOCK": "MOCK_SERVER_FOR_LIMITED_AVAILABILITY_SEE_QUICK_START"}.get(ours.name, ours.name)
    theirs = Configuration.environments[Environment[name]]
    for server in fotahook.Server:
        assert servers_of(ours)[server] == theirs[Server[server.name]]
