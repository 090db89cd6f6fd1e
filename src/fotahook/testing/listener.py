"""A listener under test: messages posted to it as a sender would, and waiting until its handlers have seen them.

The listener runs in a thread of its own, with an inbox in a temporary folder. Nothing goes over the network: what would
be forwarded is kept, unless a test asks for it to be sent.
"""

import itertools
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import Message

from fotahook.contract import signing
from fotahook.contract.urls import origin
from fotahook.delivery import Deliver, Outcome
from fotahook.listener import Listener, Verification
from fotahook.store.records import Delivery, Lease

from .sandbox.http_server import serving
from .simulator.campaigns import CampaignMessage

Postable = bytes | Mapping[str, object] | CampaignMessage

_PEER: Final = "127.0.0.1"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the listener answered to one post. `id` and `duplicate` with 200, `error` says why not otherwise."""

    status: int
    id: str | None = None
    duplicate: bool = False
    error: str | None = None


class Forwarded(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was forwarded to `url`, or would have been. `id` is the message's in the inbox."""

    id: str
    account: str
    url: str
    body: bytes


class ListenerClient:
    """Posts to a listener; made by ``listener_client``."""

    def __init__(self, listener: Listener, portal: BlockingPortal, *, seed: bytes) -> None:
        self.url = ""
        "Where the listener is served; empty where it is not."
        self._listener = listener
        self._portal = portal
        self._seed = seed
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._handled: dict[str, None] = {}
        self._forwarded: list[Forwarded] = []
        self._failures: list[str] = []

    @property
    def handled(self) -> list[str]:
        """The ids of the messages that the handlers have seen without a failure, in the order in which they did."""
        with self._changed:
            return list(self._handled)

    @property
    def forwarded(self) -> list[Forwarded]:
        """What went to the forwards, in that order: kept instead of sent, or with `forward` accepted by a receiver."""
        with self._changed:
            return list(self._forwarded)

    @property
    def failures(self) -> list[str]:
        """The tracebacks of handlers that failed, and what came of forwards that did, oldest first."""
        with self._changed:
            return list(self._failures)

    def post(
        self, *messages: Postable, duplicate: int = 0, late: float = 0.0, reorder: int | None = None
    ) -> list[Answered]:
        """Post messages one after the other; the answers, in the order of the posts.

        `duplicate`: how often each comes again, with the same ``webhook-id``. `late`: seconds that have passed since it
        was signed. `reorder`: the seed by which all of them, repetitions too, are shuffled. The client stands in one of
        the listener's source networks, and signs with its first secret; where it has ``public_keys`` alone, with a key
        that it takes for one of them until the block ends.
        """
        if duplicate < 0:
            raise ValueError(f"duplicate={duplicate}: it is how often each message comes again, 0 or more")
        posts = [(f"test-{next(self._numbers)}", _bytes(message)) for message in messages]
        posts = [post for post in posts for _ in range(1 + duplicate)]
        if reorder is not None:
            Random(reorder).shuffle(posts)
        return [self._portal.call(self._post, message_id, body, late) for message_id, body in posts]

    def wait_for(self, *, handled: int | None = None, forwarded: int | None = None, timeout: float = 30.0) -> list[str]:
        """The ids of the messages handled so far, once so many are handled and so many forwarded.

        A message for two forwards is forwarded twice. One for forwards alone, in a listener without handlers, is never
        handled. TimeoutError tells how many there are, and what failed instead.
        """
        if handled is None and forwarded is None:
            raise TypeError("wait_for needs handled= or forwarded=, the number of messages to wait for")
        until = time.monotonic() + timeout
        with self._changed:
            while len(self._handled) < (handled or 0) or len(self._forwarded) < (forwarded or 0):
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(self._told(handled, forwarded))
                self._changed.wait(left)
            return list(self._handled)

    def _told(self, handled: int | None, forwarded: int | None) -> str:
        """How far it came, and what may be why it came no further."""
        requests = self._listener.request_handler
        parts = [_share("handled", self._handled, handled)]
        if len(requests.forwards) or forwarded is not None:
            parts.append(_share("forwarded", self._forwarded, forwarded))
        if handled and len(requests.forwards) and not len(requests.router):
            parts.append("without a handler what is forwarded is not handled: wait for forwarded=")
        if self._failures:
            parts.append(f"the last failure:\n{self._failures[-1]}")
        return "; ".join(parts)

    def watch(self, deliver: Deliver) -> Deliver:
        """The same deliverer, which this client hears of."""
        urls = self._listener.request_handler.forwards.urls

        async def watched(lease: Lease, delivery: Delivery) -> Outcome:
            outcome = await deliver(lease, delivery)
            self._hear(delivery, urls.get(lease.consumer), outcome)
            return outcome

        return watched

    async def keep(self, lease: Lease, delivery: Delivery) -> Outcome:
        """A deliverer of forwards that sends nothing: this client hears of them, and that is all."""
        return Outcome(code="delivered", url=self._listener.request_handler.forwards.urls[lease.consumer])

    def _hear(self, delivery: Delivery, url: str | None, outcome: Outcome) -> None:
        """Note what came of an attempt: at a forward's URL, or by the handlers."""
        with self._changed:
            if outcome.code != "delivered":
                place = "" if url is None else f"forward to {origin(url)}: {outcome.code}: "
                self._failures.append(place + outcome.excerpt)
            elif url is None:
                self._handled[delivery.message] = None
            else:
                forwarded = Forwarded(id=delivery.message, account=delivery.account, url=url, body=delivery.body)
                self._forwarded.append(forwarded)
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
        requests = self._listener.request_handler
        sources = requests.verification.sources
        peer = str(sources[0].network_address) if sources else _PEER
        timestamp = int(requests.clock() - late)
        headers = signing.headers(message_id, timestamp, self._signatures(message_id, timestamp, body))
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

    def _signatures(self, message_id: str, timestamp: int, body: bytes) -> list[str]:
        verification = self._listener.request_handler.verification
        if verification.secrets:
            return [signing.sign_hmac(verification.secrets[0], message_id, timestamp, body)]
        return [signing.sign_ed25519(self._seed, message_id, timestamp, body)] if verification.public_keys else []


