"""Where requests go: parsed URLs, sockets that are connected to them, and TLS."""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fotahook.contract.addresses import EVERYWHERE, Network, url_refusal
from fotahook.contract.servers import Proxy

from .resolver import is_literal, vet
from .response import HEAD_LIMIT, ExchangeFailed, ResponseReader

STAGGER_SECONDS: Final = 0.25
"""Delay before the next address of a host is tried beside the one before (RFC 8305, section 5)."""
_DEMANDS: Final = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN")
"""OpenSSL's names of the alerts by which a receiver asks for another client certificate, or for one at all."""


class Origin(NamedTuple):
    tls: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(NamedTuple):
    """A parsed URL: its origin, and the beginning of every request to it."""

    url: str
    origin: Origin
    head: str


def target_of(url: str, allowed: Sequence[Network]) -> Target:
    """Parse a URL; ValueError for one that cannot be used, BlockedAddress for a forbidden IP literal. The request
    target is sent exactly as it stands in the URL: signed URLs break when one byte changes."""
    if (why := url_refusal(url, allow_http=True, allowed=EVERYWHERE)) is not None:
        raise ValueError(why)
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode("ascii")
    # Names are vetted when they are resolved.
    if is_literal(host):
        vet(host, allowed)
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    origin = Origin(tls, host, parts.port or default)
    authority = origin.authority.removesuffix(f":{default}")
    path = url[url.index("//") + 2 :].partition(parts.netloc)[2]
    request_target = path if path.startswith("/") else f"/{path}"
    return Target(url, origin, f"POST {request_target} HTTP/1.1\r\nHost: {authority}\r\n")


def encode_head(target_head: str, fields: Mapping[str, str], length: int | None) -> bytes:
    """The whole head of a request; ValueError for a field of more than one line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\r") != len(fields) or lines.count("\n") != len(fields):
        raise ValueError("a header field has more than one line")
    framing = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{target_head}{lines}{framing}\r\n".encode("ascii")


async def open_tunnel(proxy: Proxy, origin: Origin) -> socket.socket:
    """A socket that the egress proxy has connected to an origin."""
    loop = asyncio.get_running_loop()
    fields = {"Host": origin.authority}
    if proxy.authorization:
        fields["Proxy-Authorization"] = proxy.authorization
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    tunnel = await open_socket([str(address[0]) for *_, address in found], proxy.port)
    try:
        await loop.sock_sendall(tunnel, encode_head(f"CONNECT {origin.authority} HTTP/1.1\r\n", fields, None))
        reader = ResponseReader()
        while not reader.status:
            if not (data := await loop.sock_recv(tunnel, HEAD_LIMIT)):
                raise ExchangeFailed("connection_lost", "the egress proxy closed the connection before it answered")
            reader.feed(data)
        # Bytes behind the head would be lost: nobody was asked for them yet.
        if not reader.accepted or reader.response.body:
            raise ExchangeFailed("proxy_refused", f"the egress proxy answered CONNECT with {reader.status}")
    except BaseException:
        tunnel.close()
        raise
    return tunnel


async def open_socket(addresses: Sequence[str], port: int) -> socket.socket:
    """A socket connected to the first address that accepts; each next one starts a little later (happy eyeballs)."""
    if len(addresses) == 1:
        return await connect_socket(addresses[0], port)
    waiting = iter(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while True:
            if (address := next(waiting, None)) is not None:
                running.add(asyncio.create_task(connect_socket(address, port)))
            elif not running:
                raise errors[0]
            timeout = None if address is None else STAGGER_SECONDS
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            winners = [task.result() for task in done if task.exception() is None]
            errors += [error for task in done if (error := task.exception()) is not None]
            if winners:
                for late in winners[1:]:
                    late.close()
                return winners[0]
    finally:
        for task in running:
            if not task.cancel() and task.exception() is None:
                task.result().close()


async def connect_socket(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Handshake(ssl.SSLObject):
    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            # With TLS 1.2 the alert is the one for "no common cipher"; but once a cipher is chosen, only the
            # certificate can be missing.
            if error.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and self.cipher():
                error.reason = "CERTIFICATE_REQUIRED"
            raise


def tls_context(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext:
    """Trusts the system's authorities and those of a file; TLS 1.2 or above."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _Handshake
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if client_cert is not None:
        context.load_cert_chain(client_cert)
    return context


def code_of_tls_error(error: ssl.SSLError) -> str:
    """The error code for a TLS connection that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's X509_V_ERR_* numbers.
        known = {10: "tls_expired", 62: "tls_wrong_host", 64: "tls_wrong_host"}
        return known.get(error.verify_code, "tls_untrusted")
    return "tls_client_certificate" if any(word in (error.reason or "") for word in _DEMANDS) else "tls_failed"
