"""A whole `fotahook serve` process: accepts messages over HTTP in NDJSON batches and delivers until all are settled."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle, islice

import aiohttp

from bench import rig
from bench.delivery_accept import ACCOUNTS, BATCH, BODY
from fotahook import AsyncOperatorClient
from fotahook.contract.keys import generate_secret_key
from fotahook.store import open_store

ACCEPTING = 4
"""Concurrent callers that send batches."""
CLIENT = ("dev", "dev-secret")
LOOK_SECONDS = 0.01


async def serve(receiver: str, store_url: str, count: int) -> rig.Found:
    """Messages per second and CPU, with one in flight per lane: as many concurrent posts as there are accounts."""
    store = await open_store(store_url)
    for account in ACCOUNTS:
        await store.register(account, f"{receiver}/callbacks", actor="bench")
    await store.close()
    async with (
        service(store_url, "--in-flight", "1") as (url, pid),
        AsyncOperatorClient(url, *CLIENT) as operator,
        session(url) as http,
    ):

        async def publish() -> None:
            for account in accounts:
                line = b'{"account": "%b", "message": %b}\n' % (account.encode(), BODY)
                async with http.post(f"{url}/v1/messages", data=line * BATCH) as answer:
                    answer.raise_for_status()
                    await answer.read()

        accounts = islice(cycle(ACCOUNTS), count // BATCH)
        before = await _answered(http, receiver)
        begun, cpu = time.perf_counter(), rig.cpu_seconds(pid)
        await asyncio.gather(*(publish() for _ in range(ACCEPTING)))
        # Counting backlogs reads every row, so wait for the receiver first.
        await _until(lambda: _is_answered(http, receiver, before + count))
        await _until(lambda: _is_settled(operator))
        seconds = time.perf_counter() - begun
        return {"per_second": count / seconds, "cpu_us": (rig.cpu_seconds(pid) - cpu) / count * 1e6}


@asynccontextmanager
async def service(store_url: str, *more: str) -> AsyncIterator[tuple[str, int]]:
    """The URL and the process id of a service on this store."""
    flags = ("--dev", "--port", "0", "--store", store_url, *more)
    command = [sys.executable, "-m", "fotahook", "serve", *flags]
    environment = os.environ | {"FOTAHOOK_SECRET_KEY": generate_secret_key()}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL, env=environment)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[2], process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session with an access token."""
    async with aiohttp.ClientSession() as http:
        form = {"grant_type": "client_credentials"}
        async with http.post(f"{url}/api/ts/v1/oauth2/token", data=form, auth=aiohttp.BasicAuth(*CLIENT)) as answer:
            token = (await answer.json())["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


async def _answered(http: aiohttp.ClientSession, receiver: str) -> int:
    async with http.get(f"{receiver}/count") as answer:
        return int(await answer.read())


async def _is_answered(http: aiohttp.ClientSession, receiver: str, count: int) -> bool:
    return await _answered(http, receiver) >= count


async def _is_settled(operator: AsyncOperatorClient) -> bool:
    page = await operator.accounts(limit=len(ACCOUNTS)).page()
    return not any(account.backlog.pending for account in page.accounts)


async def _until(done: Callable[[], Awaitable[bool]]) -> None:
    while not await done():  # noqa: ASYNC110  # another process can only be polled
        await asyncio.sleep(LOOK_SECONDS)
