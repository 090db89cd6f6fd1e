"""A receiver that takes whatever comes and remembers it."""

import threading
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
from starlette.types import Receive, Scope, Send

from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message

from .http_server import answer, read_body

_SHOWN: Final = 10


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request that came. Header names are in lower case; `id` and `account` are those of its headers."""

    id: str
    account: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> CallbackMessage:
        """The message in the body; MessageInvalid if it is not JSON."""
        return parse_message(self.body)


class Receiver:
    """Answers 200 to everything. An ASGI app; the rest of it is for other threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._changed = threading.Condition()
        self._received: list[Received] = []

    @property
    def received(self) -> list[Received]:
        """Everything that came, repetitions too, in the order in which it came."""
        with self._changed:
            return list(self._received)

    def wait(
        self, count: int = 1, *, kind: str | None = None, account: str | None = None, timeout: float = 30.0
    ) -> list[Received]:
        """What came of this kind and for this account, once it is so many; TimeoutError tells what came instead.

        `kind` is the message's ``type``, or the name of its one member; `timeout` is real seconds.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                fitting = [one for one in self._received if _fits(one, kind, account)]
                if len(fitting) >= count:
                    return fitting
                left = until - time.monotonic()
                if left <= 0:
                    came = ", ".join(f"{_kind(one)} for {one.account or 'nobody'}" for one in self._received[-_SHOWN:])
                    raise TimeoutError(
                        f"{len(fitting)} of {count} came in {timeout:g} s; the last: {came or 'nothing'}"
                    )
                self._changed.wait(left)

    def clear(self) -> None:
        """Forget what came."""
        with self._changed:
            self._received.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        received = Received(
            id=headers.get("webhook-id", ""),
            account=unquote(headers.get("fotahook-account", "")),
            headers=headers,
            body=body,
        )
        # Before the answer: who waits for a delivery finds it here.
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        await answer(send, 200)


def _fits(received: Received, kind: str | None, account: str | None) -> bool:
    return account in (None, received.account) and kind in (None, _kind(received))


def _kind(received: Received) -> str | None:
    try:
        return received.message.kind
    except MessageInvalid:
        return None
