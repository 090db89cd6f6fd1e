"""The SDK compared with the official one and with the bare libraries, against one fast local server.

Each peer runs in a fresh process pinned to one core, the server on another. Peers take turns; the tables show medians,
the figures show medians of the ratios per round, with their targets.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

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


def middle(found: Rounds, peer: str, call: str, figure: str) -> float:
    return median(one[peer][call][figure] for one in found)


def ratio(found: Rounds, ours: str, theirs: str, call: str, figure: str) -> float:
    """The median of the ratios per round."""
    return median(one[ours][call][figure] / one[theirs][call][figure] for one in found)


def starts(url: str) -> dict[str, dict[str, float]]:
    """Milliseconds from process start to the first answered call, and the memory after it."""
    times: dict[str, list[float]] = {"official": [], "fotahook": []}
    memory: dict[str, list[float]] = {"official": [], "fotahook": []}
    for _ in range(STARTS):
        for peer in times:
            begun = time.perf_counter()
            found = run(f"{peer}:first", url)
            times[peer].append((time.perf_counter() - begun) * 1000)
            memory[peer].append(float(str(found["rss_mb"])))
    return {peer: {"ms": median(times[peer]), "rss_mb": median(memory[peer])} for peer in times}


def main() -> None:
    with server() as url:
        single = rounds([peer for peer, _ in RATES], url, ROUNDS)
        threaded = rounds(THREADS, url, THREAD_ROUNDS)
        begun = starts(url)
    print("## sdk\n")
    _print_rates(single)
    _print_threads(threaded)
    _print_starts(begun)
    _print_verdicts(single, begun)


def _print_rates(found: Rounds) -> None:
    print("| | list/s | register/s | CPU µs per list | CPU µs per register |")
    print("|---|--:|--:|--:|--:|")
    for peer, title in RATES:
        speeds = " | ".join(f"{middle(found, peer, call, 'per_second'):,.0f}" for call in CALLS)
        costs = " | ".join(f"{middle(found, peer, call, 'cpu_us'):.0f}" for call in CALLS)
        print(f"| {title} | {speeds} | {costs} |")
    print()


def _print_threads(found: Rounds) -> None:
    print("| list | 1 thread, calls/s | 8 threads, calls/s | gain |")
    print("|---|--:|--:|--:|")
    for peer in ("official", "fotahook"):
        one, eight = (middle(found, name, "list", "per_second") for name in (peer, f"{peer}:8"))
        gain = ratio(found, f"{peer}:8", peer, "list", "per_second")
        print(f"| {peer} | {one:,.0f} | {eight:,.0f} | {gain:.2f}x |")
    print()


def _print_starts(found: dict[str, dict[str, float]]) -> None:
    print("| from process start to the first answered call | ms | RSS MB |")
    print("|---|--:|--:|")
    for peer, row in found.items():
        print(f"| {peer} | {row['ms']:.0f} | {row['rss_mb']:.1f} |")
    print()


def _print_verdicts(found: Rounds, begun: dict[str, dict[str, float]]) -> None:
    print("| figure | measured | target | |")
    print("|---|--:|--:|---|")
    for call in CALLS:
        speed = ratio(found, "fotahook", "official", call, "per_second")
        _verdict(f"sync {call}/s, x official SDK", speed, at_least=3)
        speed = ratio(found, "async-fotahook", "official:64", call, "per_second")
        _verdict(f"async {call}/s at 64, x official SDK", speed, at_least=5)
        for ours, bare in (("fotahook", "urllib3"), ("async-fotahook", "aiohttp")):
            _verdict(f"CPU per {call}, x bare {bare}", ratio(found, ours, bare, call, "cpu_us"), at_most=1.3)
    _verdict("start to first answer, x official SDK", begun["fotahook"]["ms"] / begun["official"]["ms"], at_most=0.5)
    memory = begun["fotahook"]["rss_mb"] / begun["official"]["rss_mb"]
    _verdict("RSS after the first answer, x official SDK", memory, at_most=0.75)
    print()


def _verdict(title: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    target = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"
    print(f"| {title} | {value:.2f} | {target} | {'met' if met else 'MISSED'} |")
