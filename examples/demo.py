"""The whole loop on this machine: a service, a listener behind TLS, a callback, and a campaign of messages.

`fotahook demo` runs this program; `python examples/demo.py 200` does too. It ends with what both stores and the
handler's own record prove.
"""

import asyncio
import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fotahook import (
    CallbackMessage,
    Client,
    FotaV2CallbackRegistrationRequest,
    Listener,
    OperatorClient,
    SessionCredentials,
    ThingspaceOauthCredentials,
)
from fotahook.listener import Context
from fotahook.store import Store, open_store
from fotahook.store.records import Message
from fotahook.testing import CampaignMessage, Certificates, campaign, make_certificates

ACCOUNT = "0000123456-00001"
EXAMPLE_URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
"""The callback of Verizon's published examples; nothing is sent there."""
CLIENT, USER = ("dev", "dev-secret"), ("dev", "dev-password")
"""The credentials of `fotahook serve --dev`."""
SERVICE_FILE, INBOX_FILE, LEDGER = "service.db", "inbox.db", Path("handled.txt")
PUBLISHERS = 32
READY_SECONDS, STALLED_SECONDS, STOP_SECONDS = 30, 10.0, 10


# The application: what `fotahook listen demo:listener` runs.

listener = Listener()


@listener.on_any
def write_down(message: CallbackMessage, context: Context) -> None:
    """Write down the id of each message in the order of handling."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"{context.id}\n")


def handled_ids(folder: Path) -> list[str]:
    """The inbox ids of the messages handled so far; a line still being written is left out."""
    ledger = folder / LEDGER
    return ledger.read_text().split("\n")[:-1] if ledger.exists() else []


# The loop.


def main(devices: int) -> int:
    """Run the loop, print what it proves, and return 0 if no message was lost."""
    with tempfile.TemporaryDirectory(prefix="fotahook-demo-") as name:
        folder = Path(name)
        certificates = make_certificates(folder, "127.0.0.1")
        flags = ("--dev", "--port", "0", "--store", f"sqlite:///{SERVICE_FILE}", "--ca-file", str(certificates.ca_file))
        with child("serve", *flags, folder=folder) as service:
            print_step("service", service.url)
            public_key = urllib3.request("GET", f"{service.url}/v1/accounts/{ACCOUNT}/signing-key").json()["public"]
            inbox = ("--port", "0", "--inbox", f"sqlite:///{INBOX_FILE}", "--public-key", f"{ACCOUNT}={public_key}")
            tls = ("--tls-cert", str(certificates.cert_file), "--tls-key", str(certificates.key_file))
            with child("listen", "demo:listener", *inbox, *tls, folder=folder) as listening:
                print_step("listener", listening.url)
                published, seconds = run_campaign(folder, service, listening, devices)
                refused = refusals(listening.url, certificates)
        # Both processes have finished their work and written it down.
        evidence = asyncio.run(gather(folder, published))
    title = f"from accepted to handled, {len(published)} messages in {seconds:.1f} s"
    print_report(title, evidence.figures, {**evidence.claims, **refused})
    return 0 if evidence.lost == 0 else 1


def run_campaign(
    folder: Path, service: "Child", listening: "Child", devices: int
) -> tuple[dict[str, CampaignMessage], float]:
    """Register the listener and publish a campaign; the messages by id, and the seconds until they were handled."""
    with Client(
        base_url=service.url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*CLIENT),
        vz_m2m_token_credentials=SessionCredentials(*USER),
        proxy="",
    ) as client:
        callbacks = client.software_management_callbacks_v2

        def registered() -> str:
            summary = callbacks.list_registered_callbacks(ACCOUNT).data
            return "nothing is registered" if summary is None else str(summary.url)

        print_step("list", registered())
        callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(EXAMPLE_URL))
        print_step("register", EXAMPLE_URL)
        print_step("list", registered())
        callbacks.update_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(listening.url))
        print_step("update", listening.url)
        began = time.monotonic()
        published = publish_campaign(folder, (service, listening), devices)
        seconds = time.monotonic() - began
        callbacks.deregister_callback(ACCOUNT)
        print_step("deregister", registered())
    return published, seconds


def publish_campaign(folder: Path, children: "Sequence[Child]", devices: int) -> dict[str, CampaignMessage]:
    """Publish a campaign and wait until it is handled, or nothing moves any more; the messages by id."""
    by_device: dict[str, list[CampaignMessage]] = defaultdict(list)
    for message in campaign(ACCOUNT, devices=devices):
        by_device[message.device].append(message)
    total = sum(map(len, by_device.values()))
    published: dict[str, CampaignMessage] = {}

    def publish(messages: Sequence[CampaignMessage]) -> None:
        # A device's messages are accepted, and so delivered, in order.
        for message in messages:
            answer = client.publish(ACCOUNT, message.body, ordering_key=message.device, idempotency_key=message.key)
            published[answer.id] = message

    console = Console(stderr=True)
    bars = (TextColumn("handled   "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        OperatorClient(children[0].url, *CLIENT, proxy="") as client,
        ThreadPoolExecutor(PUBLISHERS) as pool,
        Progress(*bars, console=console, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("handled", total=total)
        futures = [pool.submit(publish, messages) for messages in by_device.values()]
        try:
            handled, moved_at = 0, time.monotonic()
            while handled < total and time.monotonic() - moved_at < STALLED_SECONDS:
                time.sleep(0.05)
                for one in children:
                    one.check()
                if (count := len(handled_ids(folder))) > handled:
                    handled, moved_at = count, time.monotonic()
                    progress.update(bar, completed=handled)
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return published


def refusals(url: str, certificates: Certificates) -> Mapping[str, bool]:
    """Claims about what the listener, and a client that does not trust it, refuse."""
    with urllib3.PoolManager(ca_certs=str(certificates.ca_file)) as http:
        unsigned = http.request("POST", url, body=b"{}", retries=False).status
    try:
        urllib3.request("POST", url, body=b"{}", retries=False)
        rejected = False
    except urllib3.exceptions.SSLError:
        rejected = True
    return {
        "a client that does not know the authority rejects the listener's certificate": rejected,
        "the listener verified the service's signature, and answers an unsigned message with 401": unsigned == 401,
    }


def print_step(step: str, result: str) -> None:
    print(f"{step:<10}  {result}", flush=True)


# What it proves, read from both stores and from the handler's ledger.


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What became of the accepted messages: figures by name, and whether each claim holds."""

    lost: int
    figures: Mapping[str, str]
    claims: Mapping[str, bool]


