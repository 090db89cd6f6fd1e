"""The examples for each framework, behind their own servers, receive the same campaign from a real service over TLS."""

import contextlib
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3

from fotahook import Client, OperatorClient, SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.messages import parse_message
from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.testing import Certificates, campaign, make_certificates
from tests.cli.processes import FOTAHOOK, end, environment, running
from tests.deadlines import DEADLINE
from tests.ports import unused_port

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
ACCOUNT: Final = b"0000123456-00001"
MESSAGES: Final = [one.body for one in itertools.islice(campaign(ACCOUNT.decode(), devices=34), 100)]
FRAMEWORKS: Final = ("starlette", "fastapi", "litestar", "django", "flask")


@dataclass(frozen=True)
class Framework:
    """An example at work."""

    name: str
    url: str
    output: Path
    """What its handler prints."""


def test_five_frameworks_receive_the_same_messages_from_a_service_over_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "127.0.0.1")
    with contextlib.ExitStack() as stack:
        flags = ("--dev", "--port", "0", "--ca-file", str(made.ca_file))
        frameworks = [stack.enter_context(example(name, tmp_path, made)) for name in FRAMEWORKS]
        service = stack.enter_context(running("serve", *flags, cwd=tmp_path))
        wait_until_all_answer(frameworks, made)
        register(service.url, frameworks)
        with OperatorClient(service.url, *DEV_CLIENT, proxy="") as operator:
            for framework, body in itertools.product(frameworks, MESSAGES):
                # A message is about the account that it is published to.
                operator.publish(framework.name, body.replace(ACCOUNT, framework.name.encode()))
        expected = sorted(printed(body) for body in MESSAGES)
        for framework in frameworks:
            assert sorted(lines(framework.output, len(MESSAGES))) == expected, framework.name


@contextlib.contextmanager
def example(name: str, folder: Path, made: Certificates) -> Iterator[Framework]:
    """An example behind the server that its first lines name, in a folder of its own."""
    home = folder / name
    home.mkdir()
    port = str(unused_port())
    place, cert, key = ("--port", port), str(made.cert_file), str(made.key_file)
    commands: list[tuple[str, ...]]
    if name == "flask":
        python = (sys.executable, "-W", "ignore", "-m")
        commands = [
            (*python, "flask", "--app", "listener_flask", "run", *place, "--cert", cert, "--key", key),
            (*FOTAHOOK, "listen", "listener_flask:listener", "--port", "0"),
        ]
    else:
        app = f"listener_{name}:app"
        commands = [
            (sys.executable, "-m", "uvicorn", app, *place, "--ssl-certfile", cert, "--ssl-keyfile", key),
        ]
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(process(command, home)) for command in commands]
        yield Framework(name, f"https://127.0.0.1:{port}/thingspace/", outputs[-1])


@contextlib.contextmanager
def process(command: Sequence[str], home: Path) -> Iterator[Path]:
    """A process and the file that it prints into."""
    output = home / f"{len(list(home.iterdir()))}.out"
    with output.open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
        started = subprocess.Popen(
            command,
            cwd=home,
            env=environment(PYTHONPATH=str(EXAMPLES)),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
    try:
        yield output
    finally:
        end(started)


def wait_until_all_answer(frameworks: Sequence[Framework], made: Certificates) -> None:
    """Each serves its own page beside the listener, and the listener's health."""
    until = time.monotonic() + DEADLINE
    with urllib3.PoolManager(ca_certs=str(made.ca_file), retries=False) as http:
        for framework in frameworks:
            while not accepts(framework):
                errors = [file.read_text() for file in framework.output.parent.glob("*.err")]
                assert time.monotonic() < until, errors
                time.sleep(0.02)
            page = http.request("GET", framework.url.removesuffix("thingspace/"))
            assert (page.status, b"the rest of the app" in page.data) == (200, True), framework.name
            assert http.request("GET", f"{framework.url}healthz").json() == {"status": "ok"}, framework.name


def accepts(framework: Framework) -> bool:
    """Whether its server takes connections."""
    port = urllib3.util.parse_url(framework.url).port
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def register(service: str, frameworks: Sequence[Framework]) -> None:
    with Client(
        base_url=service,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
        vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
        proxy="",
    ) as client:
        calls = client.software_management_callbacks_v2
        for framework in frameworks:
            calls.register_callback(framework.name, FotaV2CallbackRegistrationRequest(framework.url))


def printed(body: bytes) -> str:
    """What the examples print of a message."""
    message = parse_message(body)
    return " ".join([str(message.kind), *(f"{device.device_id} {device.status}" for device in message.devices)])


def lines(file: Path, count: int) -> list[str]:
    """The message lines of a file, once there are so many."""
    until = time.monotonic() + DEADLINE
    while True:
        found = [line for line in file.read_text().splitlines() if line.startswith("upgrade")]
        if len(found) >= count:
            return found
        errors = [errors.read_text() for errors in file.parent.glob("*.err")]
        assert time.monotonic() < until, (len(found), errors)
        time.sleep(0.02)
