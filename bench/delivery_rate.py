"""Durable delivery end to end (accept in batches, deliver, settle), compared with a bare POST and with alternatives.

`python -m bench.delivery_rate CONTESTANT RECEIVER STORE COUNT [LANES]` measures one: messages per second, and our CPU.
Each has CONCURRENT posts in flight at the most.
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from itertools import chain, cycle, islice
from pathlib import Path

import uvloop

from bench import rig
from bench.delivery_accept import ACCOUNTS, BATCH, BODY
from bench.delivery_serve import serve
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher
from fotahook.delivery.outcomes import Attempt
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.store import open_store
from fotahook.store.records import Delivery, Lease, NewMessage

ROUNDS = 5
CONCURRENT = 50
ACCEPTING = 4
"""Concurrent callers that accept batches."""
HUEY_THREADS = 8
"""The fastest number: more or fewer threads are slower."""
JSON = {"Content-Type": "application/json"}

NDJSON = ", accepting NDJSON"
MANY_LANES = "fotahook on SQLite, 10,000 lanes of 5 messages"

# Contestant, store and number of messages: about two seconds each.
SQLITE, POSTGRES = "sqlite:////DIRECTORY/store.db", "postgresql://"
TURNS: dict[str, tuple[str, str, int] | tuple[str, str, int, int]] = {
    "bare aiohttp": ("aiohttp", SQLITE, 10_000),
    "fotahook on SQLite": ("fotahook", SQLITE, 10_000),
    "fotahook on PostgreSQL": ("fotahook", POSTGRES, 5_000),
    f"fotahook serve on SQLite{NDJSON}": ("serve", SQLITE, 10_000),
    f"fotahook serve on PostgreSQL{NDJSON}": ("serve", POSTGRES, 5_000),
    MANY_LANES: ("fotahook", SQLITE, 50_000, 10_000),
    "huey on SQLite": ("huey", SQLITE, 1_000),
    "procrastinate": ("procrastinate", POSTGRES, 400),
}

LOOPBACK = SenderSettings(secret_key=b"a secret key for the bench, 32 b", allowed_networks=(ip_network("127.0.0.0/8"),))


def sender(settings: SenderSettings = LOOPBACK) -> Sender:
    return Sender(settings, clock=time.time, monotonic=time.monotonic)


async def fotahook(receiver: str, url: str, count: int, lanes: int = len(ACCOUNTS)) -> rig.Found:
    """With more lanes than usual, each gets its messages at once, and few of them."""
    store = await open_store(url)
    names = ACCOUNTS if lanes == len(ACCOUNTS) else [f"0000123456-{number:05}" for number in range(lanes)]
    for first in range(0, lanes, 500):
        some = names[first : first + 500]
        await asyncio.gather(*(store.register(account, f"{receiver}/callbacks", actor="bench") for account in some))
    delivered, all_delivered = 0, asyncio.Event()

    def count_delivered(attempt: Attempt) -> None:
        nonlocal delivered
        delivered += attempt.outcome is not None and attempt.outcome.code == "delivered"
        if delivered == count:
            all_delivered.set()

    def deliver(lease: Lease, delivery: Delivery) -> Attempt:
        attempt = posts.deliver(lease, delivery)
        attempt.add_done_callback(count_delivered)
        return attempt

    async def accept() -> None:
        for batch in batches:
            await store.accept(batch)

    messages = [NewMessage(account=name, body=BODY) for name in names]
    each = BATCH if lanes == len(ACCOUNTS) else 1
    given = list(islice(chain.from_iterable([message] * each for message in cycle(messages)), count))
    batches = iter([given[first : first + BATCH] for first in range(0, count, BATCH)])
    async with sender() as posts:
        dispatcher = Dispatcher(store, deliver, in_flight=CONCURRENT)
        dispatching = asyncio.create_task(dispatcher.run())
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(accept() for _ in range(ACCEPTING)))
        await all_delivered.wait()
        # It returns when all deliveries in flight are settled.
        dispatcher.stop()
        await dispatching
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    pending = (await store.backlog()).pending
    await store.close()
    if pending:
        raise RuntimeError(f"{pending} messages are not settled")
    return {"per_second": count / seconds, "cpu_us": cpu / count * 1e6}


async def aiohttp(receiver: str, _: str, count: int) -> rig.Found:
    import aiohttp

    numbers = iter(range(count))

    async def post() -> None:
        for _ in numbers:
            async with session.post(f"{receiver}/callbacks", data=BODY, headers=JSON) as response:
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(post() for _ in range(CONCURRENT)))
        return {"per_second": count / (time.perf_counter() - begun)}


async def procrastinate(receiver: str, url: str, count: int) -> rig.Found:
    """A procrastinate task that posts with aiohttp; jobs are deferred in batches, with one worker."""
    import aiohttp
    from procrastinate import App, PsycopgConnector
    from procrastinate.types import JSONDict

    jobs: list[JSONDict] = [{"body": BODY.decode()}] * BATCH
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="post")
    async def post(body: str) -> None:
        async with session.post(f"{receiver}/callbacks", data=body.encode(), headers=JSON) as response:
            response.raise_for_status()

    async with app.open_async(), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await app.schema_manager.apply_schema_async()
        begun = time.perf_counter()
        for _ in range(count // BATCH):
            await post.batch_defer_async(*jobs)
        await app.run_worker_async(concurrency=CONCURRENT, wait=False, install_signal_handlers=False)
        return {"per_second": count / (time.perf_counter() - begun)}


async def huey(receiver: str, url: str, count: int) -> rig.Found:
    """A huey task that posts with requests; one consumer with its fastest number of threads."""
    import requests
    from huey import SqliteHuey  # type: ignore[import-untyped]

    queue = SqliteHuey(filename=url.removeprefix("sqlite:///"), fsync=True)
    mine, done, all_done = threading.local(), iter(range(count - 1)), threading.Event()

    @queue.task()  # type: ignore[untyped-decorator]  # huey ships no types
    def post(body: bytes) -> None:
        if not hasattr(mine, "session"):
            mine.session = requests.Session()
        mine.session.post(f"{receiver}/callbacks", data=body, headers=JSON).raise_for_status()
        if next(done, None) is None:
            all_done.set()

    consumer = queue.create_consumer(workers=HUEY_THREADS, periodic=False, initial_delay=0.01, max_delay=0.1)
    begun = time.perf_counter()
    consumer.start()
    for _ in range(count):
        post(BODY)
    all_done.wait(rig.RUN_SECONDS)
    seconds = time.perf_counter() - begun
    consumer.stop(graceful=True)
    return {"per_second": count / seconds}


Contestant = Callable[..., Awaitable[rig.Found]]
CONTESTANTS: dict[str, Contestant] = {
    "fotahook": fotahook,
    "serve": serve,
    "aiohttp": aiohttp,
    "procrastinate": procrastinate,
    "huey": huey,
}


def figures(report: Report) -> list[Figure]:
    rounds: list[dict[str, float]] = [{} for _ in range(ROUNDS)]
    cpu: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    with rig.receiver() as receiver, rig.postgres() as postgres:
        for found in rounds:
            for title, (name, store, *numbers) in TURNS.items():
                try:
                    url = postgres.fresh_database() if store == POSTGRES else store
                    one = rig.run("bench.delivery_rate", name, receiver, url, *numbers)
                    found[title] = one["per_second"]
                    cpu.setdefault(title, []).append(one.get("cpu_us", 0.0))
                except RuntimeError as error:
                    failures[title] = str(error)
    report.table(
        ("accepted in batches of 100, delivered, settled; 50 lanes, 50 in flight", "messages/s"),
        [(title, failures.get(title) or [found[title] for found in rounds]) for title in TURNS],
    )

    def figure(title: str, ours: str, theirs: str, at_least: float) -> Figure:
        why = failures.get(ours) or failures.get(theirs) or ""
        return Figure(title, None if why else rig.ratios(rounds, ours, theirs), at_least=at_least, note=why)

    def cpu_figure(title: str, ours: str, at_most: float) -> Figure:
        why = failures.get(ours, "")
        title = f"CPU per delivered message, {title}, us"
        return Figure(title, None if why else cpu[ours], at_most=at_most, note=why)

    sqlite, on_postgres = "fotahook on SQLite", "fotahook on PostgreSQL"
    over_http = "accepted over HTTP in NDJSON, end to end on"
    return [
        figure("end to end on SQLite, x bare aiohttp", sqlite, "bare aiohttp", 1.0),
        figure("end to end on PostgreSQL, x bare aiohttp", on_postgres, "bare aiohttp", 0.8),
        figure(f"{over_http} SQLite, x bare aiohttp", f"fotahook serve on SQLite{NDJSON}", "bare aiohttp", 0.8),
        figure(f"{over_http} PostgreSQL, x bare aiohttp", f"fotahook serve on PostgreSQL{NDJSON}", "bare aiohttp", 0.4),
        figure("end to end on PostgreSQL, x procrastinate and aiohttp", on_postgres, "procrastinate", 10),
        figure("10,000 lanes of 5 messages on SQLite, x 50 lanes", MANY_LANES, sqlite, 0.8),
        cpu_figure("accepted by the store", sqlite, 110),
        cpu_figure("accepted over HTTP in NDJSON", f"fotahook serve on SQLite{NDJSON}", 160),
        figure("end to end on SQLite, x huey and requests", sqlite, "huey on SQLite", 3),
    ]


async def _main(name: str, receiver: str, store: str, *numbers: int) -> rig.Found:
    return await CONTESTANTS[name](receiver, store, *numbers)


if __name__ == "__main__":
    _, name, receiver_url, store_url, *given = sys.argv
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory:
        store_url = store_url.replace("DIRECTORY", str(Path(directory)))
        measured = uvloop.run(_main(name, receiver_url, store_url, *map(int, given)))
    print(json.dumps(measured))