async def gather(folder: Path, published: Mapping[str, CampaignMessage]) -> Evidence:
    """The evidence on published messages, given by the ids that the service accepted them under."""
    async with opened(folder / SERVICE_FILE) as service, opened(folder / INBOX_FILE) as inbox:
        sent = await stored(service, published)
        attempts = [await service.attempts(message_id) for message_id in published]
        in_inbox = await stored(inbox, handled_ids(folder))
    # In the order of handling, by the service's ids.
    received = [(webhook_id(message), message) for message in in_inbox]
    settled = {message_id: message for message_id, message in received if is_delivered(message)}
    handled = [(message, settled[message.id]) for message in sent if message.id in settled]
    latencies = sorted((there.deliveries[0].settled_at or math.inf) - here.accepted_at for here, there in handled)
    in_order = ids_by_device((message_id for message_id, _ in received), published)
    lost = len(published) - len(handled)
    figures = {
        "accepted": str(len(published)),
        "delivered": str(sum(map(is_delivered, sent))),
        "handled": str(len(handled)),
        "duplicates": str(sum(message.duplicates for message in settled.values())),
        "lost": str(lost),
        "p50": percentile(latencies, 50),
        "p99": percentile(latencies, 99),
    }
    claims = {
        "no accepted message was lost: every one was handled": lost == 0,
        "each message arrived byte for byte as it was published": bool(handled)
        and all(there.body == published[here.id].body for here, there in handled),
        "each device's messages were handled once, in the order of their acceptance": in_order
        == ids_by_device(published, published),
        "every delivery used TLS": all(
            tries and all((one.url or "").startswith("https://") for one in tries) for tries in attempts
        ),
    }
    return Evidence(lost=lost, figures=figures, claims=claims)


