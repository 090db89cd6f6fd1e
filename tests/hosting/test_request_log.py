"""Each request has an id, in its response and in every log line that it causes."""

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

from fotahook.hosting.logging import RequestLog, configure_logging
from tests.service.conftest import Answer, ask

logger = logging.getLogger("fotahook.test")


async def respond(request: Request) -> Response:
    logger.info("while responding")
    return PlainTextResponse("ok", int(request.query_params.get("status", 200)))


async def fail(request: Request) -> Response:
    raise RuntimeError("out of order")


APP = Starlette(routes=[Route("/{name}", respond), Route("/a/fail", fail)])


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


def app(*, log_all: bool = False, log_paths: bool = True) -> ASGIApp:
    times = iter([10.0, 10.25] * 10)
    return RequestLog(APP, log_all=log_all, log_paths=log_paths, monotonic=lambda: next(times))


async def get(app: ASGIApp, path: str, *ids: bytes) -> Answer:
    return await ask(app, "GET", path, headers=[(b"x-request-id", one) for one in ids])


async def test_each_request_gets_an_id_of_its_own(log: Log) -> None:
    logged = app()
    ids = [(await get(logged, "/a")).header("x-request-id") for _ in range(2)]
    assert [line["request_id"] for line in log.lines()] == ids
    assert len({*ids}) == 2


@pytest.mark.parametrize("given", [b"1-67891233-abcdef012345678912345678", b"a", b"x" * 128, b"a/b+c=:._-9"])
async def test_an_id_given_by_the_client_is_kept(given: bytes) -> None:
    assert (await get(app(), "/a", given)).header("x-request-id") == given.decode()


@pytest.mark.parametrize("given", [(), (b"",), (b"x" * 129,), (b"a b",), (b'a"b',), (b"a\xff",), (b"a", b"b")])
async def test_an_invalid_id_is_replaced(given: tuple[bytes, ...]) -> None:
    own_id = (await get(app(), "/a", *given)).header("x-request-id") or ""
    assert len(own_id) == 16
    assert own_id.encode() not in given


async def test_only_a_failed_request_is_logged(log: Log) -> None:
    logged = app()
    for status in (200, 404, 503):
        await get(logged, f"/a?status={status}&secret=x", b"id")
    (line,) = [line for line in log.lines() if line["logger"] != "fotahook.test"]
    assert line.pop("timestamp")
    assert line == {
        "level": "warning",
        "logger": "fotahook.hosting.logging",
        "method": "GET",
        "path": "/a",
        "status": 503,
        "milliseconds": 250.0,
        "client": "127.0.0.1",
        "request_id": "id",
        "message": "GET /a: 503",
    }


async def test_every_request_is_logged_on_demand(log: Log) -> None:
    logged = app(log_all=True, log_paths=False)
    await get(logged, "/secret")
    line = log.lines()[-1]
    assert (line["level"], line["message"], line["path"]) == ("info", "GET: 200", None)


async def test_a_request_without_a_response_is_logged(log: Log) -> None:
    async def vanish(*_: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await get(RequestLog(vanish, log_all=True, log_paths=True), "/a")
    assert log.lines()[-1]["message"] == "GET /a: no response"


async def test_the_servers_own_log_line_about_an_exception_has_the_id(log: Log) -> None:
    with pytest.raises(RuntimeError):
        await get(app(), "/a/fail", b"id")
    logger.error("logged in the request's task")
    assert {line["request_id"] for line in log.lines()} == {"id"}


async def test_other_scopes_pass_through(log: Log) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await RequestLog(app, log_all=True, log_paths=True)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert (seen, log.lines()) == (["lifespan"], [])
