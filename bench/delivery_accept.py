"""Accepting messages on SQLite, compared with bare sqlite3 that inserts the same rows with the same sync.

`python -m bench.delivery_accept CONTESTANT` measures one contestant in messages per second.
"""

import asyncio
import hashlib
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from bench import rig
from bench.report import Figure, Report
from fotahook.store import SqliteStore
from fotahook.store.message_verbs import MessageIds
from fotahook.store.records import NewMessage
from fotahook.store.sqlite.connection import connect

ROUNDS = 5
BATCH = 100
CALLERS = 64
BATCHED = 20_000
SINGLES = 5_000
BODY = b'{"deviceId": "' + b"0" * 584 + b'"}'
ACCOUNTS = [f"0000123456-{number:05}" for number in range(50)]

INSERT_MESSAGE = "insert into messages (seq, id, account, size, sha256, accepted_at) values (?, ?, ?, ?, ?, ?)"
INSERT_BODY = "insert into bodies (seq, body) values (?, ?)"
INSERT_DELIVERY = "insert into pending (lane, seq, place, ready, due, born) values (?, ?, ?, 1, ?, ?)"


def figures(report: Report) -> list[Figure]:
    names = list(CONTESTANTS)
    rounds = [{name: rig.run("bench.delivery_accept", name)["per_second"] for name in names} for _ in range(ROUNDS)]
    header = ("accepting on SQLite, every commit synced", "messages/s")
    report.table(header, [(TITLES[name], rates) for name, rates in rig.by_name(rounds).items()])
    return [
        Figure("accept, batches of 100, x bare sqlite3", rig.ratios(rounds, "batches", "bare"), at_least=0.4),
        Figure("accept, 64 callers, x bare sqlite3", rig.ratios(rounds, "singles", "bare-singles"), at_least=4),
    ]


async def opened(path: Path) -> SqliteStore:
    """Open a store in which every account has a callback."""
    store = await SqliteStore.open(path)
    for account in ACCOUNTS:
        await store.register(account, "https://receiver.example/", actor="bench")
    return store


async def batches(path: Path) -> float:
    store = await opened(path)
    begun = time.perf_counter()
    for number in range(BATCHED // BATCH):
        account = ACCOUNTS[number % len(ACCOUNTS)]
        await store.accept([NewMessage(account=account, body=BODY) for _ in range(BATCH)])
    seconds = time.perf_counter() - begun
    await store.close()
    return BATCHED / seconds


async def singles(path: Path) -> float:
    store = await opened(path)
    numbers = iter(range(SINGLES))

    async def call() -> None:
        for number in numbers:
            await store.accept([NewMessage(account=ACCOUNTS[number % len(ACCOUNTS)], body=BODY)])

    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    seconds = time.perf_counter() - begun
    await store.close()
    return SINGLES / seconds


async def bare(path: Path, count: int = BATCHED, batch: int = BATCH) -> float:
    """Prepared rows, written with executemany: the minimum cost of the same writes."""
    await (await opened(path)).close()
    now, ids, digest = time.time(), MessageIds(time.time), hashlib.sha256(BODY).digest()
    messages = [
        (number + 1, *ids.take(1), ACCOUNTS[number // batch % 50], len(BODY), digest, now) for number in range(count)
    ]
    bodies = [(number + 1, BODY) for number in range(count)]
    deliveries = [(number // batch % 50 + 1, number + 1, number + 1, now, now) for number in range(count)]
    db = connect(path)
    begun = time.perf_counter()
    for first in range(0, count, batch):
        db.execute("begin immediate")
        db.executemany(INSERT_MESSAGE, messages[first : first + batch])
        db.executemany(INSERT_BODY, bodies[first : first + batch])
        db.executemany(INSERT_DELIVERY, deliveries[first : first + batch])
        db.execute("commit")
    seconds = time.perf_counter() - begun
    db.close()
    return count / seconds


async def bare_singles(path: Path) -> float:
    return await bare(path, SINGLES // 2, 1)


CONTESTANTS = {"bare": bare, "batches": batches, "bare-singles": bare_singles, "singles": singles}
TITLES = {
    "bare": "bare sqlite3, same tables and indexes, batches of 100",
    "batches": "fotahook, batches of 100",
    "bare-singles": "bare sqlite3, each row committed separately",
    "singles": "fotahook, singles from 64 concurrent callers",
}

if __name__ == "__main__":
    print(f"SQLite {sqlite3.sqlite_version}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as directory:
        found = asyncio.run(CONTESTANTS[sys.argv[1]](Path(directory) / "store.db"))
    print(json.dumps({"per_second": found}))
