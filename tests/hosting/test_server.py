"""Stopping a server: before it is ready, and by SIGHUP."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from fotahook.hosting.connection_limits import ConnectionLimiter, ConnectionLimits
from fotahook.hosting.server import open_socket, serve_app
from tests.cli.processes import running
from tests.deadlines import DEADLINE


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("no request is sent")


async def serve(while_serving: AbstractAsyncContextManager[None], background: asyncio.Task[None]) -> None:
    """Serve until a task ends."""
    limiter = ConnectionLimiter(ConnectionLimits(), ())
    with open_socket("127.0.0.1", 0) as listening:
        async with asyncio.timeout(DEADLINE):
            code = await serve_app(app, listening, limiter, while_serving=while_serving, background=background)
    assert code == 0


async def test_a_server_stopped_before_it_serves_enters_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    entered = False

    @asynccontextmanager
    async def while_serving() -> AsyncIterator[None]:
        nonlocal entered
        entered = True
        yield

    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await serve(while_serving(), done)
    assert not entered
    assert capsys.readouterr().out == ""


async def test_a_server_stopped_while_entering_never_says_it_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    entering, left = asyncio.Event(), False

    @asynccontextmanager
    async def while_serving() -> AsyncIterator[None]:
        nonlocal left
        entering.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield
            left = True

    async def until_it_enters() -> None:
        await entering.wait()

    await serve(while_serving(), asyncio.create_task(until_it_enters()))
    assert left
    assert capsys.readouterr().out == ""


def test_sighup_stops_a_listener(tmp_path: Path) -> None:
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        assert listener.stop(signal.SIGHUP) == 0


def test_sighup_stays_ignored_under_nohup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running("serve", "--dev", "--port", "0", cwd=tmp_path) as service:
            service.process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                service.process.wait(1)
            assert service.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
