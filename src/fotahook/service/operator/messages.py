"""Messages: published singly or in a batch (NDJSON), looked at, explained, and redelivered."""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from ...contract import operator
from ...contract.messages import MessageInvalid, parse_claims
from ...contract.operator import Attempt, MessageState, Published, Reason, Why
from ...store import records, views
from ...store.ledger import reports_of
from ...store.records import Accepted, Lane, Limits, Message, MessageFilter, NewMessage, Page
from .. import errors, requests
from ..requests import PageSize, Params, Time
from ..routing import JSON, Call, Endpoint
from .accounts import PATH as ACCOUNT_PATH

PATH: Final = "/v1/messages/{id}"
BATCH_TYPE: Final = "application/x-ndjson"
TURN_BYTES: Final = 32 * 1024
"""That a request parses in one turn of the loop, where a line counts as `LINE_BYTES` more."""
LINE_BYTES: Final = 1024
READS_PER_PAGE: Final = 20
_END_OF_TIME: Final = 253_402_300_799.0
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_EXPIRED: Final = "expired"
_TOLERANCE: Final = 1.0
"""Seconds after its lane within which a delivery may be due without waiting for a schedule of its own."""


class MessagesQuery(Params, frozen=True):
    """Which messages of an account to list, those accepted at `until` excluded."""

    state: Literal["pending", "delivered", "dead"] | None = None
    type: Annotated[str, Meta(max_length=1024, pattern="^[^\\u0000]*$")] | None = None
    key: Annotated[str, Meta(pattern="^[!-~]{1,128}$")] | None = None
    since: Time | None = None
    until: Time | None = None
    cursor: str | None = None
    limit: PageSize = 50


class Line(Params, frozen=True):
    """One message of a batch."""

    account: str
    message: msgspec.Raw
    ordering_key: str | None = None
    idempotency_key: str | None = None


class Redelivery(Params, frozen=True):
    """`asNew`: under a new id, so that receivers take it for another message."""

    as_new: bool = False


class Redeliver(Params, frozen=True):
    """Which messages to redeliver, those accepted at `until` excluded. `dryRun`: only count them."""

    state: Literal["dead", "delivered"]
    since: Time | None = None
    until: Time | None = None
    dry_run: bool = False


@Endpoint("GET", f"{ACCOUNT_PATH}/messages", query=MessagesQuery, scope="read")
async def list_messages(call: Call) -> operator.MessagePage:
    """The account's messages, newest first; a page may be short although there is a cursor."""
    query = call.query(MessagesQuery)
    since, until = (time.timestamp() if time else None for time in (query.since, query.until))
    wanted = MessageFilter(state=query.state, type=query.type, ordering_key=query.key, since=since, until=until)
    read = partial(call.store.messages, call.account, wanted)
    found, reached = await read_page(read, call.service.cursors.open_number(query.cursor), query.limit)
    more = None if reached is None else call.service.cursors.seal(reached)
    return operator.MessagePage(messages=[_state(call, message) for message in found], cursor=more)


async def read_page(
    read: Callable[..., Awaitable[Page]], before: int | None, limit: int
) -> tuple[list[Message], int | None]:
    """A page of messages from several short reads, so that other calls get their turns; where the next one begins."""
    found: list[Message] = []
    for _ in range(READS_PER_PAGE):
        page = await read(before=before, limit=limit - len(found))
        found, before = [*found, *page.messages], page.next
        if before is None or len(found) == limit:
            break
    return found, before


@Endpoint("POST", f"{ACCOUNT_PATH}/messages", scope="publish", body_limit="message_limit", status=202)
async def publish(call: Call) -> Published:
    """Accepts a message, answered once it is on disk; it is delivered byte for byte."""
    names = ("Ordering-Key", "Idempotency-Key")
    keys = [requests.key(f"The header {name}", requests.header(call.request, name)) for name in names]
    body = await requests.body(call.request, call.service.settings.message_limit)
    if len(body) > TURN_BYTES:
        await call.service.loop_turns.wait(call.caller.name)
    message = await _admitted(call, call.account, body, *keys)
    if isinstance(message, NewMessage):
        [accepted] = await call.store.accept([message])
        message = _published(accepted)
    return message


