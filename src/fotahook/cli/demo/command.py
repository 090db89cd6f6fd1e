"""`fotahook demo`: the whole loop on this machine, as an application and an operator would use it."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

import urllib3

from fotahook.client import AsyncClient, AsyncOperatorClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.models import CallbackSummary, FotaV2CallbackRegistrationRequest
from fotahook.service import DEV_CLIENT, DEV_USER
from fotahook.testing import CampaignMessage, Certificates, campaign, make_certificates

from ..shared.errors import UsageError
from ..shared.progress import Advance, progress
from .evidence import INBOX_FILE, SERVICE_FILE, gather, read_ledger
from .processes import Child, child
from .report import report, say

ACCOUNT: Final = "0000123456-00001"
EXAMPLE_URL: Final = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
"""The callback of the published examples; nothing is sent there."""
MOST_DEVICES: Final = 10_000
PUBLISHERS: Final = 32
PATIENCE_SECONDS: Final = 10.0
"""Without a single message handled in this time, the rest counts as lost."""


def demo(*, devices: int = 200) -> int:
    """Show the whole loop: a service and a listener behind TLS, one callback, a campaign of messages.

    Everything happens in a temporary folder, in processes that end with the demo. Exit code 0 only if nothing was lost.

    Example: fotahook demo --devices 20

    Parameters
    ----------
    devices
        How many devices the campaign has; there are three messages for each.
    """
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices {devices}: choose 1 to {MOST_DEVICES}")
    with tempfile.TemporaryDirectory(prefix="fotahook-demo-") as folder:
        return asyncio.run(_demo(Path(folder), devices))


async def _demo(folder: Path, devices: int) -> int:
    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    # As Ctrl-C does it: what was started is ended, whatever the demo is at.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    certificates = make_certificates(folder, "127.0.0.1")
    service_flags = ("--dev", "--port", "0", "--store", f"sqlite:///{SERVICE_FILE}")
    async with child("serve", *service_flags, "--ca-file", str(certificates.ca_file), folder=folder) as service:
        say("service", service.url)
        listener_flags = _listener_flags(certificates, await asyncio.to_thread(_public_key, service))
        async with child("listen", *listener_flags, folder=folder) as listener:
            say("listener", listener.url)
            return await _while_alive(_loop(folder, service, listener, certificates, devices), service, listener)


def _listener_flags(certificates: Certificates, public_key: str) -> tuple[str, ...]:
    tls = ("--tls-cert", str(certificates.cert_file), "--tls-key", str(certificates.key_file))
    inbox = ("--port", "0", "--inbox", f"sqlite:///{INBOX_FILE}")
    return ("fotahook.cli.demo.handlers:listener", *inbox, *tls, "--public-key", public_key)


async def _loop(folder: Path, service: Child, listener: Child, certificates: Certificates, devices: int) -> int:
    async with _client(service) as client:
        callbacks = client.software_management_callbacks_v2
        say("list", _url_of((await callbacks.list_registered_callbacks(ACCOUNT)).data))
        await callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(EXAMPLE_URL))
        say("register", EXAMPLE_URL)
        say("list", _url_of((await callbacks.list_registered_callbacks(ACCOUNT)).data))
        await callbacks.update_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(listener.url))
        say("update", listener.url)
        began = time.monotonic()
        published = await _campaign(folder, service, devices)
        took = time.monotonic() - began
        evidence = await gather(folder, published)
        refusals = await asyncio.to_thread(_refusals, listener, certificates)
        await callbacks.deregister_callback(ACCOUNT)
        say("deregister", _url_of((await callbacks.list_registered_callbacks(ACCOUNT)).data))
    report(evidence, refusals, took)
    return 0 if evidence.lost == 0 else 1


async def _campaign(folder: Path, service: Child, devices: int) -> dict[str, CampaignMessage]:
    """Publish a campaign and wait until it is handled, or nothing moves any more; the messages by their ids."""
    messages = list(campaign(ACCOUNT, devices=devices))
    with progress(len(messages), "accepted", "handled") as advance:
        waiting = asyncio.create_task(_handled(folder, len(messages), advance))
        try:
            published = await _publish(service, messages, advance)
            await waiting
        finally:
            waiting.cancel()
    return published


async def _publish(service: Child, messages: Iterable[CampaignMessage], advance: Advance) -> dict[str, CampaignMessage]:
    by_device: dict[str, list[CampaignMessage]] = {}
    for message in messages:
        by_device.setdefault(message.device, []).append(message)
    devices = iter(by_device.values())
    published: dict[str, CampaignMessage] = {}

    async def publish_devices(client: AsyncOperatorClient) -> None:
        # A device's messages one after the other: their order is the order in which they are accepted.
        for device in devices:
            for message in device:
                answer = await client.publish(
                    ACCOUNT, message.body, ordering_key=message.device, idempotency_key=message.key
                )
                published[answer.id] = message
                advance("accepted", len(published))

    async with AsyncOperatorClient(service.url, *DEV_CLIENT, proxy="") as client, asyncio.TaskGroup() as publishers:
        for _ in range(PUBLISHERS):
            publishers.create_task(publish_devices(client))
    return published


async def _handled(folder: Path, total: int, advance: Advance) -> None:
    """Return when the ledger holds them all, or has not grown for too long."""
    done, grew_at = 0, time.monotonic()
    while done < total and time.monotonic() - grew_at < PATIENCE_SECONDS:
        await asyncio.sleep(0.05)
        now_done = len(read_ledger(folder))
        if now_done > done:
            done, grew_at = now_done, time.monotonic()
            advance("handled", done)


async def _while_alive(work: Coroutine[Any, Any, int], *children: Child) -> int:
    """Do the work for as long as all children live."""
    working = asyncio.ensure_future(work)
    deaths = [asyncio.ensure_future(one.died()) for one in children]
    try:
        await asyncio.wait([working, *deaths], return_when=asyncio.FIRST_COMPLETED)
        for death in deaths:
            if death.done():
                raise death.result()
        return working.result()
    finally:
        for task in (working, *deaths):
            task.cancel()
        await asyncio.gather(working, *deaths, return_exceptions=True)


def _client(service: Child) -> AsyncClient:
    return AsyncClient(
        base_url=service.url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
        vz_m2m_token_credentials=SessionCredentials(*DEV_USER),
        proxy="",
    )


def _url_of(summary: CallbackSummary | None) -> str:
    return "nothing is registered" if summary is None else str(summary.url)


def _public_key(service: Child) -> str:
    with urllib3.PoolManager() as http:
        key = http.request("GET", f"{service.url}/v1/signing-key").json()["public"]
    return str(key)


def _refusals(listener: Child, certificates: Certificates) -> dict[str, bool]:
    """Whether the listener turns away who has not signed, and a stranger to its authority cannot trust it."""
    with urllib3.PoolManager(ca_certs=str(certificates.ca_file)) as http:
        unsigned = http.request("POST", listener.url, body=b"{}", retries=False).status
    with urllib3.PoolManager() as stranger:
        try:
            stranger.request("POST", listener.url, body=b"{}", retries=False)
            trusted = True
        except urllib3.exceptions.SSLError:
            trusted = False
    return {"unsigned": unsigned == 401, "untrusted": not trusted}
