"""Collects the new deliveries that an accepting transaction hands to a dispatcher."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import msgspec

from .records import FETCH_BYTES, Delivery, HandOver, Lease, LeaseRequest, NewMessage, Note

LaneUse = Literal["idle", "leased", "other"]
"""What a lane was before the transaction: ready to be leased at once, leased already, or neither."""


class _Lane(msgspec.Struct):
    token: int
    idle: bool
    keys: Counter[str | None] = msgspec.field(default_factory=Counter)
    found: list[tuple[int, str, NewMessage, float, Note | None]] = msgspec.field(default_factory=list)
    bytes: int = 0
    more: bool = False

    def deliveries(self, number: int) -> Iterator[Delivery]:
        for seq, message_id, message, accepted_at, note in self.found:
            key = message.ordering_key
            yield Delivery(
                lane=number,
                seq=seq,
                message=message_id,
                account=message.account,
                type=message.type,
                ordering_key=key,
                body=message.body,
                accepted_at=accepted_at,
                attempts=0,
                strikes=0,
                age=0.0,
                note=note,
                followed=key is not None and self.keys[key] > 1,
            )


class Handing:
    """What one transaction hands over; nothing without a request."""

    def __init__(self, request: LeaseRequest | None) -> None:
        self.request = request or LeaseRequest(lanes=0, seconds=0.0)
        self.leases: dict[int, Lease] = {}
        self.complete = True
        """Whether every lane with new deliveries is handed over, so that none must be leased."""
        self._asked = request is not None
        self._room = self.request.lanes
        self._lanes: dict[int, _Lane] = {}

    def begin(self, lane: int, token: int, use: LaneUse) -> bool:
        """Prepare for a lane that gets deliveries; whether the transaction is to lease it."""
        if not self._asked or use == "other" or (use == "idle" and self._room <= 0):
            self.complete = False
            return False
        self._lanes.setdefault(lane, _Lane(token, use == "idle"))
        self._room -= use == "idle"
        return use == "idle"

    def add(
        self, lane: int, seq: int, message_id: str, message: NewMessage, accepted_at: float, note: Note | None
    ) -> None:
        """Note a new delivery."""
        if (to := self._lanes.get(lane)) is None:
            return
        key, size = message.ordering_key, len(message.body)
        to.keys[key] += 1
        # Nothing waited in an idle lane, so the first of each key here is the first of all.
        ready = key is None or (to.idle and to.keys[key] == 1)
        if ready and (not to.found or to.bytes + size <= FETCH_BYTES):
            to.found.append((seq, message_id, message, accepted_at, note))
            to.bytes += size
        else:
            to.more = True

    def result(self) -> list[HandOver]:
        """What is handed over, lane by lane, once `leases` has what the transaction took."""
        return [
            HandOver(
                lane=number,
                token=lease.token if (lease := self.leases.get(number)) else lane.token,
                lease=lease,
                deliveries=tuple(lane.deliveries(number)),
                more=lane.more,
                asked_at=self.request.asked_at,
            )
            for number, lane in self._lanes.items()
        ]
