"""The service's contestant: a bare Starlette app that reads with msgspec and returns a constant.

`python -m bench.service_apps` prints its URL and serves until its stdin closes.
"""

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.listener_apps import serve


class Url(msgspec.Struct):
    """The body of a registration and of its response."""

    url: str


class Published(msgspec.Struct):
    """The response to a message."""

    id: str
    duplicate: bool


URL = Url("https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx")
PUBLISHED = Published("01a20540-c2d0-7000-877f-40931f0d3f40", False)


async def show(request: Request) -> Response:
    return Response(msgspec.json.encode(URL), media_type="application/json")


async def register(request: Request) -> Response:
    msgspec.json.decode(await request.body(), type=Url)
    return Response(msgspec.json.encode(URL), media_type="application/json")


async def publish(request: Request) -> Response:
    msgspec.json.decode(await request.body())
    return Response(msgspec.json.encode(PUBLISHED), 202, media_type="application/json")


def constant() -> Starlette:
    callback = "/api/fota/v2/callbacks/{account}"
    return Starlette(
        routes=[
            Route(callback, show, methods=["GET"]),
            Route(callback, register, methods=["PUT"]),
            Route("/v1/accounts/{account}/messages", publish, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    uvloop.run(serve(constant()))
