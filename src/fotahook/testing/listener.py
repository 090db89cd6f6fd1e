"""Tests of a listener, in a thread: post messages as a sender does, and wait until its handlers have run."""

import itertools
import secrets
import socket
import tempfile
import threading
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
from fotahook.contract.addresses import origin
from fotahook.delivery import Deliver, Outcome
from fotahook.delivery.outcomes import DELIVERED
from fotahook.listener import Listener
from fotahook.store.records import Delivery, Lease

from .sandbox.servers import serving
from .simulator.campaign import CampaignMessage

Postable = bytes | Mapping[str, object] | CampaignMessage

_PEER: Final = "127.0.0.1"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The listener's response to one post: `id` and `duplicate` with 200, otherwise `error`."""

    status: int
    id: str | None = None
    duplicate: bool = False
    error: str | None = None


class Forwarded(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was forwarded to `url`, or recorded instead. `id` is the message's id in the inbox."""

    id: str
    account: str
    url: str
    body: bytes


class ListenerClient:
    """Posts to a listener; ``listener_client`` creates it."""

    def __init__(self, listener: Listener, portal: BlockingPortal, seed: bytes) -> None:
        self.url = ""
        "The listener's URL if it is served, otherwise empty."
        self._listener, self._portal, self._seed = listener, portal, seed
        self._numbers, self._changed = itertools.count(1), threading.Condition()
        self._handled: dict[str, None] = {}
        self._forwarded: list[Forwarded] = []
        self._failures: list[str] = []

    @property
    def handled(self) -> list[str]:
        """The ids of the messages handled without a failure, in that order."""
        return list(self._handled)

    @property
    def forwarded(self) -> list[Forwarded]:
        """The messages forwarded, in that order: recorded instead of sent, or accepted by a receiver with `forward`."""
        return list(self._forwarded)

    @property
    def failures(self) -> list[str]:
        """The tracebacks of failed handlers and the errors of failed forwards, oldest first."""
        return list(self._failures)

    def post(
        self, *messages: Postable, duplicate: int = 0, late: float = 0.0, reorder: int | None = None
    ) -> list[Answered]:
        """Post messages in order and return the responses in the order of the posts.

        `duplicate` is how often each message is posted again, with the same ``webhook-id``; `late` the seconds since it
        was signed; `reorder` a seed by which all posts are shuffled. The client's address is in the listener's first
        source network. It signs with the listener's first secret, or, for a listener with ``public_keys`` only, with a
        key that the listener accepts until the block ends.
        """
        if duplicate < 0:
            raise ValueError(f"duplicate={duplicate}: the number of times to post each message again, 0 or more")
        posts = [(f"test-{next(self._numbers)}", _bytes(message)) for message in messages]
        posts = [post for post in posts for _ in range(1 + duplicate)]
        if reorder is not None:
            Random(reorder).shuffle(posts)
        return [self._portal.call(self._post, message_id, body, late) for message_id, body in posts]

    def wait_for(self, *, handled: int | None = None, forwarded: int | None = None, timeout: float = 30.0) -> list[str]:
        """Wait for this many messages handled and forwarded, and return the ids of the messages handled so far.

        A message with two forwards is forwarded twice. A listener without handlers never handles a message that it
        forwards. Raises TimeoutError with the numbers so far and the last failure.
        """
        if handled is None and forwarded is None:
            raise TypeError("wait_for needs handled= or forwarded=, the number of messages to wait for")

        def reached() -> bool:
            return len(self._handled) >= (handled or 0) and len(self._forwarded) >= (forwarded or 0)

        with self._changed:
            if self._changed.wait_for(reached, timeout):
                return self.handled
            requests = self._listener.request_handler
            parts = [f"handled: {len(self._handled)}" + ("" if handled is None else f" of {handled}")]
            if len(requests.forwards) or forwarded is not None:
                parts.append(f"forwarded: {len(self._forwarded)}" + ("" if forwarded is None else f" of {forwarded}"))
            if handled and len(requests.forwards) and not len(requests.router):
                parts.append("a listener without handlers does not handle what it forwards: wait for forwarded=")
            if self._failures:
                parts.append(f"the last failure:\n{self._failures[-1]}")
            raise TimeoutError("; ".join(parts))

    def _watch(self, deliver: Deliver) -> Deliver:
        """The deliverer, with its outcomes recorded."""
        urls = self._listener.request_handler.forwards.urls

        async def watched(lease: Lease, delivery: Delivery) -> Outcome:
            outcome, url = await deliver(lease, delivery), urls.get(lease.consumer)
            with self._changed:
                if outcome.code != DELIVERED:
                    prefix = "" if url is None else f"forward to {origin(url)}: {outcome.code}: "
                    self._failures.append(prefix + outcome.excerpt)
                elif url is None:
                    self._handled[delivery.message] = None
                else:
                    forwarded = Forwarded(id=delivery.message, account=delivery.account, url=url, body=delivery.body)
                    self._forwarded.append(forwarded)
                self._changed.notify_all()
            return outcome

        return watched

    async def _post(self, message_id: str, body: bytes, late: float) -> Answered:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        settings = self._listener.settings
        verification = settings.verification
        peer = str(verification.sources[0].network_address) if verification.sources else _PEER
        timestamp, signatures = int(settings.clock() - late), []
        if verification.secrets:
            signatures = [signing.signer(secrets=[verification.secrets[0]])(message_id, timestamp, body)]
        elif verification.public_keys:
            signatures = [signing.signer(seeds=[self._seed])(message_id, timestamp, body)]
        headers = signing.headers(message_id, timestamp, signatures).items()
        scope: dict[str, Any] = {"type": "http", "method": "POST", "client": (peer, 50_000)}
        scope["path"] = unquote(settings.path)
        scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]
        await self._listener(scope, receive, send)
        content: dict[str, Any] = msgspec.json.decode(sent[1]["body"])
        found = {name: content[name] for name in ("id", "duplicate") if name in content}
        return Answered(status=sent[0]["status"], error=content.get("errorMessage"), **found)


