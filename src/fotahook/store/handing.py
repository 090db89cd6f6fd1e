"""Collects the new deliveries that an accepting transaction hands to a dispatcher."""

from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from .records import FETCH_BYTES, Delivery, HandOver, Lease, LeaseRequest, Note
from .rows import Row
from .session import Candidate


class _Lane(msgspec.Struct):
    token: int
    idle: bool
    keys: Counter[str | None] = msgspec.field(default_factory=Counter)
    found: list[Delivery] = msgspec.field(default_factory=list)
    bytes: int = 0
    more: bool = False


class Handing:
    """What one transaction hands over; nothing without a request."""

    def __init__(self, request: LeaseRequest | None) -> None:
        self.request = request or LeaseRequest(lanes=0, seconds=0.0)
        self.leases: dict[int, Lease] = {}
        self.complete = True
        """Whether every lane with new deliveries is handed over, so that none must be leased."""
        self._asked = request is not None
        self._lanes: dict[int, _Lane] = {}

    def begin(self, lanes: Iterable[Row]) -> list[int]:
        """Prepare for lanes that get deliveries; the idle ones, which the transaction is to lease."""
        taken: list[int] = []
        for lane in lanes:
            number, is_idle = lane["id"], lane["use"] == "idle"
            if not self._asked or lane["use"] == "other" or (is_idle and len(taken) >= self.request.lanes):
                self.complete = False
                continue
            self._lanes[number] = _Lane(lane["token"], is_idle)
            if is_idle:
                taken.append(number)
        return taken

    def add(self, lane: int, seq: int, given: Candidate, accepted_at: float, note: Note | None) -> None:
        """Note a new delivery."""
        if (to := self._lanes.get(lane)) is None:
            return
        message, key, size = given.message, given.message.ordering_key, len(given.message.body)
        if key is not None:
            to.keys[key] += 1
        # Nothing waited in an idle lane, so the first of each key here is the first of all.
        is_ready = key is None or (to.idle and to.keys[key] == 1)
        if not is_ready or (to.found and to.bytes + size > FETCH_BYTES):
            to.more = True
            return
        to.bytes += size
        to.found.append(
            Delivery(
                lane=lane,
                seq=seq,
                message=given.id,
                account=message.account,
                type=message.type,
                ordering_key=key,
                body=message.body,
                accepted_at=accepted_at,
                note=note,
            )
        )

    def result(self) -> list[HandOver]:
        """What is handed over, lane by lane, once `leases` has what the transaction took."""
        return [
            HandOver(
                lane=number,
                token=lease.token if (lease := self.leases.get(number)) else lane.token,
                lease=lease,
                deliveries=tuple(
                    replace(one, followed=True) if lane.keys[one.ordering_key] > 1 else one for one in lane.found
                ),
                more=lane.more,
                asked_at=self.request.asked_at,
            )
            for number, lane in self._lanes.items()
        ]