@contextmanager
def listener_client(listener: Listener, *, serve: bool = False, forward: bool = False) -> Iterator[ListenerClient]:
    """Run a listener, its inbox in a temporary folder, until the block ends; handlers in hand may end then.

    What would be forwarded is not sent: it is in `forwarded`, and counts as delivered. With `forward` it is sent. With
    `serve` the listener is also at `url`, a free port of 127.0.0.1, for a sandbox to deliver to.
    """
    if not isinstance(listener, Listener):
        raise TypeError(f"listener_client takes a fotahook.Listener, not {type(listener).__name__}")
    inbox, verification = listener.inbox, listener.request_handler.verification
    with tempfile.TemporaryDirectory(prefix="fotahook-listener-") as folder, start_blocking_portal() as portal:
        seed = secrets.token_bytes(32)
        client = ListenerClient(listener, portal, seed=seed)
        try:
            listener.configure(
                inbox=f"sqlite:///{Path(folder, 'inbox.db')}", verification=_trusting(seed, verification)
            )
        except RuntimeError as error:
            raise RuntimeError("the listener is under test already, or running: leave that block first") from error
        listener.wrap(lambda store: store, client.watch)
        listener.request_handler.forwards.fake_deliver = None if forward else client.keep
        try:
            with portal.wrap_async_context_manager(listener.running()), ExitStack() as stack:
                if serve:
                    bound = stack.enter_context(socket.create_server((_PEER, 0)))
                    client.url = f"http://{_PEER}:{bound.getsockname()[1]}{listener.path}"
                    stack.enter_context(portal.wrap_async_context_manager(serving(listener, bound)))
                yield client
        finally:
            listener.request_handler.forwards.fake_deliver = None
            listener.wrap(lambda store: store, lambda deliver: deliver)
            listener.configure(inbox=inbox, verification=verification)


def _trusting(seed: bytes, verification: Verification) -> Verification:
    """The same verification, with one more public key where it has such alone: their private halves are not here."""
    if verification.secrets or not verification.public_keys:
        return verification
    own = signing.parse_public_key(signing.format_public_key(seed))
    # Those that it has stay: a sandbox may deliver here, and sign with one of them.
    return msgspec.structs.replace(verification, public_keys=(*verification.public_keys, own))


def _share(what: str, found: Sized, wanted: int | None) -> str:
    return f"{what}: {len(found)}" + ("" if wanted is None else f" of {wanted}")


def _bytes(message: Postable) -> bytes:
    match message:
        case bytes():
            return message
        case CampaignMessage():
            return message.body
    return msgspec.json.encode(message)
