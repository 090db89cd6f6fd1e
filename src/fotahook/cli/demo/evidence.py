"""What the demo proves, read from both stores and from the handler's ledger."""

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
    """What became of the accepted messages: figures by name, and whether each claim holds."""

    lost: int
    figures: Mapping[str, str]
    claims: Mapping[str, bool]


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
    latencies = sorted((there.deliveries[0].settled_at or math.inf) - here.accepted_at for here, there in handled)
    in_order = _by_device((webhook_id for webhook_id, _ in received), published) == _by_device(published, published)
    lost = len(published) - len(handled)
    figures = {
        "accepted": str(len(published)),
        "delivered": str(sum(map(_is_delivered, sent))),
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
        "each device's messages were handled once, in the order of their acceptance": in_order,
        "every delivery used TLS": all(
            tries and all((one.url or "").startswith("https://") for one in tries) for tries in attempts
        ),
    }
    return Evidence(lost=lost, figures=figures, claims=claims)


def print_report(title: str, figures: Mapping[str, str], claims: Mapping[str, bool]) -> None:
    """The table of figures, and which claims hold."""
    print(f"\n{title}")
    if on_terminal():
        print_table(list(figures), [list(figures.values())])
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
