"""Scale on PostgreSQL: the constants of docs/scale.md, leasing among many lanes, two dispatchers instead of one.

`python -m bench.scale WORK URL …` measures one thing and prints JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory

import asyncpg
import msgspec
import uvloop

from bench import capacity, delivery_accept, delivery_serve, rig
from bench.delivery_accept import BODY
from bench.delivery_rate import sender
from bench.report import Figure, Report, conditions
from fotahook.delivery import Dispatcher, Outcome
from fotahook.delivery.sender import Sender
from fotahook.store import Store, open_store
from fotahook.store.records import Delivery, Health, Lease, Limits, NewMessage

ROUNDS = 3
COSTS = ("accept_client", "accept_server", "deliver_client", "deliver_server", "log_bytes")
CONSUMER = "bench"
"""Lanes to it are open without a callback."""
FEW_LANES, MANY_LANES = 1_000, 100_000
LEASED, TURNS = 50, 60
COUNTS = dict(zip(capacity.POINTS, (500, 2_000, 10_000), strict=True))
"""Messages that are measured, by how many of them are together."""
SHARED = 20_000
"""Messages that one or two dispatchers deliver, in SHARED_LANES lanes."""
SHARED_LANES = 400
FILL_SECONDS = 600.0
POSTS = END_TO_END = 5_000


def main(report: Report) -> None:
    figures: list[Figure] = []
    with rig.postgres() as postgres:
        figures += measure_constants(report, postgres)
        figures += measure_lanes(report, postgres)
        figures += measure_dispatchers(report, postgres)
    report.compare(figures)


def measure_constants(report: Report, postgres: rig.Postgres) -> list[Figure]:
    """Writes constants.json and docs/scale.md; how far the model is from a bench end to end."""

    def costs(together: int) -> rig.Found:
        rounds = [
            rig.run("bench.scale", "cost", *postgres.fresh(), together)
            | rig.run("bench.scale", "api", postgres.fresh_database(), together)
            for _ in range(ROUNDS)
        ]
        return {name: median(values) for name, values in rig.by_name(rounds).items()}

    points = [costs(together) for together in COUNTS]
    measured = {name: capacity.Cost(*(point[name] for point in points)) for name in COSTS}
    with rig.receiver() as receiver:
        post = median(rig.run("bench.scale", "post", receiver)["post"] for _ in range(ROUNDS))
        run = partial(rig.run, "bench.delivery_rate", "serve", receiver)
        bench = rig.by_name([run(postgres.fresh_database(), END_TO_END) for _ in range(ROUNDS)])
    where = f"on {time.strftime('%Y-%m-%d')}: median of {ROUNDS} rounds, {conditions(())}"
    flat = {name: points[-1][name] for name in ("rows", "bodies_bytes", "attempts_bytes", "ids_bytes")}
    found = msgspec.convert({"measured": where, "post": post, **measured, **flat}, capacity.Constants)
    capacity.save(found)
    capacity.PAGE.write_text(capacity.fill(capacity.PAGE.read_text(), found))
    # Its lanes have about one delivery in flight each, which are settled a few at a time.
    cpu = capacity.per_message(found, delivery_accept.BATCH, 10)
    client = cpu["api"] + cpu["dispatcher"]
    rate = min(1e6 / client, len(os.sched_getaffinity(0)) * 1e6 / (client + cpu["server"]))
    return [
        Figure(f"model / measured: {title}", [predicted / one for one in bench[name]], 0.8, 1.2)
        for title, predicted, name in (
            ("CPU for a message, end to end", client, "cpu_us"),
            ("messages/s, end to end", rate, "per_second"),
        )
    ]


def measure_lanes(report: Report, postgres: rig.Postgres) -> list[Figure]:
    """Leasing where few lanes and where many have something due, on both stores."""
    rows, figures = [], []
    with TemporaryDirectory(prefix="fotahook-bench-") as folder:
        for title in ("SQLite", "PostgreSQL"):
            urls = {
                count: f"sqlite:///{folder}/{count}.db" if title == "SQLite" else postgres.fresh_database()
                for count in (FEW_LANES, MANY_LANES)
            }
            for count, url in urls.items():
                rig.run("bench.scale", "lanes", url, count, seconds=FILL_SECONDS)
            rounds = [
                {str(count): rig.run("bench.scale", "lease", url)["ms"] for count, url in urls.items()}
                for _ in range(ROUNDS)
            ]
            rows.append((title, *rig.by_name(rounds).values()))
            ratios = rig.ratios(rounds, str(MANY_LANES), str(FEW_LANES))
            figures.append(Figure(f"lease on {title} with {MANY_LANES:,} lanes, x {FEW_LANES:,}", ratios, at_most=2))
    report.table((f"lease of {LEASED} lanes, ms", f"{FEW_LANES:,} lanes", f"{MANY_LANES:,} lanes"), rows)
    return figures


def measure_dispatchers(report: Report, postgres: rig.Postgres) -> list[Figure]:
    rounds = []
    for _ in range(ROUNDS):
        one: rig.Found = {}
        for count in (1, 2):
            url = postgres.fresh_database()
            rig.run("bench.scale", "fill", url, SHARED, SHARED_LANES)
            before = postgres.cpu_seconds()
            found = _at_once(count, "bench.scale", "dispatch", url)
            delivered = sum(each["delivered"] for each in found)
            if delivered != SHARED:
                raise RuntimeError(f"{count} dispatchers delivered {delivered:.0f} of {SHARED} messages")
            one[f"{count} client"] = sum(each["cpu"] for each in found) / SHARED * 1e6
            one[f"{count} server"] = (postgres.cpu_seconds() - before) / SHARED * 1e6
            one[f"{count}"] = one[f"{count} client"] + one[f"{count} server"]
        rounds.append(one)
    found_by = rig.by_name(rounds)
    report.table(
        ("CPU for a message, µs", "1 dispatcher", "2 dispatchers"),
        [(title, found_by[f"1 {name}"], found_by[f"2 {name}"]) for title, name in _PROCESSES.items()],
    )
    return [Figure("CPU for a message with 2 dispatchers, x 1", rig.ratios(rounds, "2", "1"), at_most=1.15)]


_PROCESSES = {"the dispatchers": "client", "PostgreSQL": "server"}


def _at_once(count: int, *command: str) -> list[rig.Found]:
    """What so many processes print that run beside each other."""
    full = [sys.executable, "-m", *command]
    running = [subprocess.Popen(full, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        found = [json.loads(process.communicate(timeout=rig.RUN_SECONDS)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return found


# The works


async def fill(url: str, count: str, lanes: str) -> rig.Found:
    """Accept messages, in turns over the lanes."""
    store = await open_store(url)
    messages = [_message(number % int(lanes)) for number in range(int(count))]
    for first in range(0, len(messages), 1000):
        await store.accept(messages[first : first + 1000])
    await store.close()
    return {}


async def lanes(url: str, count: str) -> rig.Found:
    return await fill(url, count, count)


def _message(lane: int) -> NewMessage:
    return NewMessage(account=f"{lane:010}-00001", body=BODY, consumers=(CONSUMER,))


async def lease(url: str) -> rig.Found:
    """The milliseconds of leasing LEASED lanes."""
    store = await open_store(url)
    seconds = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        leases = await store.lease(LEASED, 0.001)
        seconds.append(time.perf_counter() - begun)
        if len(leases) != LEASED:
            raise RuntimeError(f"{len(leases)} of {LEASED} lanes were leased")
        # These leases have to expire first.
        await asyncio.sleep(0.002)
    await store.close()
    return {"ms": median(seconds) * 1000}


async def dispatch(url: str) -> rig.Found:
    """Deliver with others until nothing is left; the CPU from the first to the last delivery."""
    store = await open_store(url)
    found = await _dispatch(store)
    await store.close()
    return found


async def _dispatch(store: Store) -> rig.Found:
    delivered, cpu = 0, time.process_time()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        nonlocal delivered
        await asyncio.sleep(0)
        delivered += 1
        return _DELIVERED

    dispatcher = Dispatcher(store, deliver)
    running = asyncio.create_task(dispatcher.run())
    while await store.due_in() is not None:  # noqa: ASYNC110  # other processes deliver too
        await asyncio.sleep(0.05)
    dispatcher.stop()
    await running
    return {"delivered": delivered, "cpu": time.process_time() - cpu}


_DELIVERED = Outcome(code="delivered", status=200)

_STATE = """
select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as log,
    (select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables) as rows,
    (select sum(pg_total_relation_size(relid)) from pg_partition_tree('bodies') where isleaf) as bodies,
    (select sum(pg_total_relation_size(relid)) from pg_partition_tree('attempts') where isleaf) as attempts,
    pg_total_relation_size('messages') as ids
