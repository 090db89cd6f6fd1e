"""A strict parser for the head of a response: anything that is not valid HTTP/1 is an error.

http.client is lenient, and parses headers as e-mail, which takes a tenth of a call.
"""

import re
from http.client import HTTPException, HTTPMessage, HTTPResponse, LineTooLong, UnknownProtocol
from typing import BinaryIO

MAX_LINE = 65536
MAX_HEADERS = 100

# RFC 9110, sections 5.1 and 5.5: a token, a colon, and text without control characters other than the tab.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r?\n")
# RFC 9112, section 7.1: a hexadecimal size, and extensions, which are ignored. 16 digits are enough.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r?\n")
_VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11}


class StrictResponse(HTTPResponse):
    """http.client's response with a strict head. Interim responses (1xx) are skipped."""

    def begin(self, *args: object, **kwargs: object) -> None:
        """Read the head, and determine how the body ends."""
        self._read_head()
        while 100 <= self.status < 200 and self.status != 101:
            self._read_head()
        self._set_body_end()

    def _read_head(self) -> None:
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]  # private, so not in typeshed
        if version not in _VERSIONS:
            raise UnknownProtocol(version)
        self.code, self.reason, self.version = self.status, reason.strip(), _VERSIONS[version]
        self.headers = self.msg = _read_headers(self.fp)

    def _set_body_end(self) -> None:
        """RFC 9112, section 6.3: the body ends with its last chunk, at its length, or with the connection."""
        connection = (self.headers.get("connection") or "").lower()
        self.chunked = self.headers.get("transfer-encoding") is not None
        self.chunk_left = None
        self.length = _content_length(self.headers)
        if self.chunked and (self.length is not None or self.headers["transfer-encoding"].lower() != "chunked"):
            raise HTTPException("a transfer coding other than chunked, or one beside a content length")
        if self.status in (204, 304):
            self.length, self.chunked = 0, False
        keep_alive = "close" not in connection if self.version == 11 else "keep-alive" in connection
        self.will_close = not keep_alive or (self.length is None and not self.chunked)

    def _read_next_chunk_size(self) -> int:
        # http.client accepts sizes such as `-1` or `0x_1`, and reports any other line as an incomplete response.
        line = self.fp.readline(MAX_LINE + 1)
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise _bad_line(line, "invalid chunk size")
        return int(chunk[1], 16)


def _read_headers(file: BinaryIO) -> HTTPMessage:
    headers = HTTPMessage()
    for _ in range(MAX_HEADERS + 1):
        line = file.readline(MAX_LINE + 1)
        if line in (b"\r\n", b"\n"):
            return headers
        if len(line) > MAX_LINE:
            raise LineTooLong("header line")
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _bad_line(line, "invalid header")
        headers.set_raw(field[1].decode("ascii"), field[2].decode("latin-1"))
    raise HTTPException(f"more than {MAX_HEADERS} headers")


def _bad_line(line: bytes, problem: str) -> Exception:
    return HTTPException(problem) if line.endswith(b"\n") else ConnectionResetError("the response is incomplete")


def _content_length(headers: HTTPMessage) -> int | None:
    values = set(headers.get_all("content-length", ()))
    if not values:
        return None
    length = values.pop()
    # More digits than any limit of ours has; int() is slow for very long numbers.
    if values or not (length.isascii() and length.isdigit() and len(length) < 20):
        raise HTTPException("invalid content length")
    return int(length)
