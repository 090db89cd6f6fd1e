"""What only the ASGI app needs: bodies, mount points, and metrics for this machine."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fotahook.contract.errors import WebhookRejected
from fotahook.delivery import Deadline

from .intake import BODY_LIMIT, BODY_TOO_LONG
from .requests import BODY_CUT_OFF, NOT_FOUND, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope


_SMALL_BODY: Final = 64 * 1024
"""Bytes that a server holds of a request anyway, before anybody reads it."""


async def read_body(receive: "Receive", deadline: Deadline, share: Callable[[], Callable[[int], bool]]) -> bytes:
    """The body of a request; WebhookRejected (400, 408, 413 or 503).

    `share` is called if it is long: whether there is room for so many more bytes.
    """
    chunks: list[bytes] = []
    size = owed = 0
    take: Callable[[int], bool] | None = None
    try:
        with deadline:
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    # ASGI does not say whether the sender or the server closed the connection.
                    raise WebhookRejected(400, BODY_CUT_OFF)
                chunks.append(event.get("body", b""))
                size += len(chunks[-1])
                owed += len(chunks[-1])
                if size > BODY_LIMIT:
                    raise WebhookRejected(413, BODY_TOO_LONG)
                if size > _SMALL_BODY:
                    take = take or share()
                    if not take(owed):
                        raise WebhookRejected(503, "too many messages arrive at once; send it again")
                    owed = 0
                if not event.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise WebhookRejected(408, f"the body did not arrive within {deadline.seconds:g} s") from error


def metrics_response(scope: "Scope", metrics: str) -> Response:
    """The response with the metrics, for this machine alone: neither strangers nor a proxy's clients read them."""
    peer = (scope.get("client") or ("",))[0]
    proxied = any(name in (b"x-forwarded-for", b"forwarded", b"via") for name, _ in scope["headers"])
    if peer not in ("127.0.0.1", "::1") or proxied:
        return NOT_FOUND
    return Response(200, metrics.encode(), content_type=b"text/plain; version=0.0.4")


def path_below_mount(scope: "Scope") -> str:
    """The path without the mount point: hosts leave it in `path` and repeat it in `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path
