"""Which requests the ASGI app and the WSGI adapter accept, their bodies and responses, and log lines about them."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote

import msgspec

from fotahook.contract.addresses import sender_address
from fotahook.contract.errors import WebhookRejected, one_line
from fotahook.contract.messages import CHALLENGE, CallbackMessage, parse_message
from fotahook.delivery import Deadline
from fotahook.store.records import Accepted, NewMessage, StoreError, StoreFull, StoreUnavailable

from . import validation
from .forwards import Forwards
from .handlers import Router
from .intake import BODY_LIMIT, BODY_TOO_LONG, DEDUPE_WINDOW, FORWARDED_FOR, HANDLERS, USER_AGENT, receive
from .sender import Event, SenderCounts
from .verification import Verification

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

log = logging.getLogger("fotahook.listener")

HEALTH_PATH: Final = "/healthz"
METRICS_PATH: Final = "/metrics"
RECENT_SECONDS: Final = 10.0
"""How long health stays bad after a message could not be stored, unless another one is stored.

It must become good by itself: a load balancer that stops sending must start again, or no message would ever arrive.
"""
BODY_CUT_OFF: Final = "the body ended before it was complete"
LOG_BURST: Final = 5
"""Lines of one kind that are logged without delay. The burst is allowed again after a minute without a dropped line."""
LOG_INTERVAL_SECONDS: Final = 60.0
"""Between two lines of one kind after the burst."""
_PEER_LIMIT: Final = 100
_SHORT: Final = 6
"""Digits of a length that is below the limit in any case."""
_CHALLENGE_LIMIT: Final = 128
_SMALL_BODY: Final = 64 * 1024
"""Bytes that a server holds of a request anyway, before anybody reads it."""
_SECRET_LENGTH: Final = 16
"""Characters of a path segment that make it hard to guess."""


Header: TypeAlias = tuple[bytes, bytes]
Failure: TypeAlias = WebhookRejected | StoreError


class Response(msgspec.Struct, frozen=True):
    """A complete response, by default with a JSON body."""

    status: int
    body: bytes
    extra_headers: tuple[Header, ...] = ()
    content_type: bytes = b"application/json"

    @property
    def headers(self) -> list[Header]:
        """All headers."""
        length = b"%d" % len(self.body)
        return [(b"content-type", self.content_type), (b"content-length", length), *self.extra_headers]


def _problem(status: int, code: str, text: str, *headers: Header) -> Response:
    """An error in ThingSpace's format."""
    return Response(status, msgspec.json.encode({"errorCode": code, "errorMessage": text}), headers)


HEALTHY: Final = Response(200, b'{"status":"ok"}')
NOT_HANDLING: Final = _problem(503, "NOT_HANDLING", "messages are stored but not handled: see the log, then restart")
# Does not name the right path, which may be the only secret.
NOT_FOUND: Final = _problem(404, "NOT_FOUND", "messages are not received at this path")
POST_ONLY: Final = _problem(405, "METHOD_NOT_ALLOWED", "send messages with POST", (b"allow", b"POST"))
GET_ONLY: Final = _problem(405, "METHOD_NOT_ALLOWED", "request health with GET", (b"allow", b"GET, HEAD"))


class LogRateLimit:
    """Counts events of each kind and decides which are logged, so that no sender can fill the disk. Thread-safe.

    It keeps the counts of every kind for good, so the kinds must be few.
    """

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


