"""How much is needed for how many messages: a model over measured constants, and what docs/scale.md shows of it.

`python -m bench scale` measures the constants and writes them to constants.json and the page.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

CONSTANTS = Path(__file__).with_name("constants.json")
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"

BUSY = 0.7
"""Share of a core that is planned for: above it, waits grow quickly."""
POOL = 5
"""Connections to PostgreSQL of one process."""
SERVER_CORES = 16
SERVER_CONNECTIONS = 100
"""PostgreSQL's default."""
LOG_BYTES = 200e6
"""Write-ahead log that a usual cloud disk takes in a second."""


POINTS = (1, 10, 100)
"""Messages together, for which costs are measured."""


class Cost(msgspec.Struct, frozen=True):
    """What each message costs, of so many in one call as POINTS says."""

    alone: float
    ten: float
    hundred: float

    def at(self, together: float) -> float:
        """Between the points that were measured, a cost is a line over the logarithm."""
        place = min(2.0, max(0.0, math.log10(together)))
        points = (self.alone, self.ten, self.hundred)
        before = min(1, int(place))
        return points[before] + (place - before) * (points[before + 1] - points[before])


class Constants(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on PostgreSQL with bodies of 600 bytes. CPU in microseconds."""

    measured: str
    """When and where."""
    accept_client: Cost
    accept_server: Cost
    """By messages in one request."""
    deliver_client: Cost
    deliver_server: Cost
    """By messages of a lane that are due together. The receiver's answer costs nothing here."""
    log_bytes: Cost
    """Of the write-ahead log, accepting and delivering, by messages in one transaction."""
    rows: float
    """Inserted, updated and deleted."""
    bodies_bytes: float
    """On disk, with indexes, until the body is removed."""
    attempts_bytes: float
    ids_bytes: float
    post: float
    """Of an HTTP request to a receiver."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a load needs."""

    per_second: float
    api: int
    dispatchers: int
    server_cores: int
    databases: int
    log_mb: float
    connections: int
    """To each database."""


def per_message(found: Constants, batch: float, turn: float) -> dict[str, float]:
    """CPU for a message by where it is spent, with batches in accepting and turns in delivering of these sizes."""
    return {
        "api": found.accept_client.at(batch),
        "dispatcher": found.deliver_client.at(turn) + found.post,
        "server": found.accept_server.at(batch) + found.deliver_server.at(turn),
    }


def needed(found: Constants, per_second: float, *, batch: float, turn: float) -> Need:
    """Processes and cores for a rate. Databases have SERVER_CORES each."""
    cores = {where: per_second * cpu / 1e6 / BUSY for where, cpu in per_message(found, batch, turn).items()}
    log = per_second * found.log_bytes.at(batch)
    databases = max(1, math.ceil(cores["server"] / SERVER_CORES), math.ceil(log / LOG_BYTES / BUSY))
    # Two of each, so that one may fail.
    api, dispatchers = (max(2, math.ceil(cores[where])) for where in ("api", "dispatcher"))
    return Need(
        per_second=per_second,
        api=api,
        dispatchers=dispatchers,
        server_cores=math.ceil(cores["server"] / databases),
        databases=databases,
        log_mb=log / 1e6,
        connections=math.ceil((api + dispatchers) / databases) * POOL,
    )


def limits(found: Constants, *, batch: float, turn: float) -> list[tuple[str, float]]:
    """What is exhausted at which rate, the lowest first: messages/s."""
    cpu = per_message(found, batch, turn)
    processes = SERVER_CONNECTIONS // POOL
    both = cpu["api"] + cpu["dispatcher"]
    rates = {
        "one process with `--role all`: its core": 1e6 / both,
        "one process with `--role dispatcher`: its core": 1e6 / cpu["dispatcher"],
        "one process with `--role api`: its core": 1e6 / cpu["api"],
        f"the database: {SERVER_CORES} cores": SERVER_CORES * 1e6 / cpu["server"],
        f"the database: {LOG_BYTES / 1e6:.0f} MB/s of write-ahead log": LOG_BYTES / found.log_bytes.at(batch),
        f"the database: {SERVER_CONNECTIONS} connections, {processes} processes": processes * 1e6 / both,
    }
    return sorted(rates.items(), key=lambda each: each[1])


def database_of(account: str, databases: Sequence[str]) -> str:
    """The database of an account: the highest hash. Adding a database moves only the accounts that it gets."""
    return max(databases, key=lambda name: hashlib.sha256(f"{name}\0{account}".encode()).digest())


def imbalance(weights: Mapping[str, float], databases: Sequence[str]) -> float:
    """The load of the database that has most, in proportion to an even share."""
    load = dict.fromkeys(databases, 0.0)
    for account, weight in weights.items():
        load[database_of(account, databases)] += weight
    return max(load.values()) * len(databases) / sum(load.values())


# Messages/s, and what they stand for.
LOADS: Sequence[tuple[str, float]] = (
    ("100 million devices, 12 messages a year each", 100e6 * 12 / (365 * 86400)),
    ("a campaign of 10 million devices in 8 hours, 2 messages each", 10e6 * 2 / (8 * 3600)),
    ("the same in one hour", 10e6 * 2 / 3600),
    ("the same in ten minutes", 10e6 * 2 / 600),
)
BATCH, TURN = 10.0, 10.0
"""Messages that are accepted in one transaction, and that are due together in a lane, for the page's tables."""


def load() -> Constants:
    return msgspec.json.decode(CONSTANTS.read_bytes(), type=Constants)


def save(found: Constants) -> None:
    CONSTANTS.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def blocks(found: Constants) -> dict[str, str]:
    """What the page has between `<!-- NAME -->` and `<!-- end -->`."""

    def cost(title: str, unit: str, each: Cost) -> tuple[str, ...]:
        return title, unit, *(f"{each.at(count):,.0f}" for count in POINTS)

    constants = [
        cost("accept: CPU of the process, over HTTP", "µs", found.accept_client),
        cost("accept: CPU of PostgreSQL", "µs", found.accept_server),
        cost("deliver: CPU of the process, without the request", "µs", found.deliver_client),
        ("deliver: the HTTP request", "µs", *[f"{found.post:,.0f}"] * 3),
        cost("deliver: CPU of PostgreSQL", "µs", found.deliver_server),
        cost("write-ahead log", "bytes", found.log_bytes),
        ("rows inserted, updated and deleted", "", *[f"{found.rows:.1f}"] * 3),
        ("disk: body, attempts, the rest", "bytes", *[_disk(found)] * 3),
    ]
    sizes = []
    for title, rate in LOADS:
        need = needed(found, rate, batch=BATCH, turn=TURN)
        processes = (need.api, need.dispatchers, need.databases, need.server_cores)
        sizes.append((title, f"{rate:,.0f}", *map(str, processes), f"{need.log_mb:.1f}", str(need.connections)))
    first = [(title, f"{rate:,.0f}") for title, rate in limits(found, batch=BATCH, turn=TURN)]
    return {
        "constants": _table(("for each message", "", "alone", "of 10", "of 100"), constants)
        + f"\nMeasured {found.measured}.\n",
        "sizes": _table(
            (
                *("load", "messages/s", "api processes", "dispatchers", "databases", "cores of each", "log, MB/s"),
                "connections to each",
            ),
            sizes,
        ),
        "limits": _table(("what", "messages/s"), first),
    }


def _disk(found: Constants) -> str:
    return f"{found.bodies_bytes:,.0f} + {found.attempts_bytes:,.0f} + {found.ids_bytes:,.0f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def fill(page: str, found: Constants) -> str:
    """The page with its blocks made anew."""
    for name, text in blocks(found).items():
        head, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        page = f"{head}{begin}{text}{end}{tail}"
    return page
