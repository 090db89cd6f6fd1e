"""From a request to its response: the sequence of the ASGI app and of the WSGI adapter, and log lines about it."""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, TypeAlias

import msgspec

from fotahook.contract.addresses import sender_address
from fotahook.contract.errors import WebhookRejected, one_line
from fotahook.contract.messages import CHALLENGE, CallbackMessage, parse_message
from fotahook.store.records import Accepted, NewMessage, StoreError, StoreFull, StoreUnavailable

from .forwards import Forwards
from .handlers import Router
from .inbox import NotHandling
from .intake import BODY_LIMIT, BODY_TOO_LONG, FORWARDED_FOR, HANDLERS, USER_AGENT, read_headers, receive
from .settings import HEALTH_PATH, Settings, is_secret_path
from .watch import Event, SenderCounts

log = logging.getLogger("fotahook.listener")

RECENT_SECONDS: Final = 10.0
"""How long health stays bad after a message could not be stored, unless another one is stored: a load balancer that
stops sending must start again, or no message would ever arrive."""
LOG_BURST: Final = 5
"""Lines of one kind that are logged without delay. The burst is allowed again after a minute without a dropped line."""
LOG_INTERVAL_SECONDS: Final = 60.0
_PEER_LIMIT: Final = 100
_CHALLENGE_LIMIT: Final = 128

Failure: TypeAlias = WebhookRejected | StoreError
Header: TypeAlias = tuple[bytes, bytes]
ReadBody: TypeAlias = Callable[[Mapping[str, str], str | None], Awaitable[bytes]]
"""Returns the body of a request with these headers, from this peer; WebhookRejected says why there is none."""


