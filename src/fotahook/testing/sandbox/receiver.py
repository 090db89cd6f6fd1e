"""A receiver that accepts every request and keeps it."""

import threading
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fotahook.contract.messages import CallbackMessage, MessageInvalid, parse_message


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Header names are in lower case; `id` and `account` are those of the headers."""

    id: str
    account: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> CallbackMessage:
        """The message in the body. Raises MessageInvalid if it is not JSON."""
        return parse_message(self.body)


class Receiver:
    """Answers 200 to everything. It is an ASGI app; its methods are for other threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._changed = threading.Condition()
        self._received: list[Received] = []

    @property
    def received(self) -> list[Received]:
        """Every request so far, duplicates included, in the order of arrival."""
        return list(self._received)

    def wait(
        self, count: int = 1, *, kind: str | None = None, account: str | None = None, timeout: float = 30.0
    ) -> list[Received]:
        """Wait for `count` requests of this kind and account and return them. Raises TimeoutError with what arrived.

        `kind` is the message's ``type``, or the name of its one member; `timeout` is in real seconds.
        """

        def found() -> list[Received]:
            return [one for one in self._received if account in (None, one.account) and kind in (None, _kind(one))]

        with self._changed:
            if self._changed.wait_for(lambda: len(found()) >= count, timeout):
                return found()
            last = ", ".join(f"{_kind(one)} for {one.account or 'nobody'}" for one in self._received[-10:])
        raise TimeoutError(f"{len(found())} of {count} came in {timeout:g} s; the last: {last or 'nothing'}")

    def clear(self) -> None:
        """Forget the requests so far."""
        self._received.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        received = Received(
            id=headers.get("webhook-id", ""),
            account=unquote(headers.get("fotahook-account", "")),
            headers=headers,
            body=body,
        )
        # Before the response: a test that waited for the delivery finds it here.
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        await Response()(scope, receive, send)


def _kind(received: Received) -> str | None:
    try:
        return received.message.kind
    except MessageInvalid:
        return None
