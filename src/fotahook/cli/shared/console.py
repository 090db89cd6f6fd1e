"""The console's files as routes, and the console of a listener: its inbox over the operator API, on this machine."""

import contextlib
import mimetypes
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fotahook.console import FILES, HEADERS
from fotahook.contract.keys import SECRET_KEY_BYTES
from fotahook.listener import Listener
from fotahook.listener.intake import HANDLERS
from fotahook.listener.sender import SenderReport

from ...hosting.server import ListeningSocket, open_socket
from .server_options import ServerOptions

CLIENT: Final = "listener"


def console_routes() -> list[Route]:
    """The page at ``/``, and the files that it loads."""
    return [
        Route(
            "/" if file.name == "index.html" else f"/{file.name}",
            Response(file.read_bytes(), headers=HEADERS, media_type=mimetypes.types_map[file.suffix]),
            methods=["GET"],
        )
        for file in sorted(FILES.iterdir())
    ]


@contextlib.asynccontextmanager
async def listener_console(
    listener: Listener, port: int | None, options: ServerOptions
) -> AsyncIterator[Mapping[ListeningSocket, ASGIApp]]:
    """The console of a running listener at a port of this machine; nothing for None.

    Its client has a new secret with each start, which is printed once.
    """
    if port is None:
        yield {}
        return
    # It needs the [service] extra.
    from fotahook.service import Call, Endpoint, Settings, build_app, create_credential

    @Endpoint("GET", "/v1/sender", scope="read")
    async def sender(call: Call) -> SenderReport:
        return listener.sender()

    with open_socket("127.0.0.1", port) as listening:
        store = await listener.store()
        await store.drop_credentials("client", [CLIENT])
        secret = await create_credential(store, "client", CLIENT, accounts=None, scopes=("read", "bodies", "operate"))
        settings = Settings(secret_key=secrets.token_bytes(SECRET_KEY_BYTES), console="listener", consumer=HANDLERS)
        app = build_app(store, settings, routes=console_routes(), endpoints=[sender])
        print(f"fotahook console {listening.url}/ client={CLIENT} secret={secret}", file=sys.stderr, flush=True)
        yield {listening: options.gate(app, listening)}
