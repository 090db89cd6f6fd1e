"""A foreign web page cannot use somebody's browser to call a server, and a trusted proxy names its clients."""

import logging
import subprocess
from pathlib import Path

import pytest
import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fotahook.contract.addresses import parse_networks
from fotahook.hosting.gate import Gate
from fotahook.hosting.logging import RequestLog
from tests.cli.processes import FOTAHOOK, environment, fotahook, running
from tests.deadlines import DEADLINE
from tests.service.conftest import Answer, ask


async def respond(request: Request) -> Response:
    assert request.client is not None
    return PlainTextResponse(request.client.host)


APP = Starlette(routes=[Route("/", respond, methods=["GET", "POST", "DELETE"])])
OURS = Gate(APP, hosts=frozenset(("ops.example",)))


async def call(gate: Gate, method: str = "GET", **headers: str) -> Answer:
    return await ask(gate, method, "/", headers={"host": "localhost", **headers})


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8080", "localhost.", "app.localhost", "127.0.0.1:8080", "192.0.2.1", "[::1]:8080"),
        *("ops.example", "OPS.example:443"),
    ],
)
async def test_loopback_names_addresses_and_configured_names_are_answered(host: str) -> None:
    assert (await call(OURS, host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "notlocalhost", "2130706433", "xn--localhost"],
)
async def test_other_names_are_refused_however_they_resolve(host: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(APP)
    for _ in range(2):
        assert (await call(gate, host=host)).error == (421, "MISDIRECTED_REQUEST")
    (line,) = caplog.messages
    assert host in line
    assert "--allow-host" in line
    assert (await call(Gate(APP, any_host=True), host=host)).status == 200


@pytest.mark.parametrize(
    "hosts", [[], [b"localhost", b"localhost"], [b""], [b"a b"], [b"u@localhost"], [b"localhost:x"]]
)
async def test_a_request_needs_one_valid_host(hosts: list[bytes]) -> None:
    for gate in (OURS, Gate(APP, any_host=True)):
        answer = await ask(gate, "GET", "/", headers=[(b"host", host) for host in hosts])
        assert answer.error == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("https://localhost", "localhost:443"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://ops.example", "127.0.0.1:8080"),  # a proxy puts its own Host
        ("https://OPS.example", "ops.example"),
    ],
)
async def test_calls_from_our_own_page_are_answered(origin: str, host: str) -> None:
    assert (await call(OURS, "POST", host=host, origin=origin)).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1", "https://localhost"),
        *("ftp://localhost", "http://localhost@evil.example", "file://", "http://localhost:8080.evil.example"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_calls_from_other_pages_are_refused_unless_they_only_read(origin: str, method: str) -> None:
    gate = Gate(APP, any_host=True)
    assert (await call(gate, method, host="localhost:8080", origin=origin)).error == (403, "CROSS_ORIGIN")
    assert (await call(gate, host="localhost:8080", origin=origin)).status == 200


async def test_a_proxy_names_its_client_if_it_is_trusted() -> None:
    forwarded = {"x-forwarded-for": "203.0.113.9, 198.51.100.7"}
    assert (await call(OURS, **forwarded)).body == b"127.0.0.1"
    behind = Gate(APP, proxies=parse_networks(["127.0.0.0/8"]))
    assert (await call(behind, **forwarded)).body == b"198.51.100.7"
    assert (await call(behind)).body == b"127.0.0.1"
    assert (await call(behind, **{"x-forwarded-for": "nonsense"})).body == b"127.0.0.1"


async def test_the_log_names_few_hosts(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(APP)
    with caplog.at_level(logging.WARNING):
        for number in range(300):
            await call(gate, host=f"{number}.example")
    assert len(caplog.messages) == 100


async def test_browsers_are_told_to_stay_with_tls() -> None:
    logged = RequestLog(APP, log_all=False, log_paths=False)

    async def over_tls(scope: object, receive: object, send: object) -> None:
        await logged({**scope, "scheme": "https"}, receive, send)  # type: ignore[dict-item, arg-type]

    assert (await ask(over_tls, "GET", "/")).header("strict-transport-security") == "max-age=31536000"
    assert (await ask(logged, "GET", "/")).header("strict-transport-security") is None


def test_a_service_in_dev_mode_listens_for_others_only_if_told_to(tmp_path: Path) -> None:
    refused = fotahook("serve", "--dev", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert refused.returncode == 2
    assert "add --allow-public-dev" in refused.stderr
    flags = ("--dev", "--host", "0.0.0.0", "--allow-public-dev", "--port", "0")
    with running("serve", *flags, cwd=tmp_path) as service:
        assert service.stop() == 0


def test_a_process_whose_log_nobody_reads_goes_on_and_ends_when_told_to(tmp_path: Path) -> None:

    for command in (("serve", "--dev", "--log-requests"), ("listen", "--path", "/x")):
        process = subprocess.Popen(
            [*FOTAHOOK, *command, "--port", "0"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2].removesuffix("/x")
            with urllib3.PoolManager(timeout=DEADLINE, retries=False) as http:
                for number in range(600):
                    # Two lines of 300 bytes for each: a pipe has room for 64 KiB.
                    headers = {"Host": f"{number}.{'x' * 200}.example"}
                    assert http.request("GET", url + f"/{'y' * 150}{number}", headers=headers).status == 421
                assert http.request("GET", url + "/healthz").status == 200
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            process.communicate()
