"""Messages published one by one over HTTP to a whole `fotahook serve`, and one account whose receiver is slow.

FOTAHOOK_BASELINE is the Python of another version: its service is measured in the same run, to compare the rates.
`python -m bench.singles WORK PYTHON` measures one thing. Publishers and receiver share a process.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import ClassVar, cast

import uvloop

from bench import rig
from bench.delivery_accept import ACCOUNTS
from bench.listener import Connection
from bench.report import Figure, Report, shown
from fotahook import AsyncClient, FotaV2CallbackRegistrationRequest, SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.keys import generate_secret_key

ROUNDS = 5
CONNECTIONS = 32
SINGLES = 5_000
WARM_UP = 500
PER_SECOND = 100
GENTLE_SECONDS = 10.0
SLOW_ANSWER = 0.1
SLOW_SECONDS = 8.0
GROWING_SECONDS = 6.0
"""The number in flight grows with each round of answers: this long until the rate counts."""
BACKLOG = 25_000
CLIENT = ("dev", "dev-secret")
BODY_BYTES = 600


def main(report: Report) -> None:
    baseline = os.environ.get("FOTAHOOK_BASELINE", "")
    singles: list[rig.Found] = []
    for _ in range(ROUNDS):
        singles.append(rig.run("bench.singles", "singles", sys.executable))
        if baseline:
            before = rig.run("bench.singles", "singles", baseline)
            singles[-1]["ratio"] = singles[-1]["per_second"] / before["per_second"]
    gentle = [rig.run("bench.singles", "gentle", sys.executable) for _ in range(ROUNDS)]
    slow = {flag: [rig.run("bench.singles", f"slow:{flag}", sys.executable) for _ in range(3)] for flag in (64, 256)}

    def of(found: list[rig.Found], name: str) -> list[float]:
        return [one[name] for one in found]

    report.say(f"{shown(of(singles, 'per_second'))} single messages/s, end to end.")
    report.compare(
        [
            Figure(
                f"single messages/s, {CONNECTIONS} connections, 50 accounts, x another version",
                of(singles, "ratio") if baseline else None,
                at_least=2.5,
                note="FOTAHOOK_BASELINE is not set",
            ),
            Figure("CPU of the service for a single message, ms", of(singles, "cpu_ms"), at_most=0.4),
            Figure("kB written to disk for a single message of 600 bytes", of(singles, "kilobytes"), at_most=10),
            Figure(f"CPU for a message at {PER_SECOND}/s, ms", of(gentle, "cpu_ms"), at_most=1.5),
            Figure(f"accepted to received at {PER_SECOND}/s: p50, ms", of(gentle, "p50_ms"), at_most=1),
            Figure(f"accepted to received at {PER_SECOND}/s: p99, ms", of(gentle, "p99_ms"), at_most=2.5),
            Figure("one account, answers after 100 ms: messages/s", of(slow[64], "per_second"), at_least=600),
            Figure("the same with --in-flight 256", of(slow[256], "per_second"), at_least=1300),
        ]
    )


class Receiver(asyncio.Protocol):
    """Answers 200, after `delay`; `received` are the times by message, named by the number in its body."""

    delay = 0.0
    received: ClassVar[dict[int, float]] = {}

    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        _, end, body = self._seen.partition(b"\r\n\r\n")
        if not end or len(body) < BODY_BYTES:
            return
        self._seen = b""
        Receiver.received.setdefault(int(body[7:17]), time.perf_counter())
        asyncio.get_running_loop().call_later(Receiver.delay, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def body(number: int) -> bytes:
    """A message of BODY_BYTES."""
    start = b'{"n": "%010d", "pad": "' % number
    return start + b"x" * (BODY_BYTES - len(start) - 2) + b'"}'


class Service:
    """A service in a process of its own, with every account registered."""

    def __init__(self, pid: int, port: int, token: str) -> None:
        self._pid = pid
        self._port = port
        self._token = token

    def usage(self) -> tuple[float, float]:
        """Seconds of CPU and bytes written to disk so far."""
        written = Path(f"/proc/{self._pid}/io").read_text().partition("\nwrite_bytes: ")[2].partition("\n")[0]
        return rig.cpu_seconds(self._pid), float(written)

    def request(self, path: str, content: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {self._token}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content

    def single(self, number: int) -> bytes:
        return self.request(f"/v1/accounts/{ACCOUNTS[number % len(ACCOUNTS)]}/messages", body(number))

    async def post(self, requests: list[bytes], connections: int = CONNECTIONS) -> None:
        loop, left = asyncio.get_running_loop(), iter(requests)
        done = [loop.create_future() for _ in range(connections)]
        for one in done:
            await loop.create_connection(lambda one=one: Connection(left, one), "127.0.0.1", self._port)  # type: ignore[misc]
        await asyncio.gather(*done)


async def singles(service: Service) -> rig.Found:
    await service.post([service.single(number) for number in range(WARM_UP)])
    await received(WARM_UP)
    requests = [service.single(number) for number in range(WARM_UP, WARM_UP + SINGLES)]
    before, begun = service.usage(), time.perf_counter()
    await service.post(requests)
    await received(WARM_UP + SINGLES)
    seconds = time.perf_counter() - begun
    return {"per_second": SINGLES / seconds, **await per_message(service, before, SINGLES)}


async def gentle(service: Service) -> rig.Found:
    count = int(PER_SECOND * GENTLE_SECONDS)
    accepted: dict[int, float] = {}

    async def publish(number: int) -> None:
        await service.post([service.single(number)], 1)
        accepted[number] = time.perf_counter()

    await service.post([service.single(number) for number in range(count, count + WARM_UP)])
    await received(WARM_UP)
    before, begun = service.usage(), time.perf_counter()
    async with asyncio.TaskGroup() as publishing:
        for number in range(count):
            await asyncio.sleep(begun + number / PER_SECOND - time.perf_counter())
            publishing.create_task(publish(number))
    await received(count + WARM_UP)
    # The answer to the publisher and the delivery may cross.
    waits = quantiles([max(0.0, Receiver.received[number] - at) for number, at in accepted.items()], n=100)
    usage = await per_message(service, before, count)
    return {"p50_ms": waits[49] * 1000, "p99_ms": waits[98] * 1000, **usage}


async def slow(service: Service) -> rig.Found:
    Receiver.delay = SLOW_ANSWER
    for first in range(0, BACKLOG, 5000):
        lines = [
            b'{"account": "%b", "message": %b}\n' % (ACCOUNTS[0].encode(), body(number))
            for number in range(first, first + 5000)
        ]
        await service.post([service.request("/v1/messages", b"".join(lines))], 1)
    await asyncio.sleep(GROWING_SECONDS)
    before = len(Receiver.received)
    await asyncio.sleep(SLOW_SECONDS)
    return {"per_second": (len(Receiver.received) - before) / SLOW_SECONDS}


async def per_message(service: Service, before: tuple[float, float], count: int) -> rig.Found:
    # Until the last outcomes are settled.
    await asyncio.sleep(0.5)
    cpu, written = (after - earlier for after, earlier in zip(service.usage(), before, strict=True))
    return {"cpu_ms": cpu / count * 1000, "kilobytes": written / count / 1000}


async def received(count: int) -> None:
    while len(Receiver.received) < count:  # noqa: ASYNC110  # it counts what protocols do
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(python: str, store: str, receiver: str, *flags: str) -> AsyncIterator[Service]:
    """A service on an empty store, run by a Python in which a version of fotahook is installed."""
    command = [python, "-W", "ignore", "-m", "fotahook", "serve", "--dev", "--port", "0", "--store", store, *flags]
    environment = os.environ | {"FOTAHOOK_SECRET_KEY": generate_secret_key()}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL, env=environment)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[2]
        token = ""

        def remember(given: object) -> None:
            nonlocal token
            token = given.access_token  # type: ignore[attr-defined]

        oauth = ThingspaceOauthCredentials(*CLIENT, oauth_on_token_update=remember)
        session = SessionCredentials("dev", "dev-password")
        async with AsyncClient(
            thingspace_oauth_credentials=oauth, vz_m2m_token_credentials=session, base_url=url, proxy=""
        ) as sdk:
            for account in ACCOUNTS:
                await sdk.software_management_callbacks_v2.register_callback(
                    account, FotaV2CallbackRegistrationRequest(receiver)
                )
        yield Service(process.pid, int(url.rpartition(":")[2]), token)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def measure(work: str, python: str) -> rig.Found:
    name, _, in_flight = work.partition(":")
    works: dict[str, Callable[[Service], Awaitable[rig.Found]]] = {"singles": singles, "gentle": gentle, "slow": slow}
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    receiver = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    flags = ("--in-flight", in_flight) if in_flight else ()
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as folder:
        async with serving(python, f"sqlite:///{folder}/store.db", receiver, *flags) as service:
            return await works[name](service)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], sys.argv[2]))))
