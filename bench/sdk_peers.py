"""Measures one peer: `python -m bench.sdk_peers PEER URL SECONDS CORE` prints a JSON object.

The bare libraries make the same exchange and check the same JSON, and nothing else.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ACCOUNT = "0000123456-00001"
LISTENER = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
PATH = f"/api/fota/v2/callbacks/{ACCOUNT}"
HEADERS = {
    "Authorization": "Bearer a-token-for-the-bench",
    "VZ-M2M-Token": "0f2a7b1e-0000-4000-8000-000000000000",
    "accept": "application/json",
    "Content-Type": "application/json",
}
CONCURRENT = 64

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def official(url: str) -> tuple[Call, Call]:
    from verizon.configuration import Configuration, Environment, Server
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
    from verizon.verizon_client import VerizonClient

    servers = Configuration.environments[Environment.PRODUCTION]
    servers[Server.SOFTWARE_MANAGEMENT_V2] = f"{url}/api/fota/v2"
    servers[Server.OAUTH_SERVER] = f"{url}/api/ts/v1"
    client = VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("id", "secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials("0f2a7b1e-0000-4000-8000-000000000000"),
    )
    callbacks = client.software_management_callbacks_v2
    body = FotaV2CallbackRegistrationRequest(url=LISTENER)
    return lambda: callbacks.list_registered_callbacks(ACCOUNT), lambda: callbacks.register_callback(ACCOUNT, body)


def fotahook(url: str) -> tuple[Call, Call]:
    import fotahook

    client = fotahook.Client(
        thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("id", "secret"),
        vz_m2m_token_credentials=fotahook.SessionCredentials("user", "password"),
        base_url=url,
    )
    callbacks = client.software_management_callbacks_v2
    body = fotahook.FotaV2CallbackRegistrationRequest(LISTENER)
    return lambda: callbacks.list_registered_callbacks(ACCOUNT), lambda: callbacks.register_callback(ACCOUNT, body)


def urllib3(url: str) -> tuple[Call, Call]:
    import msgspec
    import urllib3

    from fotahook import CallbackSummary

    pool = urllib3.connection_from_url(url)
    read = msgspec.json.Decoder(CallbackSummary).decode
    body = msgspec.json.encode({"url": LISTENER})

    def send(method: str, body: bytes | None) -> object:
        reply = pool.request(method, PATH, body=body, headers=HEADERS)
        if reply.status != 200:
            raise ValueError(reply.status)
        return read(reply.data)

    return lambda: send("GET", None), lambda: send("POST", body)


def async_fotahook(url: str) -> tuple[AsyncCall, AsyncCall]:
    import fotahook

    client = fotahook.AsyncClient(
        thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("id", "secret"),
        vz_m2m_token_credentials=fotahook.SessionCredentials("user", "password"),
        base_url=url,
    )
    callbacks = client.software_management_callbacks_v2
    body = fotahook.FotaV2CallbackRegistrationRequest(LISTENER)
    return lambda: callbacks.list_registered_callbacks(ACCOUNT), lambda: callbacks.register_callback(ACCOUNT, body)


def aiohttp(url: str) -> tuple[AsyncCall, AsyncCall]:
    import aiohttp
    import msgspec

    from fotahook import CallbackSummary

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    read = msgspec.json.Decoder(CallbackSummary).decode
    body = msgspec.json.encode({"url": LISTENER})

    async def send(method: str, body: bytes | None) -> object:
        async with session.request(method, url + PATH, data=body, headers=HEADERS) as reply:
            if reply.status != 200:
                raise ValueError(reply.status)
            return read(await reply.read())

    return lambda: send("GET", None), lambda: send("POST", body)


def measure(call: Call, seconds: float, threads: int = 1) -> dict[str, float]:
    """Calls per second and CPU microseconds per call, after a first call to warm up."""
    call()
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            call()
            counts[index] += 1

    wall, cpu = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _rates(sum(counts), time.perf_counter() - wall, time.process_time() - cpu)


async def ameasure(call: AsyncCall, seconds: float) -> dict[str, float]:
    """The same with CONCURRENT tasks."""
    await asyncio.gather(*(call() for _ in range(CONCURRENT)))
    count = 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call()
            count += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return _rates(count, time.perf_counter() - wall, time.process_time() - cpu)


def _rates(calls: int, wall: float, cpu: float) -> dict[str, float]:
    return {"per_second": calls / wall, "cpu_us": cpu / calls * 1e6}


def first_call(begin: Callable[[str], tuple[Call, Call]], url: str) -> dict[str, float]:
    """The memory of a process after one call, in MB; the parent measures the time."""
    begin(url)[0]()
    # Not getrusage(): its maximum includes the time before exec, when the memory was the parent's.
    status = Path("/proc/self/status").read_text()
    return {"rss_mb": int(status.partition("VmHWM:")[2].split()[0]) / 1024}


async def asynchronous(begin: Callable[[str], tuple[AsyncCall, AsyncCall]], url: str, seconds: float) -> object:
    get, post = begin(url)
    return {"list": await ameasure(get, seconds), "register": await ameasure(post, seconds)}


def synchronous(begin: Callable[[str], tuple[Call, Call]], url: str, seconds: float, threads: int) -> object:
    get, post = begin(url)
    return {"list": measure(get, seconds, threads), "register": measure(post, seconds, threads)}


SYNC = {"official": official, "fotahook": fotahook, "urllib3": urllib3}
ASYNC = {"async-fotahook": async_fotahook, "aiohttp": aiohttp}


def run(peer: str, url: str, seconds: float) -> object:
    name, _, variant = peer.partition(":")
    if variant == "first":
        return first_call(SYNC[name], url)
    if name in SYNC:
        return synchronous(SYNC[name], url, seconds, int(variant or 1))
    if variant == "uvloop":
        import uvloop

        return uvloop.run(asynchronous(ASYNC[name], url, seconds))
    return asyncio.run(asynchronous(ASYNC[name], url, seconds))


if __name__ == "__main__":
    if len(sys.argv) > 4:
        os.sched_setaffinity(0, {int(sys.argv[4])})
    print(json.dumps(run(sys.argv[1], sys.argv[2], float(sys.argv[3]))), flush=True)
    # Exit at once, with open connections: shutting down is not measured.
    os._exit(0)
