"""Retention on PostgreSQL: a day of DAY_MESSAGES messages (1,000,000 by default) is dropped while others are delivered.

`python -m bench.retention STORE COUNT` measures one day: the seconds that it takes, and how long messages took from
accepted to delivered in the seconds before and in those around it.
"""

import asyncio
import json
import os
import sys
import time
from statistics import quantiles

import asyncpg
import uvloop

from bench import rig
from bench.delivery_accept import BODY
from bench.report import Figure, Report
from fotahook.delivery import Dispatcher, Outcome
from fotahook.delivery.outcomes import DELIVERED
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Lease, NewMessage, Retention

ROUNDS = 3
WHOLE_SECONDS = 600.0
ACCOUNTS = [f"live-{number:02}" for number in range(50)]
PER_SECOND = 200
SECONDS = 10.0
"""Of traffic without and with the drop."""
ANSWER_SECONDS = 0.005
DAY, OLD_DAYS = 86400, 40
STILL_PENDING = 100

_FILL = """
insert into lanes (account, consumer, held) values ('old', '', true);
insert into lane_names (account, consumer) values ('old', '');
select make_day({day});
insert into messages (id, account, size, sha256, accepted_at)
    select 'old-' || n, 'old', {size}, sha256(n::text::bytea), {day} * 86400.0 + n * 86000.0 / {count}
    from generate_series(1, {count}) n;
insert into bodies (day, seq, body) select {day}, seq, convert_to('{body}', 'UTF8') from messages where account = 'old';
insert into attempts (day, seq, lane, started_at, url, outcome, status, phases, excerpt, at, state, charged)
    select {day}, seq, l.id, accepted_at, 'https://receiver.example/callbacks', 'delivered', 200,
        '{{"connect":0.2,"firstByte":1.1,"total":1.5}}', 'ok', accepted_at, 'delivered', 1
    from messages m join lanes l using (account) where account = 'old' order by seq;
insert into pending (lane, seq, place, ready, due, born)
    select l.id, seq, seq, true, 0, 0 from messages m join lanes l using (account) where account = 'old'
    order by seq limit {pending};
vacuum analyze
"""


def main(report: Report) -> None:
    count = int(os.environ.get("DAY_MESSAGES", "1000000"))
    with rig.postgres() as postgres:
        rounds = [
            rig.run("bench.retention", postgres.fresh_database(), count, seconds=WHOLE_SECONDS) for _ in range(ROUNDS)
        ]
    found = rig.by_name(rounds)
    report.table(
        (f"a day of {count:,} messages, with {PER_SECOND} messages/s live", ""),
        [
            ("p99 from accepted to delivered before, ms", found["before_ms"]),
            ("and while the day is dropped, ms", found["during_ms"]),
        ],
    )
    report.compare(
        [
            Figure("a day dropped, s", found["seconds"], at_most=1),
            Figure("p99 of deliveries meanwhile, x before", rig.ratios(rounds, "during_ms", "before_ms"), at_most=1.5),
        ]
    )


async def measure(url: str, count: int) -> rig.Found:
    store = await open_store(url)
    for account in ACCOUNTS:
        await store.register(account, "https://receiver.example/callbacks", actor="bench")
    await _fill(url, count)
    retention = Retention(seconds=30.0 * DAY, attempts=30.0 * DAY)
    dispatching = asyncio.create_task(Dispatcher(store, _deliver).run())
    await _traffic(store)  # to warm up
    before = await _traffic(store)
    traffic = asyncio.create_task(_traffic(store))
    await asyncio.sleep(SECONDS / 3)
    begun = time.perf_counter()
    removed = 0
    while (step := await store.prune(retention)).more:
        removed += step.bodies
    seconds = time.perf_counter() - begun
    during = await traffic
    (old,) = await store.lanes("old")
    dispatching.cancel()
    await asyncio.gather(dispatching, return_exceptions=True)
    await store.close()
    if (removed, old.pending) != (count - STILL_PENDING, STILL_PENDING):
        raise RuntimeError(f"{removed} of {count} bodies were removed, {old.pending} messages are pending")
    return {"seconds": seconds, "before_ms": _p99(before), "during_ms": _p99(during)}


async def _fill(url: str, count: int) -> None:
    """A day long ago, whose messages are delivered but for a few."""
    connection = await asyncpg.connect(url)
    day = int(time.time()) // DAY - OLD_DAYS
    sql = _FILL.format(day=day, count=count, size=len(BODY), body=BODY.decode(), pending=STILL_PENDING)
    for statement in sql.split(";\n"):
        await connection.execute(statement)
    await connection.close()


async def _deliver(lease: Lease, delivery: Delivery) -> Outcome:
    await asyncio.sleep(ANSWER_SECONDS)
    _delivered.append(time.time() - delivery.accepted_at)
    return Outcome(code=DELIVERED, status=200, url=lease.url)


_delivered: list[float] = []


async def _traffic(store: Store) -> list[float]:
    """How long each message took from accepted to delivered, in seconds."""
    first, begun = len(_delivered), time.perf_counter()
    async with asyncio.TaskGroup() as accepting:
        for number in range(int(PER_SECOND * SECONDS)):
            await asyncio.sleep(begun + number / PER_SECOND - time.perf_counter())
            message = NewMessage(account=ACCOUNTS[number % len(ACCOUNTS)], body=BODY)
            accepting.create_task(store.accept([message]))
    return _delivered[first:]


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[-1] * 1000


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], int(sys.argv[2])))))
