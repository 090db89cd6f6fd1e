"""Every request has an id: in its answer, and in each line of the log that it causes."""

import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fotahook.hosting.logging import configure_logging
from fotahook.hosting.request_log import RequestLog
from tests.service.conftest import Answer, ask

logger = logging.getLogger("fotahook.test")


async def talk(request: Request) -> Response:
    logger.info("said while answering")
    return PlainTextResponse("well", int(request.query_params.get("status", 200)))


async def fail(request: Request) -> Response:
    raise RuntimeError("out of order")


APP = Starlette(routes=[Route("/{name}", talk), Route("/a/fail", fail)])


class Log:
    def __init__(self, text: StringIO) -> None:
        self._text = text

    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self._text.getvalue().splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    text = StringIO()
    monkeypatch.setattr("sys.stderr", text)
    handlers, level, server = logging.root.handlers, logging.root.level, logging.getLogger("uvicorn.error").level
    monkeypatch.setattr(logging.root, "handlers", [])
    configure_logging()
    yield Log(text)
    logging.root.handlers, logging.root.level = handlers, level
    logging.getLogger("uvicorn.error").setLevel(server)


def hosted(*, every: bool = False, paths: bool = True) -> ASGIApp:
    times = iter([10.0, 10.25] * 10)
    return RequestLog(APP, every=every, paths=paths, monotonic=lambda: next(times))


async def get(app: ASGIApp, path: str, *ids: bytes) -> Answer:
    return await ask(app, "GET", path, headers=[(b"x-request-id", one) for one in ids])


async def test_an_id_of_its_own_goes_with_each_request(log: Log) -> None:
    app = hosted()
    told = [(await get(app, "/a")).header("x-request-id") for _ in range(2)]
    assert [line["request_id"] for line in log.lines()] == told
    assert len({*told}) == 2


@pytest.mark.parametrize("given", [b"1-67891233-abcdef012345678912345678", b"a", b"x" * 128, b"a/b+c=:._-9"])
async def test_an_id_that_came_along_is_kept(given: bytes) -> None:
    assert (await get(hosted(), "/a", given)).header("x-request-id") == given.decode()


@pytest.mark.parametrize("given", [(), (b"",), (b"x" * 129,), (b"a b",), (b'a"b',), (b"a\xff",), (b"a", b"b")])
async def test_one_that_is_not_sane_is_replaced(given: tuple[bytes, ...]) -> None:
    told = (await get(hosted(), "/a", *given)).header("x-request-id") or ""
    assert len(told) == 16
    assert told.encode() not in given


async def test_a_request_that_failed_has_a_line_and_others_have_none(log: Log) -> None:
    app = hosted()
    for status in (200, 404, 503):
        await get(app, f"/a?status={status}&secret=x", b"id")
    (line,) = [line for line in log.lines() if line["logger"] != "fotahook.test"]
    assert line.pop("timestamp")
    assert line == {
        "level": "warning",
        "logger": "fotahook.hosting.request_log",
        "method": "GET",
        "path": "/a",
        "status": 503,
        "milliseconds": 250.0,
        "client": "127.0.0.1",
        "request_id": "id",
        "message": "GET /a: 503",
    }


async def test_every_request_has_a_line_where_that_is_asked_for(log: Log) -> None:
    app = hosted(every=True, paths=False)
    await get(app, "/secret")
    line = log.lines()[-1]
    assert (line["level"], line["message"], line["path"]) == ("info", "GET: 200", None)


async def test_a_request_that_nobody_answered_has_a_line_too(log: Log) -> None:
    async def vanish(*_: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await get(RequestLog(vanish, every=True, paths=True), "/a")
    assert log.lines()[-1]["message"] == "GET /a: not answered"


async def test_the_id_is_there_when_the_server_logs_a_defect(log: Log) -> None:
    with pytest.raises(RuntimeError):
        await get(hosted(), "/a/fail", b"id")
    logger.error("as a server does, in the task of the request")
    assert {line["request_id"] for line in log.lines()} == {"id"}


async def test_what_is_no_request_passes(log: Log) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await RequestLog(app, every=True, paths=True)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert (seen, log.lines()) == (["lifespan"], [])