@Endpoint("POST", "/v1/messages", scope="publish", body=Line, body_limit="batch_limit")
async def publish_batch(call: Call) -> Response:
    """Answers each line, in order, once the valid ones are on disk, all in one transaction."""
    lines: list[NewMessage | Published | dict[str, str]] = []
    room, limit, largest = 0, call.service.settings.batch_lines, call.service.settings.message_limit
    async for line in _lines(call):
        if len(lines) == limit:
            raise errors.TOO_MANY_LINES(limit=limit)
        if room <= 0:
            await call.service.loop_turns.wait(call.caller.name)
            room = TURN_BYTES
        room -= LINE_BYTES + len(line)
        try:
            parsed = _decode(line)
            if not call.caller.has(requests.check_account(parsed.account)):
                raise errors.NO_ACCOUNT()
            body = bytes(parsed.message)
            if len(body) > largest:
                raise errors.TOO_LARGE(what="message", limit=largest)
            keys = {"orderingKey": parsed.ordering_key, "idempotencyKey": parsed.idempotency_key}
            checked = (requests.key(name, key) for name, key in keys.items())
            lines.append(await _admitted(call, parsed.account, body, *checked))
        except errors.ApiError as error:
            lines.append(error.content)
    if not lines:
        raise errors.NO_BODY()
    messages = [line for line in lines if isinstance(line, NewMessage)]
    accepted = await call.store.accept(messages) if messages else []
    published = iter(errors.OTHER_MESSAGE().content if one.conflict else _published(one) for one in accepted)
    answered = [next(published) if isinstance(line, NewMessage) else line for line in lines]
    return Response(msgspec.json.Encoder().encode_lines(answered), media_type=BATCH_TYPE)


@Endpoint("GET", PATH, scope="read")
async def show(call: Call) -> MessageState:
    """A message and its deliveries, without its bytes."""
    return _state(call, await _find(call))


@Endpoint("GET", f"{PATH}/body", scope="bodies")
async def body(call: Call) -> Response:
    """The bytes of a message."""
    message = await _find(call)
    if message.body is None:
        raise errors.GONE("Retention removed the message's bytes; its id, hash and attempts are kept.")
    return Response(message.body, media_type=JSON)


@Endpoint("GET", f"{PATH}/attempts", scope="read")
async def attempts(call: Call) -> operator.Attempts:
    """Every attempt to deliver a message, oldest first."""
    message = await _find(call)
    return operator.Attempts(attempts=await call.store.attempts(message.id))


@Endpoint("GET", f"{PATH}/why", scope="read")
async def why(call: Call) -> Why:
    """Why a message is in its state: what it waits for, until when, and what would send it now."""
    message, store = await _find(call), call.store
    attempts, lanes = await store.attempts(message.id), await store.lanes(message.account)
    return reasons_for(message, attempts, lanes, await store.limits(message.account), call.service.now())


@Endpoint("POST", f"{PATH}/redeliver", body=Redelivery, status=202)
async def redeliver_one(call: Call) -> operator.Redelivered:
    """Sends a message again, at the tail of its key, with new attempts and a new time to live."""
    message = await _find(call)
    wanted = await call.json(Redelivery, optional=True)
    if wanted.as_new:
        await call.service.quotas.publish(message.account, message.size)
    store = call.audited("message.redeliver", message.id, account=message.account)
    redelivery = await store.redeliver(message.id, as_new=wanted.as_new)
    if redelivery.refused == "pending":
        raise errors.CONFLICT("The message is not settled yet; GET …/why says what it waits for.")
    if redelivery.refused == "pruned":
        raise errors.GONE("Retention removed the message's bytes; publish it again.")
    return operator.Redelivered(id=redelivery.id or message.id)


