"""What a server that is told to stop before it is ready does not do any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from fotahook.cli.shared.limit_flags import LimitOptions
from fotahook.hosting.server import Endpoint, host, listening
from tests.deadlines import DEADLINE


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody calls")


async def serve(meanwhile: AbstractAsyncContextManager[None], until: asyncio.Task[None]) -> list[str]:
    """Serve until a task ends; the URLs that were ready."""
    ready: list[str] = []
    guard = LimitOptions().guard((), body_timeout=30.0)
    with listening(Endpoint(host="127.0.0.1", port=0)) as place:
        async with asyncio.timeout(DEADLINE):
            assert await host(app, place, guard, on_ready=ready.append, meanwhile=meanwhile, beside=until) == 0
    return ready


async def test_nothing_is_begun_when_it_is_told_to_stop_before_it_serves(capsys: pytest.CaptureFixture[str]) -> None:
    begun = False

    @asynccontextmanager
    async def meanwhile() -> AsyncIterator[None]:
        nonlocal begun
        begun = True
        yield

    done = asyncio.create_task(asyncio.sleep(0))
    await done
    assert await serve(meanwhile(), done) == []
    assert not begun
    assert capsys.readouterr().out == ""


async def test_what_goes_on_beginning_when_it_is_told_to_stop_does_not_make_it_ready(
    capsys: pytest.CaptureFixture[str],
) -> None:
    beginning, left = asyncio.Event(), False

    @asynccontextmanager
    async def meanwhile() -> AsyncIterator[None]:
        nonlocal left
        beginning.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield
            left = True

    async def until_it_begins() -> None:
        await beginning.wait()

    assert await serve(meanwhile(), asyncio.create_task(until_it_begins())) == []
    assert left
    assert capsys.readouterr().out == ""
