"""Proxies: from the option, from the environment, and none."""

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import fotahook
from fotahook.client._settings import proxy_for
from fotahook.contract.exchange import Secret
from fotahook.contract.servers import Proxy, parse_proxy

from .conftest import ACCOUNT, BODY, OpenSdk, Peer, opened, respond, tls_peer

LIST = "list_registered_callbacks"


class Tunnel:
    """A proxy that only opens tunnels, with a password."""

    def __init__(self, port: int) -> None:
        self.seen: list[bytes] = []
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            assert byte, "the client hung up in the middle of its request"
            asked += byte
        self.seen.append(asked)
        if b"Proxy-Authorization: Basic YTpi" not in asked:
            client.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        client.sendall(b"HTTP/1.1 200 Go ahead\r\n\r\n")
        server = socket.create_connection(("127.0.0.1", self._to))
        ways = [threading.Thread(target=_pump, args=way) for way in ((client, server), (server, client))]
        for way in ways:
            way.start()
        for way in ways:
            way.join()
        client.close()
        server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError as error:
        # Either end closed the connection. Anything else fails the test.
        if not isinstance(error, ConnectionError) and error.errno not in (errno.ENOTCONN, errno.EBADF):
            raise


async def test_plain_http_sends_the_absolute_url_to_the_proxy(peer: Peer, open_sdk: OpenSdk) -> None:
    proxy = peer.url.replace("http://", "http://a:b@")
    async with open_sdk(url="http://far.invalid:81", proxy=proxy) as sdk:
        assert (await sdk.call("register_callback", ACCOUNT, BODY)).is_success
    call = peer.calls[0]
    assert call.target == f"http://far.invalid:81/api/fota/v2/callbacks/{ACCOUNT}"
    assert call.headers["host"] == "far.invalid:81"
    assert call.headers["proxy-authorization"] == "Basic YTpi"


@pytest.fixture
def tunnelled(authority: trustme.CA) -> Iterator[tuple[Peer, Tunnel]]:
    peer = tls_peer(authority.issue_cert("far.invalid"))
    tunnel = Tunnel(peer.port)
    yield peer, tunnel
    tunnel.close()
    peer.close()


async def test_https_goes_through_a_tunnel(kind: str, tunnelled: tuple[Peer, Tunnel], ca_file: str) -> None:
    peer, tunnel = tunnelled
    proxy = f"http://a:b@127.0.0.1:{tunnel.port}"
    async with opened(kind, "https://far.invalid", None, proxy=proxy, ca_file=ca_file) as sdk:
        for _ in range(2):
            assert (await sdk.call("register_callback", ACCOUNT, BODY)).is_success
    assert peer.calls[0].target == f"/api/fota/v2/callbacks/{ACCOUNT}"
    assert "proxy-authorization" not in peer.calls[0].headers
    assert len(tunnel.seen) == 1
    assert tunnel.seen[0].startswith(b"CONNECT far.invalid:443 ")
    assert b"Bearer" not in tunnel.seen[0]


async def test_a_proxy_refusal_is_a_failed_connection_without_the_password(
    kind: str, tunnelled: tuple[Peer, Tunnel], ca_file: str
) -> None:
    proxy = f"http://someone:a-secret@127.0.0.1:{tunnelled[1].port}"
    async with opened(kind, "https://far.invalid", None, proxy=proxy, ca_file=ca_file, max_retries=0) as sdk:
        with pytest.raises(fotahook.ConnectionFailed, match="407") as caught:
            await sdk.call(LIST, ACCOUNT)
    assert "a-secret" not in f"{caught.value!s}{caught.value!r}"


async def test_the_proxy_of_the_environment_is_used(
    peer: Peer, open_sdk: OpenSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", peer.url)
    async with open_sdk(url="http://far.invalid") as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert peer.calls[0].target.startswith("http://far.invalid/")


async def test_an_empty_proxy_option_means_no_proxy(
    peer: Peer, open_sdk: OpenSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://nobody.invalid")
    async with open_sdk(proxy="") as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_the_environment_may_exempt_a_host(
    peer: Peer, open_sdk: OpenSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://nobody.invalid")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_a_netrc_file_adds_nothing(
    peer: Peer, open_sdk: OpenSdk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password stolen\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
    assert peer.calls[0].headers["authorization"] == "Bearer token-1"


async def test_cookies_are_not_kept(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200, {"url": "x"}, "Set-Cookie: a=b\r\n")
    async with open_sdk() as sdk:
        for _ in range(2):
            await sdk.call(LIST, ACCOUNT)
    assert all("cookie" not in call.headers for call in peer.calls)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://proxy.example", Proxy("proxy.example", 80)),
        ("http://a%40b:c%3Ad@proxy.example:1/", Proxy("proxy.example", 1, Secret("a@b:c:d"))),
        ("http://[::1]:3128", Proxy("::1", 3128)),
    ],
)
def test_a_proxy_url_is_parsed(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy
    assert parse_proxy(proxy.url).host == proxy.host
    assert "c:d" not in repr(proxy)


@pytest.mark.parametrize("url", ["https://p", "socks5://p", "http://", "http://u:p@", "http://p:x", "http://\udc80@p"])
def test_an_invalid_proxy_url_is_an_error(url: str) -> None:
    for kind in (fotahook.Client, fotahook.AsyncClient):
        with pytest.raises(ValueError, match="proxy must be an http:// URL with a host"):
            kind(proxy=url)


def test_each_scheme_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://a.example", None) is None
    monkeypatch.setenv("https_proxy", "http://p:1")
    assert proxy_for("https://a.example", None) == Proxy("p", 1)
    assert proxy_for("http://a.example", None) is None
    monkeypatch.setenv("all_proxy", "http://p:2")
    assert proxy_for("http://a.example", None) == Proxy("p", 2)
