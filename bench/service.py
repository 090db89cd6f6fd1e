"""The service compared with a bare Starlette app that returns a constant: one worker each, over real sockets.

`fotahook serve` on SQLite, whole, with its dispatcher; both tokens are checked, and the store is read, or written and
synced, for every request. wrk is the load, pinned to one core, the servers to the other.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import urllib3

from bench import rig
from bench.report import Figure, Report
from bench.service_load import LoadFile

ROUNDS = 5
SECONDS = 2
PACED_SECONDS = 5
CONNECTIONS = 64
PACED_CONNECTIONS = 256
MILLION = 1_000_000
SLOW = 200
CALM_RATE = 1000
"""Requests per second while slow clients are connected."""

CALLBACK = "/api/fota/v2/callbacks/0000123456-00001"
SPARE = "/api/fota/v2/callbacks/0000123456-00002"
MESSAGES = "/v1/accounts/0000123456-00003/messages"
REGISTRATION = '{"url": "https://8.8.8.8:50559/CallbackListener/FirmwareServiceMessages.asmx"}'
MESSAGE = json.dumps({"type": "upgradeProgress", "deviceId": "0" * 560})
HINT = "wrk is not installed: apt-get install wrk"

LUA = """
wrk.method, wrk.body = {method}, {body}
wrk.headers["Authorization"], wrk.headers["VZ-M2M-Token"] = {bearer}, {session}
done = function(summary, latency)
  local seconds, errors = summary.duration / 1e6, summary.errors
  local failed = errors.status + errors.read + errors.write + errors.timeout
  local shape = '\\n{{"requests": %d, "seconds": %f, "failed": %d, "p99": %f}}'
  io.write(string.format(shape, summary.requests, seconds, failed, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Kind:
    """A kind of request, and the share of the constant app's rate that the service must reach."""

    title: str
    method: str
    path: str
    body: str
    at_least: float


KINDS = (
    Kind("GET callback", "GET", CALLBACK, "", 0.5),
    Kind("PUT callback, synced", "PUT", CALLBACK, REGISTRATION, 0.3),
    Kind("publish one, synced", "POST", MESSAGES, MESSAGE, 0.3),
)


@dataclass(frozen=True)
class Tokens:
    bearer: str
    session: str


class Contestant:
    """A server in a separate process, pinned to one core, and the number of its requests."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url
        self.port = int(url.rsplit(":", 1)[1].strip("/"))
        self.requests = 0
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores()[0]})

    def load(
        self, kind: Kind, tokens: Tokens, folder: Path, seconds: int = SECONDS, rate: float | None = None
    ) -> rig.Found:
        """Requests per second and their p99 in milliseconds, measured by wrk at full speed or at about a given rate.

        wrk has no option for a rate, but each connection can wait before each request.
        """
        script = folder / "load.lua"
        texts = {"method": kind.method, "body": kind.body, "bearer": tokens.bearer, "session": tokens.session}
        lua = LUA.format(**{name: json.dumps(text) for name, text in texts.items()})
        connections = CONNECTIONS if rate is None else PACED_CONNECTIONS
        if rate is not None:
            lua += f"delay = function() return {round(1000 * connections / rate)} end\n"
        script.write_text(lua)
        pinned = ("taskset", "-c", str(cores()[1])) if shutil.which("taskset") else ()
        command = (*pinned, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, self.url + kind.path)
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=rig.RUN_SECONDS)
        result = json.loads(done.stdout.splitlines()[-1])
        if result["failed"]:
            raise RuntimeError(f"{result['failed']} of {kind.title} failed")
        self.requests += result["requests"]
        return {"rate": result["requests"] / result["seconds"], "p99": result["p99"]}

    def resident(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cores() -> tuple[int, int]:
    """The core of the server and the core of the load."""
    all_of_them = sorted(os.sched_getaffinity(0))
    return all_of_them[0], all_of_them[-1]


@contextmanager
def started(*command: str, folder: Path) -> Iterator[Contestant]:
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            # The ready line has one URL.
            [url] = [word for word in process.stdout.readline().split() if word.startswith("http")]
            yield Contestant(process, url.rstrip("/"))
        finally:
            process.terminate()


def main(report: Report) -> None:
    with ExitStack() as stack:
        if shutil.which("wrk") is None:
            report.compare([Figure(kind.title, None, at_least=kind.at_least, note=HINT) for kind in KINDS])
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fotahook-bench-")))
        store = f"sqlite:///{folder / 'service.db'}"
        limits = ("--requests-per-minute", "0", "--account-changes", "0")
        constant = stack.enter_context(started("bench.service_apps", folder=folder))
        service = stack.enter_context(
            started("fotahook", "serve", "--dev", "--port", "0", "--store", store, *limits, folder=folder)
        )
        tokens = sign_in(service.url)
        figures = rates(report, constant, service, tokens, folder)
        figures += paced(report, constant, service, tokens, folder)
        show_slow(report, service, tokens, folder)
        figures += memory(service, tokens, folder)
        report.compare(figures)


def sign_in(url: str) -> Tokens:
    """Fetch both tokens of the development client and user, and register a callback."""
    with urllib3.PoolManager() as http:
        basic = urllib3.make_headers(basic_auth="dev:dev-secret")
        grant = b"grant_type=client_credentials"
        token = http.request("POST", f"{url}/api/ts/v1/oauth2/token", body=grant, headers=basic).json()
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        login = b'{"username": "dev", "password": "dev-password"}'
        session = http.request("POST", f"{url}/api/m2m/v1/session/login", body=login, headers=bearer).json()
        both = {**bearer, "VZ-M2M-Token": session["sessionToken"]}
        http.request("PUT", url + CALLBACK, body=REGISTRATION, headers=both)
    return Tokens(bearer["Authorization"], session["sessionToken"])


def rates(report: Report, constant: Contestant, service: Contestant, tokens: Tokens, folder: Path) -> list[Figure]:
    """The maximum rate of each, in turns."""
    figures: list[Figure] = []
    rows: list[tuple[str | list[float], ...]] = []
    contestants = {"constant": constant, "service": service}
    for kind in KINDS:
        rounds = [
            {name: one.load(kind, tokens, folder)["rate"] for name, one in contestants.items()} for _ in range(ROUNDS)
        ]
        rows.append((kind.title, *rig.by_name(rounds).values()))
        ratios = rig.ratios(rounds, "service", "constant")
        figures.append(Figure(f"{kind.title}, x constant app", ratios, at_least=kind.at_least))
    header = (f"service, {CONNECTIONS} connections", "constant app, requests/s", "fotahook serve, requests/s")
    report.table(header, rows)
    return figures


def paced(report: Report, constant: Contestant, service: Contestant, tokens: Tokens, folder: Path) -> list[Figure]:
    """The p99 of each at half of its own maximum rate."""
    get, rounds = KINDS[0], []
    for _ in range(ROUNDS):
        round_: dict[str, float] = {}
        for name, one in (("constant", constant), ("service", service)):
            half = one.load(get, tokens, folder, 1)["rate"] / 2
            found = one.load(get, tokens, folder, rate=half)
            round_ |= {name: found["p99"], f"{name} share": found["rate"] / half / 2}
        rounds.append(round_)
    paces = rig.by_name(rounds)
    report.table(
        ("GET callback at half the maximum rate", "share of the rate", "p99, ms"),
        [
            (title, paces[f"{name} share"], paces[name])
            for name, title in (("constant", "constant app"), ("service", "fotahook serve"))
        ],
    )
    return [Figure("p99 at half the rate, x constant app", rig.ratios(rounds, "service", "constant"), at_most=5)]


def show_slow(report: Report, service: Contestant, tokens: Tokens, folder: Path) -> None:
    """The p99 of health checks and of the four calls, without and with slow clients."""
    calls = {
        "GET /healthz": Kind("", "GET", "/healthz", "", 0),
        "GET callback": Kind("", "GET", CALLBACK, "", 0),
        "POST callback": Kind("", "POST", SPARE, REGISTRATION, 0),
        "PUT callback": Kind("", "PUT", CALLBACK, REGISTRATION, 0),
        "DELETE callback": Kind("", "DELETE", SPARE, "", 0),
    }
    requests = {title: request(kind, tokens) for title, kind in calls.items()}
    alone, beside = (p99(service, requests, tokens, folder, rate=CALM_RATE, slow=slow) for slow in (0, SLOW))
    header = (f"p99 at {CALM_RATE:,} requests/s, ms", "alone", f"with {SLOW} slow clients")
    report.table(header, [(title, alone[title], beside[title]) for title in calls])


def p99(
    one: Contestant, requests: Mapping[str, str], tokens: Tokens, folder: Path, *, rate: float, slow: int = 0
) -> rig.Found:
    """The p99 of each request in milliseconds."""
    file = folder / "paced.json"
    slow_body = request(KINDS[-1], tokens)[: -len(MESSAGE) // 2]
    file.write_bytes(msgspec.json.encode(LoadFile(requests=dict(requests), slow_body=slow_body)))
    one.requests += int(rate * PACED_SECONDS)
    return rig.run("bench.service_load", one.port, rate, PACED_SECONDS, slow, file)


def request(kind: Kind, tokens: Tokens) -> str:
    lines = [
        f"{kind.method} {kind.path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {tokens.bearer}",
        f"VZ-M2M-Token: {tokens.session}",
        f"Content-Length: {len(kind.body)}",
    ]
    return "\r\n".join([*lines, "", kind.body])


def memory(service: Contestant, tokens: Tokens, folder: Path) -> list[Figure]:
    """Resident memory after half a million requests and after a million."""
    half = 0.0
    while service.requests < MILLION:
        service.load(KINDS[0], tokens, folder, 5)
        if not half and service.requests >= MILLION / 2:
            half = service.resident()
    full = service.resident()
    return [
        Figure("resident after a million requests, MiB", full, at_most=90),
        Figure("of which since the first half, MiB", full - half, at_most=2),
    ]