async def _skip(lease: Lease, delivery: Delivery) -> Outcome:
    """A deliverer of forwards that sends nothing."""
    return Outcome(code=DELIVERED)


@contextmanager
def listener_client(listener: Listener, *, serve: bool = False, forward: bool = False) -> Iterator[ListenerClient]:
    """Run a listener, with its inbox in a temporary folder, until the block ends and its running handlers have ended.

    Forwards are recorded in `forwarded` and count as delivered; with `forward` they are sent. With `serve` the listener
    is also served at `url`, on a free port of 127.0.0.1, so that a sandbox can deliver to it.
    """
    if not isinstance(listener, Listener):
        raise TypeError(f"listener_client takes a fotahook.Listener, not {type(listener).__name__}")
    inbox, verification = listener.settings.inbox, listener.settings.verification
    with tempfile.TemporaryDirectory(prefix="fotahook-listener-") as folder, start_blocking_portal() as portal:
        seed = secrets.token_bytes(32)
        client, trusting = ListenerClient(listener, portal, seed), verification
        if verification.signed and not verification.secrets:
            # The private keys are not known here. They stay: a sandbox may deliver here and sign with one of them.
            own = signing.parse_public_key(signing.format_public_key(seed))
            trusting = msgspec.structs.replace(verification, public_keys=(*verification.public_keys, own))
        try:
            listener.configure(inbox=f"sqlite:///{Path(folder, 'inbox.db')}", verification=trusting)
        except RuntimeError as error:
            raise RuntimeError("the listener is under test already, or running: leave that block first") from error
        listener.wrap(lambda store: store, client._watch)
        listener.request_handler.forwards.fake_deliver = None if forward else _skip
        try:
            with portal.wrap_async_context_manager(listener.running()), ExitStack() as stack:
                if serve:
                    bound = stack.enter_context(socket.create_server((_PEER, 0)))
                    client.url = f"http://{_PEER}:{bound.getsockname()[1]}{listener.settings.path}"
                    stack.enter_context(portal.wrap_async_context_manager(serving(listener, bound)))
                yield client
        finally:
            listener.request_handler.forwards.fake_deliver = None
            listener.wrap(lambda store: store, lambda deliver: deliver)
            listener.configure(inbox=inbox, verification=verification)


def _bytes(message: Postable) -> bytes:
    if isinstance(message, CampaignMessage):
        return message.body
    return message if isinstance(message, bytes) else msgspec.json.encode(message)
