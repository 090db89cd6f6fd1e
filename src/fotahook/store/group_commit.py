"""What several callers ask for in one transaction, which holds their lanes: accepting, settling and other writes."""

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import astuple, replace

from . import records
from .ledger import record_reports
from .session import Candidate, LaneName, Session
from .views import Row, read_lease

LARGE_BYTES: Final = 16 * 1024
"""Bytes of bodies that count as another message."""
_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")

Settled: TypeAlias = tuple[records.Lease | None, bool]
"""The current lease, None if it is over, and whether the lane could be leased now."""


class AcceptRequest(NamedTuple):
    """The messages of one caller, and what a dispatcher wants handed over."""

    candidates: Sequence[Candidate]
    lease: records.LeaseRequest | None

    @property
    def turn(self) -> tuple[str | None, int]:
        """Whose turn it takes, and how much it weighs."""
        messages = [each.message for each in self.candidates]
        owner = messages[0].account if messages else None
        return owner, len(messages) + sum(len(message.body) for message in messages) // LARGE_BYTES


class SettleRequest(NamedTuple):
    """A dispatcher's outcomes of one lane."""

    lease: records.Lease
    settlements: Sequence[records.Settlement]
    verdict: records.LaneVerdict
    keep: float


Job: TypeAlias = Callable[[Session], Awaitable[Any]]
Request: TypeAlias = AcceptRequest | SettleRequest | Job


async def commit_group(db: Session, requests: Sequence[Request]) -> "tuple[list[Any], Handing]":
    """Run the requests of several callers in one transaction; a response for each, and what is handed over.

    Of an AcceptRequest the response is a list of Accepted, of a SettleRequest a Settled, of a job what it returns.
    """
    # Jobs first: one of them makes leases invalid that were taken before.
    done = iter([await request(db) for request in requests if not isinstance(request, AcceptRequest | SettleRequest)])
    settles = [request for request in requests if isinstance(request, SettleRequest)]
    accepts = [request for request in requests if isinstance(request, AcceptRequest)]
    given = [each for request in accepts for each in request.candidates]
    handing = Handing(next((request.lease for request in accepts if request.lease is not None), None))
    accepted: Iterator[records.Accepted] = iter(())
    settled: dict[int, Settled] = {}
    if accepts or settles:
        names = {(each.message.account, consumer) for each in given for consumer in each.message.consumers}
        locked = await db.lock_lanes(names, [settle.lease.lane for settle in settles])
        lanes = {(lane["account"], lane["consumer"]): lane for lane in locked}
        accepted = iter(await _accept(db, given, lanes, handing))
        # A lane that was leased just now had an owner whose lease was over.
        tokens = {lane["id"]: lane["token"] for lane in locked if lane["id"] not in handing.leases}
        settled = await _settle(db, [each for each in settles if tokens.get(each.lease.lane) == each.lease.token])
    responses = [
        settled.get(request.lease.lane, (None, False))
        if isinstance(request, SettleRequest)
        else list(islice(accepted, len(request.candidates)))
        if isinstance(request, AcceptRequest)
        else next(done)
        for request in requests
    ]
    return responses, handing


def candidates(messages: Sequence[records.NewMessage], ids: Sequence[str]) -> list[Candidate]:
    """Messages to accept, with fresh ids."""
    digests = [hashlib.sha256(message.body).digest() for message in messages]
    return list(map(Candidate, ids, messages, digests))


