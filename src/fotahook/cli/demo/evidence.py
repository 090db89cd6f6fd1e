"""What the demo proves: read from both stores and from the handler's ledger, and printed as a table."""

import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fotahook.store import Store, open_store
from fotahook.store.records import Message
from fotahook.testing import CampaignMessage

from ..shared.tables import on_terminal, print_table
from .handlers import handled_ids

SERVICE_FILE: Final = "service.db"
INBOX_FILE: Final = "inbox.db"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What became of the accepted messages. Latencies in seconds, from accepted to handled."""

    accepted: int
    delivered: int
    handled: int
    duplicates: int
    latencies: Sequence[float]
    same_bytes: bool
    in_order: bool
    """Whether each device's messages were handled once, in the order of their acceptance."""
    over_tls: bool
    """Whether every attempt went to an https URL."""

    @property
    def lost(self) -> int:
        return self.accepted - self.handled

    def percentile(self, percent: int) -> float | None:
        """The latency that this share of the messages did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


async def gather(folder: Path, published: Mapping[str, CampaignMessage]) -> Evidence:
    """The evidence on published messages, given by the ids that the service accepted them under."""
    async with _open(folder / SERVICE_FILE) as service, _open(folder / INBOX_FILE) as inbox:
        sent = await _messages(service, published)
        attempts = [await service.attempts(message_id) for message_id in published]
        in_inbox = await _messages(inbox, handled_ids(folder))
    # In the order of handling, by the service's ids.
    received = [(_webhook_id(message), message) for message in in_inbox]
    settled = {webhook_id: message for webhook_id, message in received if _is_delivered(message)}
    handled = [(message, settled[message.id]) for message in sent if message.id in settled]
    return Evidence(
        accepted=len(published),
        delivered=sum(map(_is_delivered, sent)),
        handled=len(handled),
        duplicates=sum(message.duplicates for message in settled.values()),
        latencies=[(there.deliveries[0].settled_at or math.inf) - here.accepted_at for here, there in handled],
        same_bytes=bool(handled) and all(there.body == published[here.id].body for here, there in handled),
        in_order=_by_device((webhook_id for webhook_id, _ in received), published) == _by_device(published, published),
        over_tls=all(tries and all((one.url or "").startswith("https://") for one in tries) for tries in attempts),
    )


def print_report(evidence: Evidence, refusals: Mapping[str, bool], seconds: float) -> None:
    """The table of figures, and the claims that hold or do not."""
    figures = {
        "accepted": str(evidence.accepted),
        "delivered": str(evidence.delivered),
        "handled": str(evidence.handled),
        "duplicates": str(evidence.duplicates),
        "lost": str(evidence.lost),
        "p50": _milliseconds(evidence.percentile(50)),
        "p99": _milliseconds(evidence.percentile(99)),
    }
    title = f"from accepted to handled, {evidence.accepted} messages in {seconds:.1f} s"
    print()
    if on_terminal():
        print_table(list(figures), [list(figures.values())], title=title)
    else:
        print(title)
        for name, figure in figures.items():
            print(f"{name:<10}  {figure}")
    print()
    for claim, holds in {
        "no accepted message was lost: every one was handled": evidence.lost == 0,
        "each message arrived byte for byte as it was published": evidence.same_bytes,
        "each device's messages were handled once, in the order of their acceptance": evidence.in_order,
        "every delivery used TLS, and a client that does not know the authority rejects the listener's certificate": (
            evidence.over_tls and refusals["untrusted"]
        ),
        "the listener verified the service's signature, and answers an unsigned message with 401": refusals["unsigned"],
    }.items():
        print(f"{'yes' if holds else 'NO':<3}  {claim}")


@contextlib.asynccontextmanager
async def _open(file: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{file}")
    try:
        yield store
    finally:
        await store.close()


async def _messages(store: Store, ids: Iterable[str]) -> list[Message]:
    """Those of the messages that are in the store."""
    return [message for message_id in ids if (message := await store.message(message_id)) is not None]


def _webhook_id(received: Message) -> str:
    """The service's id of a message in the inbox, which is the last part of its idempotency key there."""
    return (received.idempotency_key or "").rpartition(":")[2]


def _is_delivered(message: Message) -> bool:
    return message.deliveries[0].state == "delivered"


def _by_device(message_ids: Iterable[str], published: Mapping[str, CampaignMessage]) -> dict[str, list[str]]:
    """Message ids by device, in the order given."""
    ids: dict[str, list[str]] = defaultdict(list)
    for message_id in message_ids:
        ids[published[message_id].device].append(message_id)
    return ids


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
