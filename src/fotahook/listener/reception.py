"""Reception: what the ASGI app and the WSGI adapter do alike with a request, before and after its body is read."""

import logging
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote

from fotahook.contract.messages import CallbackMessage
from fotahook.store.base import NewMessage, StoreFull

from . import answers
from .answers import Answer
from .forward import Forwards
from .handlers import Router
from .proof import Proof, Rejected
from .receive import BODY_LIMIT, DEDUPE_WINDOW, FORWARDED_FOR, HANDLERS, receive, single_headers

log = logging.getLogger("fotahook.listener")

HEALTH_PATH: Final = "/healthz"
_SECRET_LENGTH: Final = 16
"""Characters of a part of the path that make it hard to guess."""


class Reception:
    """Which requests are taken, and what becomes of them."""

    def __init__(
        self, path: str, proof: Proof, *, router: Router, forwards: Forwards, clock: Callable[[], float]
    ) -> None:
        self.path = path
        self.proof = proof
        self._router = router
        self._forwards = forwards
        self.clock = clock
        self.dedupe_window = DEDUPE_WINDOW
        self._warned = False

    @property
    def path(self) -> str:
        """Where messages are received, as in a URL. ValueError for where they cannot be."""
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path = checked_path(path)
        # Servers decode the path of a request.
        self._place = unquote(path).rstrip("/")

    def warn_if_open(self) -> None:
        """Say, once, that nothing proves who sends."""
        if self._warned or self.proof.wanted:
            return
        self._warned = True
        if not any(len(part) >= _SECRET_LENGTH for part in self.path.split("/")):
            log.warning(
                "no proof of sender is configured (no key, no source network, no password, no secret path): "
                "anybody who reaches this listener can send it messages"
            )

    def elsewhere(self, method: str, path: str) -> Answer | None:
        """The answer to what is no message: another path (without its last slash) or method. None: read the body."""
        if path != self._place:
            return answers.NOT_FOUND
        return None if method == "POST" else answers.POST_ONLY

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

    def refuse(self, error: Exception, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
        """The answer to a request that met Rejected or a StoreError, with a line in the log."""
        if isinstance(error, Rejected):
            log.warning("refused a message with %d: %s", error.status, error)
        else:
            log.error("the inbox is %s: %s", "full" if isinstance(error, StoreFull) else "away", error)
        return answers.refused(error, headers)

    def _consumers(self, account: str, message: CallbackMessage) -> tuple[str, ...]:
        """The lanes of a message. What nobody wants is the handlers' too: there, a handler is suggested for it."""
        forwards = self._forwards.wanting(account, message)
        return (HANDLERS, *forwards) if len(self._router) or not forwards else forwards


def checked_path(path: str) -> str:
    """The path, if messages can be received there; ValueError if not."""
    if not path.startswith("/"):
        raise ValueError(f"a path begins with /, unlike {path!r}")
    for character in path:
        if character in " ?#" or not character.isprintable():
            raise ValueError(f"a path is written as in a URL: {character!r} needs percent-encoding in {path!r}")
    if unquote(path).rstrip("/") == HEALTH_PATH:
        raise ValueError(f"{HEALTH_PATH} is taken: it tells whether the listener is well")
    return path


def checked_window(seconds: float) -> float:
    """The time for which a message without an id is known; ValueError if it cannot be one."""
    # Not "below 0": that would let pass what is no number.
    if not seconds >= 0:
        raise ValueError("dedupe_window is a number of seconds, 0 or more")
    return seconds


def checked_timeout(seconds: float) -> float:
    """The time for a body to arrive; ValueError if nothing can."""
    if not seconds > 0:
        raise ValueError("body_timeout is a number of seconds above 0")
    return seconds


def announced_too_long(length: str) -> bool:
    """Whether a Content-Length says that a body is too long to be read."""
    return length.isascii() and length.isdigit() and int(length[:20]) > BODY_LIMIT


TOO_LONG: Final = f"the body has more than {BODY_LIMIT} bytes"