def print_report(title: str, figures: Mapping[str, str], claims: Mapping[str, bool]) -> None:
    """The table of figures, and which claims hold."""
    print(f"\n{title}")
    if sys.stdout.isatty():
        table = Table(*figures)
        table.add_row(*figures.values())
        Console().print(table)
    else:
        for name, figure in figures.items():
            print(f"{name:<10}  {figure}")
    print()
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO':<3}  {claim}")


def percentile(ordered: Sequence[float], percent: int) -> str:
    """The latency that this share of the messages did not exceed."""
    return f"{1000 * ordered[math.ceil(len(ordered) * percent / 100) - 1]:.0f} ms" if ordered else "-"


@contextlib.asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{file}")
    try:
        yield store
    finally:
        await store.close()


async def stored(store: Store, ids: Iterable[str]) -> list[Message]:
    """Those of the messages that are in the store."""
    return [message for message_id in ids if (message := await store.message(message_id)) is not None]


def webhook_id(received: Message) -> str:
    """The service's id of a message in the inbox, which is the last part of its idempotency key there."""
    return (received.idempotency_key or "").rpartition(":")[2]


def is_delivered(message: Message) -> bool:
    return message.deliveries[0].state == "delivered"


def ids_by_device(message_ids: Iterable[str], published: Mapping[str, CampaignMessage]) -> dict[str, list[str]]:
    """Message ids by device, in the order given."""
    ids: dict[str, list[str]] = defaultdict(list)
    for message_id in message_ids:
        ids[published[message_id].device].append(message_id)
    return ids


# Its processes.


@dataclass(frozen=True, kw_only=True)
class Child:
    """A fotahook process that is ready at a URL."""

    name: str
    url: str
    process: subprocess.Popen[str]
    log: Path

    def check(self) -> None:
        """Exit with the end of its log if the process has ended."""
        if (code := self.process.poll()) is not None:
            how = f"by signal {-code}" if code < 0 else f"with {code}"
            fail(f"fotahook {self.name} ended by itself {how}", self.log)


@contextlib.contextmanager
def child(name: str, *arguments: str, folder: Path) -> Iterator[Child]:
    """`fotahook NAME ARGUMENTS…` in a folder, stopped on leaving; exits if it does not become ready, or ends."""
    log = folder / f"{name}.log"
    # Without the variables that would configure it: it is to do what its arguments say.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOTAHOOK_")}
    # The listener imports this module.
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "fotahook", name, *arguments]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=null, stdout=pipe, stderr=stderr, text=True
        ) as process,
    ):
        started = Child(name=name, url="", process=process, log=log)
        try:
            started = Child(name=name, url=ready_url(started), process=process, log=log)
            try:
                yield started
            except Exception:
                # Often a consequence of the process's end, which says more.
                started.check()
                raise
        finally:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
            finally:
                process.kill()


def ready_url(started: Child) -> str:
    """The URL in the line that a process prints when it is ready."""
    assert started.process.stdout is not None  # it is a pipe
    if not select.select([started.process.stdout], [], [], READY_SECONDS)[0]:
        fail(f"fotahook {started.name} was not ready within {READY_SECONDS} s", started.log)
    line = started.process.stdout.readline()
    if not line:
        started.process.wait()
        started.check()
    return line.split()[2]


def fail(text: str, log: Path) -> NoReturn:
    lines = log.read_text(errors="replace").splitlines()[-10:]
    print("\n".join(lines) or f"({log.stem} logged nothing)", file=sys.stderr)
    raise SystemExit(f"{text}; the lines above are the last of its log")


if __name__ == "__main__":
    # As Ctrl-C: the processes end and the folder is removed. `fotahook` does the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
