"""TLS: trusted authorities, client certificates, and error texts."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

import fotahook

from .conftest import ACCOUNT, Clock, Peer, opened, tls_peer

LIST = "list_registered_callbacks"
PAST = datetime.now(UTC) - timedelta(days=2)


@pytest.fixture
def served(authority: trustme.CA) -> Iterator[Peer]:
    peer = tls_peer(authority.issue_cert("localhost"))
    yield peer
    peer.close()


async def test_a_certificate_of_the_given_authority_is_trusted(kind: str, served: Peer, ca_file: str) -> None:
    async with opened(kind, served.url, None, ca_file=ca_file) as sdk:
        for _ in range(2):
            assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_an_unknown_authority_is_said_to_be_untrusted(kind: str, served: Peer) -> None:
    async with opened(kind, served.url, None) as sdk:
        with pytest.raises(fotahook.TlsError, match="not from a trusted authority"):
            await sdk.call(LIST, ACCOUNT)


async def test_an_expired_certificate_is_said_to_be_expired(kind: str, authority: trustme.CA, ca_file: str) -> None:
    expired = authority.issue_cert("localhost", not_before=PAST - timedelta(days=2), not_after=PAST)
    peer = tls_peer(expired)
    async with opened(kind, peer.url, None, ca_file=ca_file) as sdk:
        with pytest.raises(fotahook.TlsError, match="has expired"):
            await sdk.call(LIST, ACCOUNT)
    peer.close()


async def test_a_certificate_of_the_future_is_said_to_be_not_valid_yet(
    kind: str, authority: trustme.CA, ca_file: str
) -> None:
    future = datetime.now(UTC) + timedelta(days=2)
    peer = tls_peer(authority.issue_cert("localhost", not_before=future, not_after=future + timedelta(days=2)))
    async with opened(kind, peer.url, None, ca_file=ca_file) as sdk:
        with pytest.raises(fotahook.TlsError, match="not valid yet"):
            await sdk.call(LIST, ACCOUNT)
    peer.close()


async def test_a_certificate_for_another_host_is_said_to_be(kind: str, authority: trustme.CA, ca_file: str) -> None:
    peer = tls_peer(authority.issue_cert("other.example"))
    async with opened(kind, peer.url, None, ca_file=ca_file) as sdk:
        with pytest.raises(fotahook.TlsError, match="for another host") as caught:
            await sdk.call(LIST, ACCOUNT)
    peer.close()
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


async def test_a_certificate_failure_is_not_tried_again(kind: str, served: Peer, clock: Clock) -> None:
    async with opened(kind, served.url, clock) as sdk:
        with pytest.raises(fotahook.TlsError):
            await sdk.call(LIST, ACCOUNT)
    assert clock.waits == []


async def test_plain_http_where_tls_is_expected_is_a_tls_error(kind: str, peer: Peer) -> None:
    peer.routes = {}
    url = peer.url.replace("http:", "https:")
    async with opened(kind, url, None, max_retries=0) as sdk:
        with pytest.raises(fotahook.TransportError):
            await sdk.call(LIST, ACCOUNT, timeout=0.3)


async def test_a_client_certificate_is_shown(kind: str, authority: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    mine = authority.issue_cert("client.example")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    peer = tls_peer(authority.issue_cert("localhost"), clients=authority)
    pair = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    for client_cert in (str(tmp_path / "both.pem"), pair):
        async with opened(kind, peer.url, None, ca_file=ca_file, client_cert=client_cert) as sdk:
            assert (await sdk.call(LIST, ACCOUNT)).is_success
    async with opened(kind, peer.url, None, ca_file=ca_file, max_retries=0) as sdk:
        with pytest.raises(fotahook.TransportError):
            await sdk.call(LIST, ACCOUNT)
    peer.close()


async def test_a_large_body_and_a_drip_are_bounded_over_tls_too(kind: str, served: Peer, ca_file: str) -> None:
    from .test_deadline import Drip

    drip = Drip(before=b"HTTP/1.1 200 OK\r\nX-Long: ", byte=b"x")
    served.routes["callbacks/"] = drip
    async with opened(kind, served.url, None, ca_file=ca_file) as sdk:
        await sdk.do("login")
        with pytest.raises(fotahook.TimedOut):
            await sdk.call(LIST, ACCOUNT, timeout=0.25)
    drip.stopped.set()
    # aiohttp closes a TLS connection in good order: the peer, which is still writing, has to answer first.
    await asyncio.sleep(0.5)
