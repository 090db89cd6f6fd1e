"""Cursors of lists and of the events. They are sealed, because positions count what happens to all accounts."""

import base64
import hashlib
import hmac
import re
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from ..contract.keys import cursor_key
from ..store.events import EventCursor
from . import errors

_ALTERNATIVES: Final = b"._"
"""In place of + and /: no cursor begins as a flag of a command does, nor needs quotes in a URL or a shell."""
_BLOCK: Final = 32
"""Positions are filled up to so many bytes, so that not even the length of a number shows."""
_ANY_POSITION = re.compile(r"[^\0]+")
_NUMBER = re.compile(r"[0-9]{1,18}")
_EVENT_POSITION = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){3}")


class Cursors:
    """Makes and reads cursors; those of another secret key are refused."""

    def __init__(self, secret_key: bytes) -> None:
        self._key = cursor_key(secret_key)
        self._box = SecretBox(self._key)

    def seal(self, *position: object) -> str:
        """A cursor for a position: one value, or several numbers. A position has one cursor, so events have one id."""
        content = ".".join(map(str, position)).encode()
        filled = content.ljust(-(-len(content) // _BLOCK) * _BLOCK, b"\0")
        # Another content has another nonce, as the box requires.
        nonce = hmac.digest(self._key, filled, hashlib.sha256)[: SecretBox.NONCE_SIZE]
        return base64.b64encode(self._box.encrypt(filled, nonce), _ALTERNATIVES).decode().rstrip("=")

    def open(self, text: str | None, pattern: re.Pattern[str] = _ANY_POSITION) -> str | None:
        """The position of a cursor; None if there is no cursor. Raises an ApiError if it is none of ours."""
        if text is None:
            return None
        padded = text + "=" * (-len(text) % 4)
        try:
            sealed = base64.b64decode(padded.encode("ascii"), altchars=_ALTERNATIVES, validate=True)
            position = self._box.decrypt(sealed).rstrip(b"\0").decode()
        except (ValueError, CryptoError):
            position = ""
        if not pattern.fullmatch(position):
            raise errors.INVALID("The cursor is not one of this list; begin without one.")
        return position

    def open_number(self, text: str | None) -> int | None:
        """The position of a cursor, where positions are numbers."""
        position = self.open(text, _NUMBER)
        return None if position is None else int(position)

    def seal_events(self, cursor: EventCursor) -> str:
        """A cursor of the events, as text."""
        return self.seal(*msgspec.structs.astuple(cursor))

    def open_events(self, text: str | None) -> EventCursor | None:
        """A cursor of the events, 0 for the beginning of the store; None if there is no cursor."""
        if text == "0":
            return EventCursor()
        position = self.open(text, _EVENT_POSITION)
        return None if position is None else EventCursor(*map(int, position.split(".")))
