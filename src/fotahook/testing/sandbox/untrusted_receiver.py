"""A receiver behind a certificate of an authority that nobody trusts."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ..certificates import make_certificates


@dataclass
class Distrusted:
    """Where it is, and how many came."""

    url: str
    met: int = 0


@asynccontextmanager
async def distrusted() -> AsyncIterator[Distrusted]:
    """A receiver that nobody who checks certificates gets through to; who does not check is hung up on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="fotahook-distrusted-") as folder:
        made = make_certificates(Path(folder), "127.0.0.1")
        context.load_cert_chain(made.cert_file, made.key_file)

    class Closing(asyncio.Protocol):
        def __init__(self) -> None:
            # Made when somebody connects, before the handshake that is going to fail.
            receiver.met += 1

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    server = await asyncio.get_running_loop().create_server(Closing, "127.0.0.1", 0, ssl=context)
    receiver = Distrusted(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
