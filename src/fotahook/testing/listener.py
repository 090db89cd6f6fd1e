"""A listener under test: messages posted to it as a sender would, and waiting until its handlers have seen them.

The listener runs in a thread of its own, with an inbox in a temporary folder; nothing goes over the network.
"""

import itertools
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import Message

from fotahook.contract import signing
from fotahook.delivery import Deliver, Outcome
from fotahook.listener import Listener
from fotahook.listener.receive import HANDLERS
from fotahook.store.base import Delivery, Lease

from .answering import serving
from .campaigns import CampaignMessage

Postable = bytes | Mapping[str, object] | CampaignMessage

_PEER: Final = "127.0.0.1"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the listener answered to one post. `id` and `duplicate` with 200, `error` says why not otherwise."""

    status: int
    id: str | None = None
    duplicate: bool = False
    error: str | None = None


class ListenerClient:
    """Posts to a listener; made by ``listener_client``."""

    def __init__(self, listener: Listener, portal: BlockingPortal) -> None:
        self.url = ""
        "Where the listener is served; empty where it is not."
        self._listener = listener
        self._portal = portal
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._handled: dict[str, None] = {}
        self._failures: list[str] = []

    @property
    def handled(self) -> list[str]:
        """The ids of the messages that the handlers have seen without a failure, in the order in which they did."""
        with self._changed:
            return list(self._handled)

    @property
    def failures(self) -> list[str]:
        """The tracebacks of handlers that failed, oldest first."""
        with self._changed:
            return list(self._failures)

    def post(
        self, *messages: Postable, duplicate: int = 0, late: float = 0.0, reorder: int | None = None
    ) -> list[Answered]:
        """Post messages one after the other; the answers, in the order of the posts.

        `duplicate`: how often each comes again, with the same ``webhook-id``. `late`: seconds that have passed since it
        was signed. `reorder`: the seed by which all of them, repetitions too, are shuffled. The client stands in one of
        the listener's source networks, and signs with its first secret if it has one; with ``public_keys`` alone
        nothing can be signed, and everything is refused.
        """
        posts = [(f"test-{next(self._numbers)}", _bytes(message)) for message in messages]
        posts = [post for post in posts for _ in range(1 + duplicate)]
        if reorder is not None:
            Random(reorder).shuffle(posts)
        return [self._portal.call(self._post, message_id, body, late) for message_id, body in posts]

    def wait_for(self, *, handled: int, timeout: float = 5.0) -> list[str]:
        """The ids of the messages handled so far, once there are so many; TimeoutError tells what failed instead."""
        until = time.monotonic() + timeout
        with self._changed:
            while len(self._handled) < handled:
                left = until - time.monotonic()
                if left <= 0:
                    last = f"; the last failure:\n{self._failures[-1]}" if self._failures else ""
                    raise TimeoutError(f"{len(self._handled)} of {handled} messages are handled{last}")
                self._changed.wait(left)
            return list(self._handled)

    def watch(self, deliver: Deliver) -> Deliver:
        """The same deliverer, which this client hears of."""

        async def watched(lease: Lease, delivery: Delivery) -> Outcome:
            outcome = await deliver(lease, delivery)
            if lease.consumer == HANDLERS:
                self._hear(delivery.message, outcome)
            return outcome

        return watched

    def _hear(self, message_id: str, outcome: Outcome) -> None:
        with self._changed:
            if outcome.code == "delivered":
                self._handled[message_id] = None
            else:
                self._failures.append(outcome.excerpt)
            self._changed.notify_all()

    async def _post(self, message_id: str, body: bytes, late: float) -> Answered:
        sent: list[Message] = []
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return parts.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self._listener(self._scope(message_id, body, late), receive, send)
        status: int = sent[0]["status"]
        content: dict[str, Any] = msgspec.json.decode(sent[1]["body"])
        if status != 200:
            return Answered(status=status, error=content["errorMessage"])
        return Answered(status=status, id=content["id"], duplicate=content["duplicate"])

    def _scope(self, message_id: str, body: bytes, late: float) -> dict[str, Any]:
        reception = self._listener.reception
        sources = reception.proof.sources
        peer = str(sources[0].network_address) if sources else _PEER
        timestamp = int(reception.clock() - late)
        signatures = [signing.sign_hmac(key, message_id, timestamp, body) for key in reception.proof.secrets[:1]]
        headers = signing.headers(message_id, timestamp, signatures)
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https",
            "path": unquote(self._listener.path),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": (_PEER, 443),
            "client": (peer, 50_000),
        }


@contextmanager
def listener_client(listener: Listener, *, serve: bool = False) -> Iterator[ListenerClient]:
    """Run a listener, its inbox in a temporary folder, until the block ends; handlers in hand may end then.

    With `serve` it is also at `url`, a free port of 127.0.0.1, for a sandbox to deliver to.
    """
    inbox = listener.inbox
    with tempfile.TemporaryDirectory(prefix="fotahook-listener-") as folder, start_blocking_portal() as portal:
        client = ListenerClient(listener, portal)
        listener.configure(inbox=f"sqlite:///{Path(folder, 'inbox.db')}")
        listener.wrap(lambda store: store, client.watch)
        try:
            with portal.wrap_async_context_manager(listener.running()), ExitStack() as stack:
                if serve:
                    bound = stack.enter_context(socket.create_server((_PEER, 0)))
                    client.url = f"http://{_PEER}:{bound.getsockname()[1]}{listener.path}"
                    stack.enter_context(portal.wrap_async_context_manager(serving(listener, bound)))
                yield client
        finally:
            listener.wrap(lambda store: store, lambda deliver: deliver)
            listener.configure(inbox=inbox)


def _bytes(message: Postable) -> bytes:
    match message:
        case bytes():
            return message
        case CampaignMessage():
            return message.body
    return msgspec.json.encode(message)