class Response(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    extra_headers: tuple[Header, ...] = ()
    content_type: bytes = b"application/json"

    @property
    def headers(self) -> list[Header]:
        length = b"%d" % len(self.body)
        return [(b"content-type", self.content_type), (b"content-length", length), *self.extra_headers]


def _problem(status: int, code: str, text: str, *headers: Header) -> Response:
    return Response(status, msgspec.json.encode({"errorCode": code, "errorMessage": text}), headers)


HEALTHY: Final = Response(200, b'{"status":"ok"}')
# Does not name the right path, which may be the only secret.
NOT_FOUND: Final = _problem(404, "NOT_FOUND", "messages are not received at this path")
POST_ONLY: Final = _problem(405, "METHOD_NOT_ALLOWED", "send messages with POST", (b"allow", b"POST"))
GET_ONLY: Final = _problem(405, "METHOD_NOT_ALLOWED", "request health with GET", (b"allow", b"GET, HEAD"))


class LogRateLimit:
    """Decides which events of each of a few kinds are logged, so that no sender can fill the disk. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[int | str, tuple[int, float, int]] = {}
        """Of each kind, what is left of the burst, when a line was logged, and how many were dropped since."""

    def hit(self, kind: int | str, *, burst: int = LOG_BURST) -> int | None:
        """Count an event. Returns None if it is not to be logged, else how many were dropped since the last line."""
        with self._lock:
            left, logged_at, dropped = self._counts.get(kind, (burst, float("-inf"), 0))
            now = self._clock()
            # In either direction: the clock may be set back.
            interval_over = abs(now - logged_at) >= LOG_INTERVAL_SECONDS
            if interval_over and dropped == 0:
                left = burst
            if left == 0 and not interval_over:
                self._counts[kind] = left, logged_at, dropped + 1
                return None
            self._counts[kind] = max(0, left - 1), now, 0
            return dropped


class RequestHandler:
    def __init__(self, settings: Settings, router: Router, forwards: Forwards) -> None:
        self.settings, self.router, self.forwards = settings, router, forwards
        self.counts = SenderCounts(settings.clock)
        self.former_paths: Mapping[str, float] = {}
        """Until when messages are accepted at other decoded paths, without a slash at their end."""
        self._warned = False
        self._last_failure: tuple[float, StoreError] | None = None
        self.after_fork()

    def after_fork(self) -> None:
        # A thread of the parent process may have held its lock during the fork.
        self._log_limit = LogRateLimit(self.settings.clock)

    def warn_if_unverified(self) -> None:
        if self._warned or self.settings.verification.required:
            return
        self._warned = True
        if not is_secret_path(self.settings.path):
            log.warning(
                "senders are not verified (no key, no source network, no password, no secret path): "
                "anybody who can reach this listener can send it messages"
            )

    async def respond(
        self,
        method: str,
        path: str,
        peer: str | None,
        headers: Iterable[Header],
        read_body: ReadBody,
        accept: Callable[[NewMessage], Awaitable[Accepted]],
        check: Callable[[], Awaitable[StoreError | None]],
        *failed: Header,
    ) -> Response:
        """The response to a request for a decoded path, without a slash at its end.

        `accept` and `check` are those of `Inbox`. `failed`: further headers where a message is not stored.
        """
        if path == HEALTH_PATH:
            return self._health(await check()) if method in ("GET", "HEAD") else GET_ONLY
        if (response := self._route(method, path)) is not None:
            return response
        found: dict[str, str] = {}
        settings, begun = self.settings, self.settings.clock()
        try:
            found = read_headers(headers)
            settings.verification.check_head(found, peer, begun)
            length = found.get("content-length", "")
            # int() takes only so many digits.
            if length.isascii() and length.isdigit() and int(length.lstrip("0")[:20] or 0) > BODY_LIMIT:
                raise WebhookRejected(413, BODY_TOO_LONG)
            message = receive(
                found,
                await read_body(found, peer),
                verification=settings.verification,
                now=settings.clock(),
                choose=self.consumers,
                dedupe_window=settings.dedupe_window,
            )
            basic = settings.verification.basic
            # The last pair given replaced the others.
            if len(basic) > 1 and msgspec.json.encode(basic[-1][1]) not in message.body:
                self._count_former("former_password", "password")
            self.warn_if_unverified()
            if message.type == CHALLENGE:
                value = parse_message(message.body).extra.get("challenge")
                if not isinstance(value, str) or len(value) > _CHALLENGE_LIMIT:
                    raise WebhookRejected(400, "the challenge is missing or too long")
                return Response(200, msgspec.json.encode({"challenge": value}))
            accepted = await accept(message)
            self._last_failure = None
            if log.isEnabledFor(logging.DEBUG):
                agent = one_line(found.get(USER_AGENT, "none"), _PEER_LIMIT)
                log.debug("stored message %s from %s, User-Agent: %s", accepted.id, self.sender(peer, found), agent)
            # Without an id, messages are known by their content, which can be spelled differently.
            if accepted.conflict and found.get("webhook-id"):
                raise WebhookRejected(409, "an earlier message with this webhook-id has different bytes")
        except (WebhookRejected, StoreError) as error:
            return self._failed(error, found, peer, begun, *failed)
        self._count("repeated" if accepted.duplicate else "new", found, peer, begun)
        return Response(200, msgspec.json.encode({"id": accepted.id, "duplicate": accepted.duplicate}))

    def _route(self, method: str, path: str) -> Response | None:
        if path == self.settings.decoded_path:
            return None if method == "POST" else POST_ONLY
        if method != "POST":
            return NOT_FOUND
        if self.settings.clock() >= self.former_paths.get(path, 0.0):
            # Not which path: it may be nearly the secret one.
            if (dropped := self._log_limit.hit(NOT_FOUND.status, burst=1)) is not None:
                log.warning(
                    "answered 404 to POST requests for another path (%d since the last such line); "
                    "if these were messages, they are lost: compare the registered URL with the listener's path",
                    1 + dropped,
                )
            return NOT_FOUND
        self._count_former("former_path", "path")
        return None

    def _count_former(self, event: Event, what: str) -> None:
        self.counts.happened(event)
        if (more := self._log_limit.hit(event, burst=1)) is not None:
            log.info("messages still come with a %s that was replaced (%d since the last such line)", what, 1 + more)

    def _failed(
        self, error: Failure, headers: Mapping[str, str], peer: str | None, begun: float, *extra: Header
    ) -> Response:
        # Any other store error concerns only this message.
        if isinstance(error, StoreFull | StoreUnavailable):
            self._last_failure = self.settings.clock(), error
        response = _error_response(error, *extra)
        self._count(str(response.status), headers, peer, begun)
        if (dropped := self._log_limit.hit(response.status)) is not None:
            more = f" ({dropped} more responses with {response.status} since the last such line)" if dropped else ""
            if isinstance(error, WebhookRejected):
                sender = self.sender(peer, headers)
                log.warning("rejected a message with %d from %s: %s%s", response.status, sender, error, more)
            else:
                state = "full" if isinstance(error, StoreFull) else "unavailable"
                log.error("the inbox is %s: %s%s", state, error, more)
        return response

    def _count(self, answer: str, headers: Mapping[str, str], peer: str | None, begun: float) -> None:
        address = self.sender(peer, headers) if self.settings.verification.trusted_proxies else peer or ""
        self.counts.answered(answer, address, headers.get(USER_AGENT, ""), begun)

    def sender(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """The sender's address, or what the server says about it."""
        address = sender_address(peer, headers.get(FORWARDED_FOR, ""), self.settings.verification.trusted_proxies)
        return str(address or one_line(peer or "an unknown address", _PEER_LIMIT))

    def _health(self, error: StoreError | None) -> Response:
        failed_at, failure = self._last_failure or (0.0, None)
        # The clock may have been set back since.
        if 0 <= self.settings.clock() - failed_at < RECENT_SECONDS:
            error = error or failure
        return HEALTHY if error is None else msgspec.structs.replace(_error_response(error), status=503)

    def consumers(self, account: str, message: CallbackMessage) -> tuple[str, ...]:
        """The consumers of a message. One that nobody wants goes to the handlers, which log that."""
        forwards = self.forwards.consumers(account, message)
        return (HANDLERS, *forwards) if len(self.router) or not forwards else forwards


def _error_response(error: Failure, *headers: Header) -> Response:
    if isinstance(error, WebhookRejected):
        # `fotahook listen` sends the same code when its server gives up on a slow body before the app does.
        code = "REQUEST_TIMEOUT" if error.status == HTTPStatus.REQUEST_TIMEOUT else "MESSAGE_REFUSED"
        return _problem(error.status, code, str(error), *headers)
    if isinstance(error, StoreFull):
        return _problem(507, "INBOX_FULL", "the inbox is full")
    if isinstance(error, NotHandling):
        return _problem(503, "NOT_HANDLING", "messages are stored but not handled: see the log, then restart")
    return _problem(503, "INBOX_AWAY", "messages cannot be stored now", (b"retry-after", b"5"))
