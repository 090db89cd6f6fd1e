"""Reception: what the ASGI app and the WSGI adapter do alike with a request, before and after its body is read."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import unquote

from fotahook.contract.error_responses import one_line
from fotahook.contract.messages import CallbackMessage
from fotahook.store.records import Accepted, NewMessage, StoreError, StoreFull, StoreUnavailable

from . import responses, validation
from .forwards import Forwards
from .handlers import Router
from .intake import BODY_LIMIT, DEDUPE_WINDOW, FORWARDED_FOR, HANDLERS, receive, single_headers
from .log_rate_limit import Repeats
from .responses import Answer
from .verification import Proof, Rejected, sender_address

log = logging.getLogger("fotahook.listener")

HEALTH_PATH: Final = "/healthz"
FRESH_SECONDS: Final = 10.0
"""How long a message that could not be stored speaks against the inbox, if none is stored after it.

Not for ever: a load balancer that stops sending on account of it must begin again, or nothing would ever be stored.
"""
_PEER_LIMIT: Final = 100
_SECRET_LENGTH: Final = 16
"""Characters of a part of the path that make it hard to guess."""


class Reception:
    """Which requests are taken, and what becomes of them."""

    def __init__(
        self, path: str, proof: Proof, *, router: Router, forwards: Forwards, clock: Callable[[], float]
    ) -> None:
        self.path = path
        self.proof = proof
        self.router = router
        self.forwards = forwards
        self.clock = clock
        self.dedupe_window = DEDUPE_WINDOW
        self._warned = False
        self._repeats = Repeats(clock)
        self._failed: tuple[float, StoreError] | None = None

    @property
    def path(self) -> str:
        """Where messages are received, as in a URL. ValueError for where they cannot be."""
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path = checked_path(path)
        # Servers decode the path of a request.
        self._place = unquote(path).rstrip("/")

    def begin_anew(self) -> None:
        """After a fork: a thread that stayed behind may have been counting just then."""
        self._repeats = Repeats(self.clock)

    def warn_if_open(self) -> None:
        """Say, once, that nothing proves who sends."""
        if self._warned or self.proof.wanted:
            return
        self._warned = True
        if not is_secret(self.path):
            log.warning(
                "no proof of sender is configured (no key, no source network, no password, no secret path): "
                "anybody who reaches this listener can send it messages"
            )

    def receives_at(self, path: str) -> bool:
        """Whether messages are received at a path, with or without a slash at its end."""
        return path.rstrip("/") == self._place

    def elsewhere(self, method: str, path: str) -> Answer | None:
        """The answer to what is no message: another path (without its last slash) or method. None: read the body."""
        if path != self._place:
            if method == "POST":
                self._tell_missed()
            return responses.NOT_FOUND
        return None if method == "POST" else responses.POST_ONLY

    def admit(self, pairs: Iterable[tuple[bytes, bytes]], peer: str | None) -> dict[str, str]:
        """The headers that are looked at; Rejected (400 or 403) if the body need not even be read."""
        headers = single_headers(pairs)
        self.proof.check_source(peer, headers.get(FORWARDED_FOR, ""))
        return headers

    def take(self, headers: dict[str, str], body: bytes) -> NewMessage:
        """The message for the inbox; Rejected says why there is none."""
        return receive(
            headers,
            body,
            proof=self.proof,
            now=self.clock(),
            choose=self._consumers,
            dedupe_window=self.dedupe_window,
        )

    def stored(self, accepted: Accepted) -> Answer:
        """The answer to a message that the inbox has taken, now or earlier; Rejected (409) if that was another one."""
        self._failed = None
        return responses.accepted(accepted)

    def refuse(
        self,
        error: Rejected | StoreError,
        peer: str | None,
        headers: Mapping[str, str],
        farewell: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """The answer to a request that met an error, told in the log. `headers` are those that `admit` found."""
        # Any other error of the store lies with the message.
        if isinstance(error, StoreFull | StoreUnavailable):
            self._failed = self.clock(), error
        answer = responses.refused(error, farewell)
        if (untold := self._repeats.due(answer.status)) is not None:
            self._tell_refused(error, answer.status, self._sender(peer, headers), untold)
        return answer

    def health(self, trouble: StoreError | None) -> Answer:
        """Whether messages are stored. `trouble` is what came of trying the inbox, if it is open."""
        if trouble is None and self._failed is not None:
            failed_at, error = self._failed
            # The clock may have been set back since.
            trouble = error if 0 <= self.clock() - failed_at < FRESH_SECONDS else None
        return responses.HEALTHY if trouble is None else responses.unwell(trouble)

    def _sender(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """Who sent a request, for the log: where that cannot be told as an address, whatever the server says."""
        address = sender_address(peer, headers.get(FORWARDED_FOR, ""), self.proof.trusted_proxies)
        return str(address or one_line(peer or "an unknown address", _PEER_LIMIT))

    def _tell_refused(self, error: Rejected | StoreError, status: int, sender: str, untold: int) -> None:
        more = f" ({untold} more were answered {status} since this was last said)" if untold else ""
        if isinstance(error, Rejected):
            log.warning("refused a message with %d from %s: %s%s", status, sender, error, more)
        else:
            log.error("the inbox is %s: %s%s", "full" if isinstance(error, StoreFull) else "away", error, more)

    def _tell_missed(self) -> None:
        """Count what was posted to another path, and say so now and then. Not to which: it may be all but a secret."""
        if (untold := self._repeats.due(responses.NOT_FOUND.status, at_once=1)) is not None:
            log.warning(
                "answered 404 to what was posted to another path than the listener's (%d since this was last said): "
                "if these were messages, they are lost; compare the registered URL with the listener's path",
                1 + untold,
            )

    def _consumers(self, account: str, message: CallbackMessage) -> tuple[str, ...]:
        """The lanes of a message. What nobody wants is the handlers' too: there, a handler is suggested for it."""
        forwards = self.forwards.wanting(account, message)
        return (HANDLERS, *forwards) if len(self.router) or not forwards else forwards


def checked_path(path: str) -> str:
    """The path, if messages can be received there; ValueError if not."""
    if not validation.text("path", path).startswith("/"):
        raise ValueError(f"a path begins with /, unlike {path!r}")
    for character in path:
        if character in " ?#" or not character.isprintable():
            raise ValueError(f"a path is written as in a URL: {character!r} needs percent-encoding in {path!r}")
    if unquote(path).rstrip("/") == HEALTH_PATH:
        raise ValueError(f"{HEALTH_PATH} is taken: it tells whether the listener is well")
    return path


def is_secret(path: str) -> bool:
    """Whether a path counts as one that nobody can guess, and so is not to be told."""
    # By what it says: percent-encoding makes a short word long, and no harder to guess.
    return any(len(part) >= _SECRET_LENGTH for part in unquote(path).split("/"))


def checked_window(seconds: float) -> float:
    """The time for which a message without an id is known; TypeError or ValueError if it cannot be one."""
    return validation.span("dedupe_window", seconds, "seconds")


def announced_too_long(length: str) -> bool:
    """Whether a Content-Length says that a body is too long to be read."""
    return length.isascii() and length.isdigit() and int(length[:20]) > BODY_LIMIT


CUT_OFF: Final = "the body ended before it was whole"
TOO_LONG: Final = f"the body has more than {BODY_LIMIT} bytes"
