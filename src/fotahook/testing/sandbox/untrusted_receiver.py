"""A receiver whose certificate is from an authority that nobody trusts."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ..certificates import make_certificates


@dataclass
class UntrustedReceiver:
    """Its URL, and how many connections were made to it."""

    url: str
    connections: int = 0


@asynccontextmanager
async def untrusted_receiver() -> AsyncIterator[UntrustedReceiver]:
    """A receiver that clients who verify certificates refuse. It closes the connections of those who do not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="fotahook-untrusted-") as folder:
        made = make_certificates(Path(folder), "127.0.0.1")
        context.load_cert_chain(made.cert_file, made.key_file)

    class Closing(asyncio.Protocol):
        def __init__(self) -> None:
            # Created when a client connects, before the handshake that is going to fail.
            receiver.connections += 1

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    server = await asyncio.get_running_loop().create_server(Closing, "127.0.0.1", 0, ssl=context)
    receiver = UntrustedReceiver(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
