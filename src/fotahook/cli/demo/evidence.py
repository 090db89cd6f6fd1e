"""What the demo may claim: read from the two stores, and from the ledger that the handlers wrote."""

import contextlib
import json
import math
import statistics
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fotahook.contract.messages import parse_message
from fotahook.store import Store, open_store
from fotahook.store.records import Message
from fotahook.testing import CampaignMessage

from ..shared.errors import Failure
from .handlers import LEDGER

SERVICE_FILE: Final = "service.db"
INBOX_FILE: Final = "inbox.db"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What became of the messages that the service accepted. Latencies in seconds, from accepted to handled."""

    accepted: int
    delivered: int
    handled: int
    duplicates: int
    latencies: Sequence[float]
    same_bytes: bool
    """Whether every message arrived byte for byte."""
    in_order: bool
    """Whether the handlers saw each device's messages in the order of their acceptance."""
    over_tls: bool
    """Whether every attempt at every message went to an https URL."""

    @property
    def lost(self) -> int:
        return self.accepted - self.handled

    def quantile(self, share: float) -> float | None:
        """The latency that this share of the messages did not exceed."""
        if len(self.latencies) < 2:
            return self.latencies[0] if self.latencies else None
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[round(share * 100) - 1]


async def gather(folder: Path, published: Mapping[str, CampaignMessage]) -> Evidence:
    """The evidence on the messages published, by the ids under which the service accepted them."""
    ledger = read_ledger(folder)
    async with _opened(folder / SERVICE_FILE) as service, _opened(folder / INBOX_FILE) as inbox:
        sent = [await _found(service, message_id) for message_id in published]
        received = {_webhook_id(message): message for message in [await _found(inbox, one["id"]) for one in ledger]}
        over_tls = [await _over_tls(service, message_id) for message_id in published]
    handled = [(left, received[left.id]) for left in sent if left.id in received]
    handled = [(left, arrived) for left, arrived in handled if _state(arrived) == "delivered"]
    return Evidence(
        accepted=len(published),
        delivered=sum(_state(message) == "delivered" for message in sent),
        handled=len(handled),
        duplicates=sum(message.duplicates for message in received.values()),
        latencies=[_settled_at(arrived) - left.accepted_at for left, arrived in handled],
        same_bytes=bool(handled) and all(arrived.body == published[left.id].body for left, arrived in handled),
        in_order=_statuses(ledger) == _expected(published.values()),
        over_tls=bool(over_tls) and all(over_tls),
    )


def read_ledger(folder: Path) -> list[dict[str, str]]:
    """What the handlers have written so far; a line that is not whole yet is left for later."""
    ledger = folder / LEDGER
    text = ledger.read_text() if ledger.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextlib.asynccontextmanager
async def _opened(file: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{file}")
    try:
        yield store
    finally:
        await store.close()


async def _found(store: Store, message_id: str) -> Message:
    message = await store.message(message_id)
    if message is None:
        raise Failure(f"a message that was accepted is not in its store: {message_id}")
    return message


async def _over_tls(service: Store, message_id: str) -> bool:
    attempts = await service.attempts(message_id)
    return bool(attempts) and all((one.url or "").startswith("https://") for one in attempts)


def _webhook_id(received: Message) -> str:
    """The id that the service gave a message which the listener received."""
    # Behind what tells ids from the digests of messages that came without one.
    return (received.idempotency_key or "").rpartition(":")[2]


def _state(message: Message) -> str:
    return message.deliveries[0].state


def _settled_at(message: Message) -> float:
    return message.deliveries[0].settled_at or math.inf


def _statuses(ledger: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """What was reported of each device, in the order in which the handlers saw it."""
    seen: dict[str, list[str]] = {}
    for entry in ledger:
        seen.setdefault(entry["device"], []).append(entry["status"])
    return seen


def _expected(published: Iterable[CampaignMessage]) -> dict[str, list[str]]:
    devices = (device for message in published for device in parse_message(message.body).devices)
    return _statuses({"device": device.device_id or "", "status": device.status or ""} for device in devices)
