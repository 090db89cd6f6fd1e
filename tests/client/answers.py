"""Answers to `list_registered_callbacks`, byte by byte, and what a client makes of each: the same in both clients."""

import codecs
import gzip
import json
import zlib
from typing import NamedTuple

URL = "https://x.example/"
BODY = json.dumps({"url": URL}).encode()
ERROR = b'{"errorCode": "INVALID_PARAMETER", "errorMessage": "Input binding error"}'

TAKEN = f"200 {URL}"
NOTHING = "200 None"
REFUSED = "FotaV2ResultException INVALID_PARAMETER"
BROKEN = "ResponseError"
LOST = "ConnectionFailed"


class Answer(NamedTuple):
    """An answer, the result of our clients, and why that differs from the official SDK's if it takes the answer."""

    raw: bytes
    result: str
    why: str = ""


def ok(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def head(*lines: bytes, body: bytes = BODY, status: bytes = b"HTTP/1.1 200 OK", end: bytes = b"\r\n") -> bytes:
    return end.join([status, *lines, b"", b""]) + body


def chunked(*parts: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked", body=b"".join(parts))


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
CHUNKS = CHUNK + b"0\r\n\r\n"
OUTCOME = "the outcome of the call is not known"
NOT_HTTP = "not HTTP: two readers may see two different answers"
AIOHTTP = "aiohttp's parser refuses it, and both clients do the same"
GUESS = "the end of the body would be a guess"

ANSWERS: dict[str, Answer] = {
    # Bodies.
    "the contract's": Answer(ok(BODY), TAKEN),
    "a BOM before JSON": Answer(ok(codecs.BOM_UTF8 + BODY), TAKEN),
    "white space around JSON": Answer(ok(b" \r\n" + BODY + b"\n"), TAKEN),
    "an unknown field": Answer(ok(b'{"url": "https://x.example/", "x": [1]}'), TAKEN),
    "a null url": Answer(ok(b'{"url": null}'), NOTHING),
    "no url": Answer(ok(b"{}"), NOTHING),
    "an empty body": Answer(ok(b""), NOTHING),
    "a number as url": Answer(ok(b'{"url": 5}'), BROKEN, OUTCOME),
    "an array": Answer(ok(b"[]"), BROKEN, OUTCOME),
    "null": Answer(ok(b"null"), BROKEN, OUTCOME),
    "truncated JSON": Answer(ok(BODY[:-1]), BROKEN),
    "HTML": Answer(ok(b"<html>login</html>"), BROKEN, OUTCOME),
    "UTF-16": Answer(ok(BODY.decode().encode("utf-16")), BROKEN, OUTCOME),
    # Codings.
    "gzip although refused": Answer(ok(gzip.compress(BODY), "Content-Encoding: gzip\r\n"), TAKEN),
    "deflate although refused": Answer(ok(zlib.compress(BODY), "Content-Encoding: deflate\r\n"), TAKEN),
    "gzip without saying so": Answer(ok(gzip.compress(BODY)), BROKEN),
    "gzip that is none": Answer(ok(BODY, "Content-Encoding: gzip\r\n"), TAKEN),
    "gzip of an error": Answer(ok(gzip.compress(ERROR), "Content-Encoding: gzip\r\n", "400 Bad"), REFUSED),
    "gzip that explodes": Answer(ok(gzip.compress(b" " * 9_000_000), "Content-Encoding: gzip\r\n"), BROKEN, OUTCOME),
    "identity, said": Answer(ok(BODY, "Content-Encoding: identity\r\n"), TAKEN),
    # Statuses.
    "201": Answer(ok(BODY, status="201 Created"), f"201 {URL}"),
    "204": Answer(b"HTTP/1.1 204 No Content\r\n\r\n", "204 None"),
    "204 with a length": Answer(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 None"),
    "202": Answer(ok(BODY, status="202 Accepted"), BROKEN, OUTCOME),
    "203": Answer(ok(BODY, status="203 Changed"), BROKEN, OUTCOME),
    "205": Answer(ok(b"", status="205 Reset"), BROKEN, OUTCOME),
    "206": Answer(ok(BODY, "Content-Range: bytes 0-28/500\r\n", "206 Partial"), BROKEN, OUTCOME),
    "206 without a body": Answer(ok(b"", status="206 Partial"), BROKEN, OUTCOME),
    "226": Answer(ok(b"", status="226 IM Used"), BROKEN, OUTCOME),
    "299": Answer(ok(BODY, status="299 Odd"), BROKEN, OUTCOME),
    "302 without a place": Answer(ok(b"", status="302 Found"), BROKEN),
    "304": Answer(b"HTTP/1.1 304 Not Modified\r\n\r\n", BROKEN),
    "400": Answer(ok(ERROR, status="400 Bad"), REFUSED),
    "400 with a BOM": Answer(ok(codecs.BOM_UTF8 + ERROR, status="400 Bad"), REFUSED),
    "400 without JSON": Answer(ok(b"oops", status="400 Bad"), "FotaV2ResultException None"),
    "404": Answer(ok(b"", status="404 Not Found"), "NotFound None"),
    "500": Answer(ok(ERROR, status="500 Oops"), "ServerError INVALID_PARAMETER"),
    "600": Answer(ok(b"", status="600 Odd"), "ServerError None"),
    "103 before it": Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(BODY), TAKEN),
    "100 before it": Answer(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(BODY), TAKEN),
    # Heads.
    "no reason": Answer(ok(BODY, status="200"), TAKEN),
    "a reason in Latin-1": Answer(ok(BODY, status="200 D\xe9j\xe0"), TAKEN),
    "line feeds alone": Answer(head(LENGTH, end=b"\n"), TAKEN),
    "a folded header": Answer(head(b"X-A: one\r\n two", LENGTH), TAKEN),
    "a header in Latin-1": Answer(head(b"X-A: \xe9", LENGTH), TAKEN),
    "a header in UTF-8": Answer(head(b"X-A: \xc3\xa9", LENGTH), TAKEN),
    "an empty header": Answer(head(b"X-A:", LENGTH), TAKEN),
    "the same header twice": Answer(head(b"X-A: 1", b"X-A: 2", LENGTH), TAKEN),
    "99 headers": Answer(head(*(b"X-%d: 1" % number for number in range(98)), LENGTH), TAKEN),
    "120 headers": Answer(head(*(b"X-%d: 1" % number for number in range(119)), LENGTH), BROKEN),
    "a header of 10 kB": Answer(head(b"X-A: " + b"a" * 10_000, LENGTH), TAKEN),
    "a header of 70 kB": Answer(head(b"X-A: " + b"a" * 70_000, LENGTH), BROKEN),
    "the length twice": Answer(head(LENGTH, LENGTH), BROKEN, AIOHTTP),
    "the length as a list": Answer(head(LENGTH + b", %d" % len(BODY)), BROKEN, AIOHTTP),
    "two different lengths": Answer(head(LENGTH, b"Content-Length: 3"), BROKEN),
    "a negative length": Answer(head(b"Content-Length: -1"), BROKEN, GUESS),
    "a length that is no number": Answer(head(b"Content-Length: x"), BROKEN, GUESS),
    "a space before the colon": Answer(head(b"X-A : one", LENGTH), BROKEN, NOT_HTTP),
    "a header without a colon": Answer(head(b"X-A", LENGTH), BROKEN, NOT_HTTP),
    "a control character in a header": Answer(head(b"X-A: o\x01ne", LENGTH), TAKEN),
    "HTTP/1.0 until the end": Answer(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, TAKEN),
    "HTTP/1.1 until the end": Answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY, TAKEN),
    "HTTP/2.0": Answer(b"HTTP/2.0 200 OK\r\n\r\n" + BODY, BROKEN),
    "another protocol": Answer(b"220 smtp.example ESMTP\r\n", BROKEN),
    "a status of two digits": Answer(b"HTTP/1.1 20 OK\r\n\r\n", BROKEN),
    # Chunks.
    "chunks": Answer(chunked(CHUNK, b"0\r\n\r\n"), TAKEN),
    "an extension of a chunk": Answer(chunked(CHUNK.replace(b"\r\n", b";x=1\r\n", 1), b"0\r\n\r\n"), TAKEN),
    "a trailer": Answer(chunked(CHUNK, b"0\r\nX: y\r\n\r\n"), TAKEN),
    "a negative chunk": Answer(chunked(b"-1\r\n", BODY, b"\r\n0\r\n\r\n"), BROKEN),
    "a chunk that is no number": Answer(chunked(b"zz\r\n", BODY, b"\r\n0\r\n\r\n"), BROKEN),
    "gzip as a transfer coding": Answer(head(b"Transfer-Encoding: gzip, chunked", body=CHUNKS), BROKEN, GUESS),
    "chunks and a length": Answer(head(b"Transfer-Encoding: chunked", LENGTH, body=CHUNKS), BROKEN, NOT_HTTP),
    # Closings.
    "nothing": Answer(b"", LOST),
    "half a status line": Answer(b"HTTP/1.1 2", LOST),
    "half a head": Answer(b"HTTP/1.1 200 OK\r\nContent-Le", LOST, OUTCOME),
    "half a body": Answer(ok(BODY)[:-5], LOST),
    "half a chunk": Answer(chunked(CHUNK[:-9]), LOST),
    "no last chunk": Answer(chunked(CHUNK), LOST),
    "a body of 2 MB": Answer(ok(b" " * 2_000_000 + BODY), BROKEN, OUTCOME),
}
