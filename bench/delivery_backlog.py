"""A million messages in ten thousand lanes: the cost of a lease and a fetch, the dispatcher's memory and start-up time.

`python -m bench.delivery_backlog STEP …` runs one step in a separate process: `build STORE LANES RECEIVER`,
`start STORE`, `work STORE` or `dispatch STORE`.
"""

import asyncio
import json
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median

import uvloop

from bench import rig
from bench.delivery_rate import sender
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher
from fotahook.store import open_store
from fotahook.store.records import NewMessage

LANES = 10_000
FEW_LANES = 100
DEPTH = 100
"""Messages per lane, the same for few and for many lanes, so that a fetch finds the same number."""
BATCH = 100
AT_ONCE = 20
"""Messages per lane in one transaction while the backlog is built; BATCH is the number of lanes in it."""
BODY = b'{"deviceId": "' + b"0" * 184 + b'"}'
LEASED = 50
TURNS = 20
DISPATCH_SECONDS = 8.0
MB = 1024.0


def figures(report: Report) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory, rig.receiver() as receiver:
        few, many = (f"sqlite:///{directory}/{name}.db" for name in ("few", "many"))
        rig.run("bench.delivery_backlog", "build", few, FEW_LANES, receiver)
        built = rig.run("bench.delivery_backlog", "build", many, LANES, receiver)
        start = rig.run("bench.delivery_backlog", "start", many)
        rounds = [{url: rig.run("bench.delivery_backlog", "work", url) for url in (few, many)} for _ in range(3)]
        weight = rig.run("bench.delivery_backlog", "dispatch", many)
    times = {
        what: [{"few": one[few][what], "many": one[many][what]} for one in rounds] for what in ("lease_ms", "fetch_ms")
    }
    report.table(
        ("SQLite, 100 messages in each lane", "10,000 messages", "1,000,000 messages"),
        [
            (f"lease of {LEASED} lanes, ms", *rig.by_name(times["lease_ms"]).values()),
            (f"fetch of {DEPTH}, ms", *rig.by_name(times["fetch_ms"]).values()),
            ("built in, s", None, built["seconds"]),
            ("delivered meanwhile, messages/s", None, weight["per_second"]),
        ],
    )
    return [
        Figure("lease at 1,000,000, x at 10,000", rig.ratios(times["lease_ms"], "many", "few"), at_most=1.5),
        Figure("fetch at 1,000,000, x at 10,000", rig.ratios(times["fetch_ms"], "many", "few"), at_most=1.5),
        Figure("RSS of the dispatcher, MB", weight["rss_mb"], at_most=150),
        Figure("from opening the store to the first delivery, s", start["seconds"], at_most=2),
    ]


async def build(url: str, lanes: str, receiver: str) -> rig.Found:
    begun = time.perf_counter()
    store = await open_store(url)
    accounts = [f"0000123456-{number:05}" for number in range(int(lanes))]
    for first in range(0, len(accounts), 500):
        some = accounts[first : first + 500]
        await asyncio.gather(*(store.register(account, f"{receiver}/callbacks", actor="bench") for account in some))
    for _ in range(0, DEPTH, AT_ONCE):
        for first in range(0, len(accounts), BATCH):
            some = accounts[first : first + BATCH] * AT_ONCE
            await store.accept([NewMessage(account=account, body=BODY) for account in some])
    await store.close()
    return {"seconds": time.perf_counter() - begun}


async def start(url: str) -> rig.Found:
    """Measure the time from opening the store to fetching the first delivery."""
    begun = time.perf_counter()
    store = await open_store(url)
    [lease] = await store.lease(1, 30)
    [_] = await store.fetch(lease, 1)
    seconds = time.perf_counter() - begun
    await store.close()
    return {"seconds": seconds}


async def work(url: str) -> rig.Found:
    store = await open_store(url)
    leasing, fetching = [], []
    for _ in range(TURNS):
        begun = time.perf_counter()
        leases = await store.lease(LEASED, 0.001)
        leasing.append(time.perf_counter() - begun)
        for lease in leases[:5]:
            begun = time.perf_counter()
            found = await store.fetch(lease, DEPTH)
            fetching.append(time.perf_counter() - begun)
            if len(found) < DEPTH:
                raise RuntimeError(f"a leased lane has {len(found)} messages to send")
        # The next turn leases other lanes: these leases have to expire first.
        await asyncio.sleep(0.002)
    await store.close()
    return {"lease_ms": median(leasing) * 1000, "fetch_ms": median(fetching) * 1000}


async def dispatch(url: str) -> rig.Found:
    """Deliver for some seconds; the rate and the memory."""
    store = await open_store(url)
    async with sender() as posts:
        dispatcher = Dispatcher(store, posts.deliver)
        running = asyncio.create_task(dispatcher.run())
        before = await _delivered(url)
        await asyncio.sleep(DISPATCH_SECONDS)
        dispatcher.stop()
        await running
    await store.close()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rss_mb": rss / MB, "per_second": (await _delivered(url) - before) / DISPATCH_SECONDS}


async def _delivered(url: str) -> int:
    """The number of attempts so far, read over a separate connection."""
    with sqlite3.connect(Path(url.removeprefix("sqlite:///"))) as db:
        (count,) = db.execute("select max(rowid) from attempts").fetchone()
    db.close()
    return count or 0


Step = Callable[..., Coroutine[None, None, rig.Found]]
STEPS: dict[str, Step] = {"build": build, "start": start, "work": work, "dispatch": dispatch}

if __name__ == "__main__":
    print(json.dumps(uvloop.run(STEPS[sys.argv[1]](*sys.argv[2:]))))
