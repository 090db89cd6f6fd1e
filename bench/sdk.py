"""The SDK compared with the official one and with the bare libraries, against one fast local server.

Each peer runs in a fresh process pinned to one core, the server on another. Peers take turns.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import rig
from bench.report import Figure, Report

PEERS = ("aiohttp", "sdksio-verizon-apis-sdk", "urllib3")
ROUNDS = 11
THREAD_ROUNDS = 5
SECONDS = 0.4
STARTS = 9
CALLS = ("list", "register")

# Each peer and its title in the table.
RATES = [
    ("official", "official SDK, 1 thread"),
    ("fotahook", "fotahook.Client, 1 thread"),
    ("urllib3", "bare urllib3 HTTPConnectionPool"),
    ("official:64", "official SDK, 64 threads"),
    ("async-fotahook", "fotahook.AsyncClient, 64 tasks"),
    ("aiohttp", "bare aiohttp, 64 tasks"),
]
THREADS = ["official", "official:8", "fotahook", "fotahook:8"]

Row = dict[str, dict[str, float]]
Rounds = list[dict[str, Row]]


@contextmanager
def server() -> Iterator[str]:
    """The URL of a fast server on the last core."""
    command = [sys.executable, "-m", "bench.fastserver", str(cores()[-1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        # It serves until its stdin closes.
        process.stdin.close()


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def run(peer: str, url: str) -> Row:
    command = [sys.executable, "-W", "ignore", "-m", "bench.sdk_peers", peer, url, str(SECONDS)]
    done = subprocess.run([*command, str(cores()[0])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer} failed: {done.stderr[-2000:]}")
    found: Row = json.loads(done.stdout)
    return found


def rounds(peers: list[str], url: str, count: int) -> Rounds:
    """The results of each round; the peers take turns, so that a slow moment of the machine affects all of them."""
    return [{peer: run(peer, url) for peer in peers} for _ in range(count)]


def each(found: Rounds, peer: str, call: str, figure: str) -> list[float]:
    return [one[peer][call][figure] for one in found]


def ratios(found: Rounds, ours: str, theirs: str, call: str, figure: str) -> list[float]:
    """The ratio in each round."""
    return [one[ours][call][figure] / one[theirs][call][figure] for one in found]


def starts(url: str) -> list[rig.Found]:
    """Milliseconds from process start to the first answered call, and the memory after it, in MB."""
    rounds = []
    for _ in range(STARTS):
        one: rig.Found = {}
        for peer in ("official", "fotahook"):
            begun = time.perf_counter()
            found = run(f"{peer}:first", url)
            one[f"{peer} ms"] = (time.perf_counter() - begun) * 1000
            one[f"{peer} rss_mb"] = float(str(found["rss_mb"]))
        rounds.append(one)
    return rounds


def main(report: Report) -> None:
    with server() as url:
        single = rounds([peer for peer, _ in RATES], url, ROUNDS)
        threaded = rounds(THREADS, url, THREAD_ROUNDS)
        begun = starts(url)
    report.table(
        ("", "list/s", "register/s", "CPU µs per list", "CPU µs per register"),
        [
            (title, *(each(single, peer, call, figure) for figure in ("per_second", "cpu_us") for call in CALLS))
            for peer, title in RATES
        ],
    )
    report.table(
        ("list", "1 thread, calls/s", "8 threads, calls/s", "gain"),
        [
            (
                peer,
                *(each(threaded, name, "list", "per_second") for name in (peer, f"{peer}:8")),
                ratios(threaded, f"{peer}:8", peer, "list", "per_second"),
            )
            for peer in ("official", "fotahook")
        ],
    )
    times = rig.by_name(begun)
    report.table(
        ("from process start to the first answered call", "ms", "RSS MB"),
        [(peer, times[f"{peer} ms"], times[f"{peer} rss_mb"]) for peer in ("official", "fotahook")],
    )
    report.compare([*_verdicts(single), *_verdicts_of_starts(begun)])


def _verdicts(found: Rounds) -> Iterator[Figure]:
    for call in CALLS:
        speed = ratios(found, "fotahook", "official", call, "per_second")
        yield Figure(f"sync {call}/s, x official SDK", speed, at_least=3)
        speed = ratios(found, "async-fotahook", "official:64", call, "per_second")
        yield Figure(f"async {call}/s at 64, x official SDK", speed, at_least=5)
        for ours, bare in (("fotahook", "urllib3"), ("async-fotahook", "aiohttp")):
            cost = ratios(found, ours, bare, call, "cpu_us")
            yield Figure(f"CPU per {call}, x bare {bare}", cost, at_most=1.3)


def _verdicts_of_starts(begun: list[rig.Found]) -> list[Figure]:
    speed, memory = (rig.ratios(begun, f"fotahook {what}", f"official {what}") for what in ("ms", "rss_mb"))
    return [
        Figure("start to first answer, x official SDK", speed, at_most=0.5),
        Figure("RSS after the first answer, x official SDK", memory, at_most=0.75),
    ]
