"""`fotahook demo`: the whole loop on this machine, as an application and an operator would use it."""

import asyncio
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import urllib3

from fotahook.client import Client, OperatorClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.models import CallbackSummary, FotaV2CallbackRegistrationRequest
from fotahook.service import DEV_CLIENT, DEV_USER
from fotahook.testing import CampaignMessage, Certificates, campaign, make_certificates

from ..shared.errors import FAILED, UsageError
from ..shared.progress import counting
from .evidence import INBOX_FILE, SERVICE_FILE, gather, print_report
from .handlers import handled_ids
from .processes import Child, child

ACCOUNT: Final = "0000123456-00001"
EXAMPLE_URL: Final = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
"""The callback of the published examples; nothing is sent there."""
MAX_DEVICES: Final = 10_000
PUBLISHERS: Final = 32
STALLED_SECONDS: Final = 10.0
"""If no message is handled in this time, the rest counts as lost."""


def demo(*, devices: int = 200) -> int:
    """Show the whole loop: a service and a listener behind TLS, one callback, a campaign of messages.

    Everything happens in a temporary folder, in processes that end with the demo. Exit code 0 only if nothing was lost.

    Example: fotahook demo --devices 20

    Parameters
    ----------
    devices
        How many devices the campaign has; most have three messages.
    """
    if not 1 <= devices <= MAX_DEVICES:
        raise UsageError(f"--devices {devices}: choose 1 to {MAX_DEVICES}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            # As Ctrl-C: the processes end and the folder is removed.
            signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="fotahook-demo-") as name:
        folder = Path(name)
        certificates = make_certificates(folder, "127.0.0.1")
        flags = ("--dev", "--port", "0", "--store", f"sqlite:///{SERVICE_FILE}", "--ca-file", str(certificates.ca_file))
        with child("serve", *flags, folder=folder) as service:
            _print_step("service", service.url)
            with child("listen", *_listener_flags(service, certificates), folder=folder) as listener:
                _print_step("listener", listener.url)
                published, seconds = _run(folder, service, listener, devices)
                refused = _refusals(listener.url, certificates)
        # Both processes have finished their work and written it down.
        evidence = asyncio.run(gather(folder, published))
    title = f"from accepted to handled, {len(published)} messages in {seconds:.1f} s"
    print_report(title, evidence.figures, {**evidence.claims, **refused})
    return 0 if evidence.lost == 0 else FAILED


def _listener_flags(service: Child, certificates: Certificates) -> tuple[str, ...]:
    public_key = urllib3.request("GET", f"{service.url}/v1/signing-key").json()["public"]
    return (
        *("fotahook.cli.demo.handlers:listener", "--port", "0", "--inbox", f"sqlite:///{INBOX_FILE}"),
        *("--tls-cert", str(certificates.cert_file), "--tls-key", str(certificates.key_file)),
        *("--public-key", public_key),
    )


def _run(folder: Path, service: Child, listener: Child, devices: int) -> tuple[dict[str, CampaignMessage], float]:
    """Register the listener and publish a campaign; the messages by id, and the seconds until they were handled."""
    with Client(
        base_url=service.url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
        vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
        proxy="",
    ) as client:
        callbacks = client.software_management_callbacks_v2
        _print_step("list", _url_of(callbacks.list_registered_callbacks(ACCOUNT).data))
        callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(EXAMPLE_URL))
        _print_step("register", EXAMPLE_URL)
        _print_step("list", _url_of(callbacks.list_registered_callbacks(ACCOUNT).data))
        callbacks.update_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(listener.url))
        _print_step("update", listener.url)
        began = time.monotonic()
        published = _publish_campaign(folder, (service, listener), devices)
        seconds = time.monotonic() - began
        callbacks.deregister_callback(ACCOUNT)
        _print_step("deregister", _url_of(callbacks.list_registered_callbacks(ACCOUNT).data))
    return published, seconds


def _publish_campaign(folder: Path, children: Sequence[Child], devices: int) -> dict[str, CampaignMessage]:
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

    with (
        OperatorClient(children[0].url, *DEV_CLIENT, proxy="") as client,
        ThreadPoolExecutor(PUBLISHERS) as pool,
        counting(total, "handled") as advance,
    ):
        futures = [pool.submit(publish, messages) for messages in by_device.values()]
        try:
            handled, moved_at = 0, time.monotonic()
            while handled < total and time.monotonic() - moved_at < STALLED_SECONDS:
                time.sleep(0.05)
                for one in children:
                    one.check()
                if (count := len(handled_ids(folder))) > handled:
                    handled, moved_at = count, time.monotonic()
                    advance(handled)
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return published


def _refusals(url: str, certificates: Certificates) -> Mapping[str, bool]:
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


def _url_of(summary: CallbackSummary | None) -> str:
    return "nothing is registered" if summary is None else str(summary.url)


def _print_step(step: str, result: str) -> None:
    print(f"{step:<10}  {result}", flush=True)