async def _accept(
    db: Session, given: Sequence[Candidate], lanes: Mapping[LaneName, Row], handing: "Handing"
) -> list[records.Accepted]:
    """Insert messages with their deliveries, except duplicates; a result for each."""
    if not given:
        return []
    numbers, at, known = await db.add_messages(given)
    new = [(numbers[each.id], each) for each in given if each.id in numbers]
    reporting = [(number, each.message) for number, each in new if each.message.reports]
    notes = await record_reports(db, reporting) if reporting else {}
    added = [
        (lanes[each.message.account, consumer], number, each)
        for number, each in new
        for consumer in each.message.consumers
    ]
    if added:
        taken = handing.begin({lane["id"]: lane for lane, _, _ in added}.values())
        for lane, number, each in added:
            handing.add(lane["id"], number, each, at, notes.get(number))
        pending = [(lane["id"], number, each.message.ordering_key) for lane, number, each in added]
        leased = await db.add_pending(pending, taken, handing.request.seconds)
        handing.leases |= {row["lane"]: read_lease(row) for row in leased}
    return [
        records.Accepted(id=each.id)
        if (key := each.key) is None or each.id in numbers
        else records.Accepted(id=known[key][0], duplicate=True, conflict=known[key][1] != each.digest)
        for each in given
    ]


class _Lane(msgspec.Struct):
    token: int
    idle: bool
    keys: Counter[str | None] = msgspec.field(default_factory=Counter)
    found: list[records.Delivery] = msgspec.field(default_factory=list)
    bytes: int = 0
    more: bool = False


class Handing:
    """What a transaction that accepts hands over to a dispatcher; nothing without a request."""

    def __init__(self, request: records.LeaseRequest | None) -> None:
        self.request = request or records.LeaseRequest(lanes=0, seconds=0.0)
        self.leases: dict[int, records.Lease] = {}
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

    def add(self, lane: int, seq: int, given: Candidate, accepted_at: float, note: records.Note | None) -> None:
        """Note a new delivery."""
        if (to := self._lanes.get(lane)) is None:
            return
        message, key, size = given.message, given.message.ordering_key, len(given.message.body)
        if key is not None:
            to.keys[key] += 1
        # Nothing waited in an idle lane, so the first of each key here is the first of all.
        is_ready = key is None or (to.idle and to.keys[key] == 1)
        if not is_ready or (to.found and to.bytes + size > records.FETCH_BYTES):
            to.more = True
            return
        to.bytes += size
        to.found.append(
            records.Delivery(
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

    def result(self) -> list[records.HandOver]:
        """What is handed over, lane by lane, once `leases` has what the transaction took."""
        return [
            records.HandOver(
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


async def _settle(db: Session, requests: Sequence[SettleRequest]) -> dict[int, Settled]:
    """Write the outcomes and verdicts of valid leases; the results by lane."""
    settlements = [settlement for request in requests for settlement in request.settlements]
    if settlements:
        await db.settle([_outcome(settlement) for settlement in settlements])
        ended = [one.delivery for one in settlements if one.state != "pending"]
        keys = [(one.lane, one.ordering_key, one.seq) for one in ended if one.ordering_key is not None]
        await db.bulk("promote", keys)
    if not requests:
        return {}
    verdicts = [
        (lease.lane, lease.revision, keep, verdict.wait, verdict.pause, *astuple(verdict.health))
        for lease, _, verdict, keep in requests
    ]
    over = {each.lease.lane for each in requests if each.keep <= 0}
    return {
        row["lane"]: (None if row["lane"] in over else read_lease(row), bool(row["is_due"]))
        for row in await db.keep_lanes(verdicts)
    }


def _outcome(one: records.Settlement) -> tuple[object, ...]:
    to, attempt = one.delivery, one.attempt
    delivery = (to.lane, to.seq, one.state, one.delay, one.attempts, one.strikes, to.accepted_at)
    request = (attempt.started_at, _storable(attempt.url), attempt.outcome, attempt.status, attempt.error_code)
    phases = msgspec.json.encode(attempt.phases).decode()
    return (*delivery, *request, _storable(attempt.fix), phases, _storable(attempt.excerpt), attempt.resent)


def _storable(text: str | None) -> str | None:
    """Without characters that PostgreSQL rejects: a receiver's response must not make settling fail."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return _NOT_STORABLE.sub("\ufffd", text)