@Endpoint("POST", f"{ACCOUNT_PATH}/redeliver", body=Redeliver, status=202)
async def redeliver_many(call: Call) -> Response:
    """Redelivers many messages and returns their number; they are sent in small steps, after a restart too."""
    wanted = await call.json(Redeliver)
    store = call.store if wanted.dry_run else call.audited("account.redeliver", detail=f"state={wanted.state}")
    since = wanted.since.timestamp() if wanted.since else 0.0
    until = wanted.until.timestamp() if wanted.until else _END_OF_TIME
    count = await store.redeliver_all(call.account, wanted.state, since=since, until=until, dry_run=wanted.dry_run)
    return errors.answer(operator.Redeliveries(count=count), 200 if wanted.dry_run else 202)


async def _admitted(
    call: Call, account: str, body: bytes, ordering_key: str | None, idempotency_key: str | None
) -> NewMessage | Published:
    """A message, if it is valid and its account's quotas allow it, which is asked before the work of parsing it. Where
    the quotas are reached, the answer to an earlier message of its key."""
    try:
        await call.service.quotas.publish(account, len(body))
    except errors.ApiError as error:
        if error.code in (errors.QUOTA_REACHED.code, errors.NOT_COUNTED.code) and idempotency_key is not None:
            digest = hashlib.sha256(body).digest()
            if (known := await call.store.known(account, idempotency_key, digest)) is not None:
                return _published(known)
        raise
    try:
        message, claimed = parse_claims(body)
    except MessageInvalid as error:
        raise errors.INVALID(f"{error}.") from None
    # A receiver that trusts the service would take it for a message of the account that it names.
    if not all(map(call.caller.has, claimed - {account})):
        raise errors.OTHER_ACCOUNT(account)
    # PostgreSQL stores no NUL.
    kind, told = None if message.type and "\0" in message.type else message.type, reports_of(message, detailed=True)
    return NewMessage(
        account=account, body=body, type=kind, ordering_key=ordering_key, idempotency_key=idempotency_key, reports=told
    )


def _published(accepted: Accepted) -> Published:
    if accepted.conflict:
        raise errors.OTHER_MESSAGE()
    return Published(id=accepted.id, duplicate=accepted.duplicate)


async def _find(call: Call) -> Message:
    """The message that the path names, if it belongs to one of the caller's accounts."""
    message = await call.store.message(requests.segment(call.request, "id"))
    if message is None or not call.caller.has(message.account):
        raise errors.NOT_FOUND("There is no such message in your accounts; check the id.")
    return message


def _state(call: Call, message: Message) -> MessageState:
    return views.message_state(message, now=call.service.now(), time_to_live=call.service.settings.time_to_live)


async def _lines(call: Call) -> AsyncIterator[bytes]:
    """The lines as they arrive. Blank lines count, and the last one needs no line feed."""
    line = bytearray()
    async for chunk in requests.chunks(call.request, call.service.settings.batch_limit):
        end, *starts = chunk.split(b"\n")
        line += end
        for start in starts:
            yield bytes(line)
            line = bytearray(start)
    if line.strip():
        yield bytes(line)


def _decode(line: bytes) -> Line:
    try:
        return requests.json_object(line, Line, "line")
    except errors.ApiError:
        # The decoder refuses half a surrogate pair, which JSON allows: decode a copy of the same length without any.
        # Accounts and keys cannot hold what the copy has in its place.
        copy = _SURROGATE.sub(rb"\\u0000", line)
        if copy == line:
            raise
        parsed = requests.json_object(copy, Line, "line")
        message = bytes(parsed.message)
        # The last occurrence: of two members of one name the last counts.
        start = copy.rindex(message)
        return msgspec.structs.replace(parsed, message=msgspec.Raw(line[start : start + len(message)]))