@dataclass(kw_only=True, eq=False)
class RequestHandler:
    """Decides which requests are accepted, and makes and logs their responses."""

    router: Router
    forwards: Forwards
    clock: Callable[[], float]
    path: str = "/"
    """The path of messages, as written in a URL."""
    verification: Verification = field(default_factory=Verification)
    dedupe_window: float = DEDUPE_WINDOW
    former_paths: Mapping[str, float] = field(default_factory=dict)
    """Until when messages are accepted at other decoded paths, without a slash at their end."""
    _warned: bool = field(default=False, init=False)
    _last_failure: tuple[float, StoreError] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.counts = SenderCounts(self.clock)
        self.after_fork()

    def after_fork(self) -> None:
        # A thread of the parent process may have held its lock during the fork.
        self._log_limit = LogRateLimit(self.clock)

    def warn_if_unverified(self) -> None:
        """Log once if nothing verifies senders."""
        if self._warned or self.verification.required:
            return
        self._warned = True
        if not is_secret_path(self.path):
            log.warning(
                "senders are not verified (no key, no source network, no password, no secret path): "
                "anybody who can reach this listener can send it messages"
            )

    def matches_path(self, path: str) -> bool:
        """Whether messages are received at a decoded path; a slash at its end does not matter."""
        return path.rstrip("/") == _decoded(self.path)

    def route(self, method: str, path: str) -> Response | None:
        """The response to a request that is not a message. None: read the body."""
        if self.matches_path(path):
            return None if method == "POST" else POST_ONLY
        if method != "POST":
            return NOT_FOUND
        if self.clock() >= self.former_paths.get(path.rstrip("/"), 0.0):
            # Not which path: it may be nearly the secret one.
            if (dropped := self._log_limit.hit(NOT_FOUND.status, burst=1)) is not None:
                log.warning(
                    "answered 404 to POST requests for another path (%d since the last such line); "
                    "if these were messages, they are lost: compare the registered URL with the listener's path",
                    1 + dropped,
                )
            return NOT_FOUND
        self._tell_of_former("former_path", "path")
        return None

    def check_headers(self, headers: Mapping[str, str], peer: str | None) -> None:
        """WebhookRejected (401, 403 or 413) if there is no need to read the body."""
        self.verification.check_source(peer, headers.get(FORWARDED_FOR, ""))
        length = headers.get("content-length", "")
        if (
            len(length) > _SHORT
            and length.isascii()
            and length.isdigit()
            and int(length.lstrip("0")[:20] or 0) > BODY_LIMIT
        ):
            raise WebhookRejected(413, BODY_TOO_LONG)
        self.verification.check_signature_headers(headers, self.clock())

    def read_message(self, headers: dict[str, str], body: bytes) -> NewMessage:
        """The message to store in the inbox. WebhookRejected says why there is none."""
        checks, window = self.verification, self.dedupe_window
        message = receive(
            headers, body, verification=checks, now=self.clock(), choose=self.consumers, dedupe_window=window
        )
        # The last pair given replaced the others.
        if len(checks.basic) > 1 and msgspec.json.encode(checks.basic[-1][1]) not in body:
            self._tell_of_former("former_password", "password")
        self.warn_if_unverified()
        return message

    def _tell_of_former(self, event: Event, what: str) -> None:
        self.counts.happened(event)
        if (more := self._log_limit.hit(event, burst=1)) is not None:
            log.info("messages still come with a %s that was replaced (%d since the last such line)", what, 1 + more)

    def answer_challenge(self, message: NewMessage) -> Response | None:
        """The response to the challenge of a service that verifies endpoints; None for any other message."""
        if message.type != CHALLENGE:
            return None
        value = parse_message(message.body).extra.get("challenge")
        if not isinstance(value, str) or len(value) > _CHALLENGE_LIMIT:
            raise WebhookRejected(400, "the challenge is missing or too long")
        return Response(200, msgspec.json.encode({"challenge": value}))

    def accepted(self, accepted: Accepted, headers: Mapping[str, str], peer: str | None, begun: float) -> Response:
        """The response to a stored message or a repetition. WebhookRejected (409) for an id with different bytes."""
        self._last_failure = None
        if log.isEnabledFor(logging.DEBUG):
            agent = one_line(headers.get(USER_AGENT, "none"), _PEER_LIMIT)
            log.debug("stored message %s from %s, User-Agent: %s", accepted.id, self.sender(peer, headers), agent)
        # Without an id, messages are known by their content, which can be spelled differently.
        if accepted.conflict and headers.get("webhook-id"):
            raise WebhookRejected(409, "an earlier message with this webhook-id has different bytes")
        self._count("repeated" if accepted.duplicate else "new", headers, peer, begun)
        return Response(200, msgspec.json.encode({"id": accepted.id, "duplicate": accepted.duplicate}))

    def failed(
        self, error: Failure, headers: Mapping[str, str], peer: str | None, begun: float, *extra_headers: Header
    ) -> Response:
        """The response to a request that failed, which is also logged. `headers` are those of `read_headers`."""
        # Any other store error concerns only this message.
        if isinstance(error, StoreFull | StoreUnavailable):
            self._last_failure = self.clock(), error
        response = _error_response(error, *extra_headers)
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
        address = self.sender(peer, headers) if self.verification.trusted_proxies else peer or ""
        self.counts.answered(answer, address, headers.get(USER_AGENT, ""), begun)

    def sender(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """The sender's address, or what the server says about it."""
        address = sender_address(peer, headers.get(FORWARDED_FOR, ""), self.verification.trusted_proxies)
        return str(address or one_line(peer or "an unknown address", _PEER_LIMIT))

    def health(self, error: StoreError | None) -> Response:
        """The response about health. `error`: why the inbox cannot be written, if it is open and cannot."""
        if error is None and self._last_failure is not None:
            failed_at, failure = self._last_failure
            # The clock may have been set back since.
            error = failure if 0 <= self.clock() - failed_at < RECENT_SECONDS else None
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
    return _problem(503, "INBOX_AWAY", "messages cannot be stored now", (b"retry-after", b"5"))


@lru_cache
def _decoded(path: str) -> str:
    """A path as servers pass it on."""
    return unquote(path).rstrip("/")


def check_path(path: str) -> str:
    """The path, if messages can be received there. ValueError if not."""
    if not validation.text("path", path).startswith("/"):
        raise ValueError(f"a path must begin with /, unlike {path!r}")
    for character in path:
        if character in " ?#" or not character.isprintable():
            raise ValueError(f"a path must be written as in a URL: percent-encode {character!r} in {path!r}")
    if unquote(path).rstrip("/") == HEALTH_PATH:
        raise ValueError(f"the path {HEALTH_PATH} is reserved for health checks")
    return path


def is_secret_path(path: str) -> bool:
    """Whether a path is hard to guess, and so must not be shown."""
    # Decoded, because percent-encoding makes a short segment longer but not harder to guess.
    return any(len(segment) >= _SECRET_LENGTH for segment in unquote(path).split("/"))


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
                chunks.append(chunk := event.get("body", b""))
                size, owed = size + len(chunk), owed + len(chunk)
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
