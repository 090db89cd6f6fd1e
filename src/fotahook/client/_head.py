"""Reads the head of an answer strictly: what is not HTTP/1 by the letter is not guessed at.

http.client forgives much, and parses headers as e-mail, which takes a tenth of a call.
"""

import re
from http.client import HTTPException, HTTPMessage, HTTPResponse, LineTooLong, UnknownProtocol
from typing import BinaryIO

LONGEST_LINE = 65536
MOST_HEADERS = 100

# RFC 9110, sections 5.1 and 5.5: a token, a colon, and text without control characters but the tab.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r?\n")
# RFC 9112, section 7.1: a size in hexadecimal, and extensions, which mean nothing to us. 16 digits are enough.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r?\n")
_VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11}


class StrictResponse(HTTPResponse):
    """http.client's response with a stricter beginning; interim answers (1xx) are passed over."""

    def begin(self, *args: object, **kwargs: object) -> None:
        """Read the head of the answer, and say how its body ends."""
        self._read_head()
        while 100 <= self.status < 200 and self.status != 101:
            self._read_head()
        self._body_ends()

    def _read_head(self) -> None:
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]  # private, so that no stub has it
        if version not in _VERSIONS:
            raise UnknownProtocol(version)
        self.code, self.reason, self.version = self.status, reason.strip(), _VERSIONS[version]
        self.headers = self.msg = _fields(self.fp)

    def _body_ends(self) -> None:
        """RFC 9112, section 6.3: by its chunks, by its length, or with the connection."""
        connection = (self.headers.get("connection") or "").lower()
        self.chunked = self.headers.get("transfer-encoding") is not None
        self.chunk_left = None
        self.length = _length(self.headers)
        if self.chunked and (self.length is not None or self.headers["transfer-encoding"].lower() != "chunked"):
            raise HTTPException("a transfer coding other than chunked, or a length beside it")
        if self.status in (204, 304):
            self.length, self.chunked = 0, False
        kept = "close" not in connection if self.version == 11 else "keep-alive" in connection
        self.will_close = not kept or (self.length is None and not self.chunked)

    def _read_next_chunk_size(self) -> int:
        # http.client takes a size such as `-1` or `0x_1`, and calls any other line an answer that was cut off.
        line = self.fp.readline(LONGEST_LINE + 1)
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise HTTPException("a chunk without a size") if line.endswith(b"\n") else ConnectionResetError("cut off")
        return int(chunk[1], 16)


def _fields(file: BinaryIO) -> HTTPMessage:
    headers = HTTPMessage()
    for _ in range(MOST_HEADERS + 1):
        line = file.readline(LONGEST_LINE + 1)
        if line in (b"\r\n", b"\n"):
            return headers
        if len(line) > LONGEST_LINE:
            raise LineTooLong("header line")
        field = _FIELD.fullmatch(line)
        if field is None:
            # Cut off in the middle, or not a header.
            raise HTTPException("a header that is none") if line.endswith(b"\n") else ConnectionResetError("cut off")
        headers.set_raw(field[1].decode("ascii"), field[2].decode("latin-1"))
    raise HTTPException(f"more than {MOST_HEADERS} headers")


def _length(headers: HTTPMessage) -> int | None:
    values = set(headers.get_all("content-length", ()))
    if not values:
        return None
    length = values.pop()
    # As many digits as any limit of ours has: int() is slow at longer ones.
    if values or not (length.isascii() and length.isdigit() and len(length) < 20):
        raise HTTPException("a content length that is none")
    return int(length)
