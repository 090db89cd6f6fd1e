"""The contestants of the listener's section: ours, and what users would write. All run in the same server.

`python -m bench.listener_apps CONTESTANT FOLDER` prints its URL and serves on the first core until its stdin closes.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import fotahook
from fotahook.listener import intake
from fotahook.store.sqlite.connection import lock_dispatcher

PATH = "/in/0123456789abcdef"
"""Unguessable, so that the listener does not warn."""


def bare(folder: Path) -> ASGIApp:
    """Reads the body and answers 200; stores nothing."""

    async def take(request: Request) -> Response:
        await request.body()
        return Response()

    return Starlette(routes=[Route(PATH, take, methods=["POST"])])


def sqlalchemy(folder: Path) -> ASGIApp:
    """FastAPI with one row and one commit per message through SQLAlchemy's async session; WAL, synced like ours."""
    from fastapi import FastAPI
    from sqlalchemy import String, event
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase): ...

    class Message(Base):
        __tablename__ = "messages"
        id: Mapped[int] = mapped_column(primary_key=True)
        account: Mapped[str] = mapped_column(String, index=True)
        body: Mapped[bytes]

    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/messages.db", connect_args={"timeout": 60})
    sessions = async_sessionmaker(engine)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: object, record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's
        cursor.execute("pragma journal_mode = wal")
        cursor.execute("pragma synchronous = full")
        cursor.close()

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()

    asyncio.run(create())
    app = FastAPI()

    @app.post(PATH)
    async def take(request: Request) -> dict[str, bool]:
        content = await request.json()
        async with sessions() as session:
            session.add(Message(account=content["accountName"], body=await request.body()))
            await session.commit()
        return {"ok": True}

    return app


def accepting(folder: Path) -> ASGIApp:
    """Ours, while another process holds the dispatcher lock, so that this one only accepts."""
    lock_dispatcher(folder / "inbox.db")
    return fotahook.Listener(f"sqlite:///{folder}/inbox.db", path=PATH)


def without_ledger(folder: Path) -> ASGIApp:
    """The same, with nothing to enter into the ledger."""
    setattr(intake, "reports_of", lambda message, *, detailed: ())  # noqa: B010  # it is not exported
    return accepting(folder)


def handling(folder: Path) -> ASGIApp:
    """Ours, with a trivial handler that counts messages; a GET returns the count."""
    listener = fotahook.Listener(f"sqlite:///{folder}/inbox.db", path=PATH)
    seen = 0

    @listener.on_any
    async def count(message: fotahook.CallbackMessage) -> None:
        nonlocal seen
        seen += 1

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            await PlainTextResponse(str(seen))(scope, receive, send)
        else:
            await listener(scope, receive, send)

    return app


CONTESTANTS: dict[str, Callable[[Path], ASGIApp]] = {
    "bare": bare,
    "sqlalchemy": sqlalchemy,
    "accepting": accepting,
    "without_ledger": without_ledger,
    "handling": handling,
}


async def serve(app: ASGIApp) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as bound:
        config = uvicorn.Config(app, http="httptools", ws="none", log_config=None, access_log=False, lifespan="auto")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([bound]))
        print(f"http://127.0.0.1:{bound.getsockname()[1]}/", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    uvloop.run(serve(CONTESTANTS[sys.argv[1]](Path(sys.argv[2]))))