"""


async def cost(url: str, pid: str, together: str) -> rig.Found:
    """What a message costs where so many are accepted in one transaction, and are due together in a lane."""
    size, count = int(together), COUNTS[int(together)]
    store = await open_store(url)
    watch = await asyncpg.connect(url)
    # What is done once, as making lanes and planning statements, does not count.
    await _round_trip(store, int(pid), size, count)
    before = await watch.fetchrow(_STATE)
    found = await _round_trip(store, int(pid), size, count)
    # The counts of rows arrive late.
    await watch.execute("select pg_stat_force_next_flush()")
    await asyncio.sleep(1.5)
    after = await watch.fetchrow(_STATE)
    assert before is not None
    assert after is not None
    grown = {name: float(after[name] - before[name]) / count for name in ("log", "rows", "bodies", "attempts", "ids")}
    await watch.close()
    await store.close()
    sizes = {f"{name}_bytes": grown[name] for name in ("log", "bodies", "attempts", "ids")}
    return {**found, **sizes, "rows": grown["rows"]}


async def api(url: str, together: str) -> rig.Found:
    """The CPU of a process that accepts messages over HTTP, `together` in each request."""
    size, count = int(together), COUNTS[int(together)]
    async with delivery_serve.service(url, "--role", "api") as (base, pid), delivery_serve.session(base) as http:
        cpu = 0.0
        for _ in range(2):
            cpu = rig.cpu_seconds(pid)
            for first in range(0, count, size):
                line = b'{"account": "%010d-00001", "message": %b}\n' % (first // size, BODY)
                async with http.post(f"{base}/v1/messages", data=line * size) as answer:
                    answer.raise_for_status()
                    await answer.read()
        return {"accept_client": (rig.cpu_seconds(pid) - cpu) / count * 1e6}


async def _round_trip(store: Store, server: int, size: int, count: int) -> rig.Found:
    """Accept messages, `size` in one transaction, and deliver them; the CPU of each."""
    used = [(time.process_time(), rig.server_cpu_seconds(server))]
    for first in range(0, count, size):
        await store.accept([_message(first // size)] * size)
    used.append((time.process_time(), rig.server_cpu_seconds(server)))
    if (await _dispatch(store))["delivered"] != count:
        raise RuntimeError(f"not all of {count} messages were delivered")
    used.append((time.process_time(), rig.server_cpu_seconds(server)))
    return {
        f"{what}_{where}": (after - before) / count * 1e6
        for what, former, later in zip(("accept", "deliver"), used[:-1], used[1:], strict=True)
        for where, before, after in zip(("client", "server"), former, later, strict=True)
    }


async def post(receiver: str) -> rig.Found:
    """CPU of a request to a receiver, in microseconds."""
    url = f"{receiver}/callbacks"
    lease = Lease(
        lane=1,
        token=1,
        account="bench",
        consumer="",
        open=True,
        url=url,
        revision=1,
        signing_keys=(),
        limits=Limits(),
        health=Health(),
    )
    numbers = iter(range(POSTS))

    async def send(posts: Sender) -> None:
        for number in numbers:
            outcome = await posts.deliver(lease, _delivery(number))
            if outcome.code != "delivered":
                raise RuntimeError(f"the receiver answered {outcome.code}")

    async with sender() as posts:
        cpu = time.process_time()
        await asyncio.gather(*(send(posts) for _ in range(50)))
        return {"post": (time.process_time() - cpu) / POSTS * 1e6}


def _delivery(number: int) -> Delivery:
    return Delivery(
        lane=1,
        seq=number,
        message=f"{number:036}",
        account="bench",
        type=None,
        ordering_key=None,
        body=BODY,
        accepted_at=time.time(),
        attempts=0,
        strikes=0,
        age=0.0,
    )


Work = Callable[..., Coroutine[None, None, rig.Found]]
WORKS: dict[str, Work] = {
    "api": api,
    "cost": cost,
    "dispatch": dispatch,
    "fill": fill,
    "lanes": lanes,
    "lease": lease,
    "post": post,
}

if __name__ == "__main__":
    print(json.dumps(uvloop.run(WORKS[sys.argv[1]](*sys.argv[2:]))))
