"""The console's files as routes of the service."""

import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fotahook.console import FILES, HEADERS


def console_routes() -> list[Route]:
    """A route for each file; the page itself is at ``/``."""
    return [_route(file) for file in sorted(FILES.iterdir())]


def _route(file: Path) -> Route:
    content, media_type = file.read_bytes(), mimetypes.types_map[file.suffix]

    async def show(request: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return Route("/" if file.name == "index.html" else f"/{file.name}", show)
