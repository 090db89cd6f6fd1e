"""What several callers ask for in one transaction, which holds their lanes: accepting, settling and other writes."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import astuple

from . import records
from .ledger import record_reports
from .session import Candidate, Job, Session, to_json
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
    lease: records.Lease
    settlements: Sequence[records.Settlement]
    verdict: records.LaneVerdict
    keep: float


_New: TypeAlias = tuple[int, Candidate, records.Note | None]
Request: TypeAlias = AcceptRequest | SettleRequest | Job[Any]


async def commit_group(db: Session, requests: Sequence[Request]) -> tuple[list[Any], Sequence[records.HandOver], bool]:
    """Run the requests of several callers in one transaction; a response for each (a list of Accepted, a Settled, or
    what a job returns), what is handed over, and whether that is all that is new, so that nobody must be woken."""
    # Jobs first: one of them makes leases invalid that were taken before.
    done = iter([await request(db) for request in requests if not isinstance(request, AcceptRequest | SettleRequest)])
    settles = [request for request in requests if isinstance(request, SettleRequest)]
    accepts = [request for request in requests if isinstance(request, AcceptRequest)]
    given = [each for request in accepts for each in request.candidates]
    accepted: Iterator[records.Accepted] = iter(())
    handed: list[records.HandOver] = []
    is_complete = True
    settled: dict[int, Settled] = {}
    if accepts or settles:
        names = {(each.message.account, consumer) for each in given for consumer in each.message.consumers}
        locked = await db.lock_lanes(names, [settle.lease.lane for settle in settles])
        if given:
            lanes = {(lane["account"], lane["consumer"]): lane for lane in locked}
            wish = next((request.lease for request in accepts if request.lease is not None), None)
            results, handed, is_complete = await _accept(db, given, lanes, wish)
            accepted = iter(results)
        # A lane that was leased just now had an owner whose lease was over.
        leased = {one.lane for one in handed if one.lease is not None}
        tokens = {lane["id"]: lane["token"] for lane in locked if lane["id"] not in leased}
        settled = await _settle(db, [each for each in settles if tokens.get(each.lease.lane) == each.lease.token])
    responses = [
        settled.get(request.lease.lane, (None, False))
        if isinstance(request, SettleRequest)
        else list(islice(accepted, len(request.candidates)))
        if isinstance(request, AcceptRequest)
        else next(done)
        for request in requests
    ]
    return responses, handed, is_complete


async def _accept(
    db: Session, given: Sequence[Candidate], lanes: Mapping[tuple[str, str], Row], wish: records.LeaseRequest | None
) -> tuple[list[records.Accepted], list[records.HandOver], bool]:
    """Insert messages with their deliveries, except duplicates; a result for each, and what is handed over."""
    numbers, at, known = await db.add_messages(given)
    new = [(numbers[each.id], each) for each in given if each.id in numbers]
    reporting = [(number, each.message) for number, each in new if each.message.reports]
    notes = await record_reports(db, reporting) if reporting else {}
    added: dict[int, list[_New]] = defaultdict(list)
    uses: dict[int, Row] = {}
    for number, each in new:
        for consumer in each.message.consumers:
            lane = lanes[each.message.account, consumer]
            uses[lane["id"]] = lane
            added[lane["id"]].append((number, each, notes.get(number)))
    handed: list[records.HandOver] = []
    if added:
        idle = [lane for lane, row in uses.items() if row["use"] == "idle"]
        taken = idle[: wish.lanes] if wish else []
        pending = [(lane, number, each.message.ordering_key) for lane in added for number, each, _ in added[lane]]
        leased = await db.add_pending(pending, taken, wish.seconds if wish else 0.0)
        leases = {row["lane"]: read_lease(row) for row in leased}
        handed = [
            _hand_over(row, leases.get(lane), added[lane], at, wish)
            for lane, row in uses.items()
            if wish and (row["use"] == "leased" or lane in leases)
        ]
    accepted = [
        records.Accepted(id=each.id)
        if (key := each.key) is None or each.id in numbers
        else records.Accepted(id=known[key][0], duplicate=True, conflict=known[key][1] != each.digest)
        for each in given
    ]
    return accepted, handed, len(handed) == len(uses)


def _hand_over(
    lane: Row, lease: records.Lease | None, added: Sequence[_New], at: float, wish: records.LeaseRequest
) -> records.HandOver:
    """The new deliveries of a lane that may go at once."""
    counts = Counter(each.message.ordering_key for _, each, _ in added)
    found: list[records.Delivery] = []
    size, seen = 0, set[str | None]()
    for number, each, note in added:
        message, key = each.message, each.message.ordering_key
        # Nothing waited in an idle lane, so the first of each key here is the first of all.
        is_ready = key is None or (lease is not None and key not in seen)
        seen.add(key)
        if is_ready and (not found or size + len(message.body) <= records.FETCH_BYTES):
            size += len(message.body)
            delivery = records.Delivery(
                lane=lane["id"],
                seq=number,
                message=each.id,
                account=message.account,
                type=message.type,
                ordering_key=key,
                body=message.body,
                accepted_at=at,
                note=note,
                followed=key is not None and counts[key] > 1,
            )
            found.append(delivery)
    return records.HandOver(
        lane=lane["id"],
        token=lease.token if lease else lane["token"],
        lease=lease,
        deliveries=tuple(found),
        more=len(found) < len(added),
        asked_at=wish.asked_at,
    )


async def _settle(db: Session, requests: Sequence[SettleRequest]) -> dict[int, Settled]:
    """Write the outcomes and verdicts of valid leases; the results by lane."""
    settlements = [settlement for request in requests for settlement in request.settlements]
    if settlements:
        ended = [one.delivery for one in settlements if one.state != "pending"]
        keys = [(one.lane, one.ordering_key, one.seq) for one in ended if one.ordering_key is not None]
        await db.settle([_outcome(settlement) for settlement in settlements], keys)
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
    answer = (_storable(attempt.fix), to_json(attempt.phases), _storable(attempt.excerpt), attempt.resent)
    return (*delivery, *request, *answer)


def _storable(text: str | None) -> str | None:
    """Without characters that PostgreSQL rejects: a receiver's response must not make settling fail."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return _NOT_STORABLE.sub("\ufffd", text)