def reasons_for(
    message: Message, attempts: Sequence[Attempt], lanes: Sequence[Lane], limits: Limits, now: float
) -> Why:
    """The state of a message and each reason for it, by its attempts (oldest first), its account's lanes and limits.
    Where its deliveries differ, pending comes before dead, and dead before delivered."""
    states = [delivery.state for delivery in message.deliveries]
    state: records.DeliveryState = "pending" if "pending" in states else "dead" if "dead" in states else "delivered"
    failed = [one for one in attempts if one.error_code not in (None, _EXPIRED)]
    texts = [f"The last failure was {one.error_code}: {one.fix or 'see the attempts.'}" for one in failed[-1:]]
    failure, reasons = [Reason("last_failure", text) for text in texts], list[Reason]()
    for delivery in message.deliveries:
        if delivery.state != state:
            continue
        if state == "delivered":
            at = views.to_datetime_or_none(delivery.settled_at)
            when = "" if at is None else f" at {at:%Y-%m-%dT%H:%M:%SZ}"
            reasons.append(Reason(state, f"The receiver accepted it{when}, on attempt {delivery.attempts}."))
        elif state == "dead":
            times = "1 attempt" if delivery.attempts == 1 else f"{delivery.attempts} attempts"
            given_up = Reason("given_up", f"Delivery was given up: the receiver refused {times}.")
            expired = Reason(_EXPIRED, "It expired before the receiver accepted it.")
            settled = Reason("settled", "It is not retried automatically: fix the cause, then redeliver it.")
            pruned = Reason("pruned", "Retention removed its bytes: publish it again to send it.")
            first, last = delivery.last_outcome == _EXPIRED, message.body is None
            reasons += [expired if first else given_up, *failure, pruned if last else settled]
        else:
            lane = next(lane for lane in lanes if lane.consumer == delivery.consumer)
            reasons += _waits_for(delivery, lane, limits, now)
            if delivery.attempts > 0 or lane.health.failures > 0:
                reasons += failure
    return Why(state, reasons)


def _waits_for(delivery: records.DeliveryStatus, lane: Lane, limits: Limits, now: float) -> list[Reason]:
    reasons = []
    match lane.state:
        case "paused" if lane.health.reason == "http_410":
            text = "The receiver answered 410 Gone, which paused the account: fix the receiver, then resume."
            reasons.append(Reason("gone", text))
        case "paused":
            reasons.append(Reason("paused", "The account is paused: resume it to send this."))
        case "held":
            reasons.append(Reason("held", "No callback is registered for the account: register one to send this."))
        case "waiting":
            times = "once" if lane.health.failures == 1 else f"{lane.health.failures} times in a row"
            text = f"The endpoint failed {times} ({lane.health.reason}), so delivery waits until then"
            text = f"{text}: resume the account to retry at once."
            reasons.append(Reason("waiting", text, views.to_datetime_or_none(lane.until)))
    if delivery.behind is not None:
        reasons.append(Reason("behind", f"Message {delivery.behind} of the same ordering key goes first."))
    elif delivery.due > max(now, lane.until or 0.0) + _TOLERANCE:
        text = "Its next attempt is scheduled for then and cannot be hurried."
        reasons.append(Reason("scheduled", text, views.to_datetime(delivery.due)))
    if reasons:
        return reasons
    others = "nothing else is waiting" if lane.pending <= 1 else f"{lane.pending} messages are waiting"
    reasons = [Reason("due", f"It is due and will be sent when its turn comes: the lane is open, and {others}.")]
    text = "The account is limited to {}: raise the limit to send this sooner."
    if limits.in_flight is not None:
        reasons.append(Reason("limited_in_flight", text.format(f"{limits.in_flight} in flight at once")))
    if limits.per_second is not None:
        reasons.append(Reason("limited_per_second", text.format(f"{limits.per_second:g} per second")))
    return reasons
