"""Why a message is in its state: every reason, and the call over a real store."""

import msgspec

from fotahook.contract.operator import Attempt, Reason, Why
from fotahook.service.operator.messages import reasons_for
from fotahook.store.records import DeliveryStatus, Health, Lane, LaneVerdict, Limits, Message
from fotahook.store.views import to_datetime

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Api

NOW = 1_750_000_000.0

PLACE = DeliveryStatus(
    consumer="",
    state="pending",
    attempts=0,
    due=NOW,
    age=0,
    stopped=False,
    behind=None,
    settled_at=None,
    last_outcome=None,
)
MESSAGE = Message(
    id="m-1",
    account=ACCOUNT,
    type=None,
    ordering_key=None,
    idempotency_key=None,
    body=b"{}",
    size=2,
    sha256=b"",
    accepted_at=NOW,
    duplicates=0,
    deliveries=(PLACE,),
)
LANE = Lane(consumer="", state="open", until=None, health=Health(), pending=1, dead=0, oldest_accepted_at=NOW)
REFUSED = Attempt(1, to_datetime(NOW), "failed", URL, error_code="http_422", fix="See the receiver's log.")
NO_LIMITS = Limits()

replace = msgspec.structs.replace


def why(
    *places: DeliveryStatus,
    lane: Lane = LANE,
    limits: Limits = NO_LIMITS,
    attempts: tuple[Attempt, ...] = (),
    body: bytes | None = b"{}",
) -> Why:
    message = replace(MESSAGE, deliveries=places or (PLACE,), body=body)
    other = replace(LANE, consumer="x")
    return reasons_for(message, attempts, (lane, other), limits, NOW)


def codes(status: Why) -> list[str]:
    assert all(reason.text.endswith(".") for reason in status.reasons)
    return [reason.code for reason in status.reasons]


def test_a_message_that_is_due_waits_for_its_turn() -> None:
    text = "It is due and will be sent when its turn comes: the lane is open, and nothing else is waiting."
    assert why() == Why("pending", [Reason("due", text)])
    assert "and 7 messages are waiting." in why(lane=replace(LANE, pending=7)).reasons[0].text


def test_limits_are_reasons_of_a_message_that_is_due() -> None:
    status = why(limits=Limits(in_flight=1, per_second=0.5))
    assert codes(status) == ["due", "limited_in_flight", "limited_per_second"]
    assert "1 in flight" in status.reasons[1].text
    assert "0.5 per second" in status.reasons[2].text
    assert codes(why(lane=replace(LANE, state="held"), limits=Limits(in_flight=1))) == ["held"]


def test_a_held_lane_waits_for_a_registration() -> None:
    status = why(lane=replace(LANE, state="held"))
    assert status.reasons == [Reason("held", "No callback is registered for the account: register one to send this.")]


def test_a_paused_lane_says_whether_the_receiver_paused_it() -> None:
    assert codes(why(lane=replace(LANE, state="paused"))) == ["paused"]
    assert codes(why(lane=replace(LANE, state="paused", health=Health(reason="http_410")))) == ["gone"]


def test_a_waiting_lane_says_until_when_and_what_failed() -> None:
    waiting = replace(LANE, state="waiting", until=NOW + 60, health=Health(failures=3, reason="dns_error"))
    failed = replace(REFUSED, error_code="dns_error", fix="Check its DNS records.")
    status = why(replace(PLACE, due=NOW + 60.1), lane=waiting, attempts=(failed,))
    assert codes(status) == ["waiting", "last_failure"]
    assert status.reasons[0].until == to_datetime(NOW + 60)
    assert "failed 3 times in a row (dns_error)" in status.reasons[0].text
    assert status.reasons[1].text == "The last failure was dns_error: Check its DNS records."
    once = replace(waiting, health=Health(failures=1, reason="dns_error"))
    assert "failed once" in why(lane=once).reasons[0].text


def test_a_message_behind_another_names_it() -> None:
    status = why(replace(PLACE, behind="m-0", due=NOW + 60))
    assert status.reasons == [Reason("behind", "Message m-0 of the same ordering key goes first.")]


def test_a_refused_message_waits_for_its_next_attempt() -> None:
    status = why(replace(PLACE, attempts=2, due=NOW + 300), attempts=(REFUSED,))
    assert codes(status) == ["scheduled", "last_failure"]
    assert status.reasons[0].until == to_datetime(NOW + 300)


def test_a_lane_that_waits_and_a_message_that_waits_for_longer_are_two_reasons() -> None:
    waiting = replace(LANE, state="waiting", until=NOW + 60, health=Health(failures=1, reason="dns_error"))
    assert codes(why(replace(PLACE, due=NOW + 300), lane=waiting)) == ["waiting", "scheduled"]


def test_the_last_of_many_failures_is_shown() -> None:
    other = replace(REFUSED, error_code="http_500", fix=None)
    ok = replace(REFUSED, error_code=None)
    status = why(replace(PLACE, attempts=3), attempts=(REFUSED, other, ok))
    assert status.reasons[-1] == Reason("last_failure", "The last failure was http_500: see the attempts.")


def test_a_delivered_message_says_when() -> None:
    status = why(replace(PLACE, state="delivered", attempts=2, settled_at=NOW))
    text = "The receiver accepted it at 2025-06-15T15:06:40Z, on attempt 2."
    assert status == Why("delivered", [Reason("delivered", text)])
    assert "accepted it, on" in why(replace(PLACE, state="delivered", attempts=1)).reasons[0].text


def test_a_dead_message_says_what_to_do() -> None:
    dead = replace(PLACE, state="dead", attempts=8, last_outcome="failed")
    status = why(dead, attempts=(REFUSED,))
    assert (status.state, codes(status)) == ("dead", ["given_up", "last_failure", "settled"])
    assert "refused 8 attempts." in status.reasons[0].text
    assert "refused 1 attempt." in why(replace(dead, attempts=1)).reasons[0].text
    assert codes(why(dead, body=None)) == ["given_up", "pruned"]


def test_an_expired_message_says_so_and_what_failed_before() -> None:
    dead = replace(PLACE, state="dead", last_outcome="expired")
    expiry = replace(REFUSED, outcome="expired", error_code="expired")
    assert codes(why(dead, attempts=(REFUSED, expiry))) == ["expired", "last_failure", "settled"]
    assert codes(why(dead, attempts=(expiry,))) == ["expired", "settled"]


def test_a_message_in_several_lanes_has_the_least_advanced_state() -> None:
    delivered, dead = replace(PLACE, state="delivered"), replace(PLACE, state="dead", consumer="x")
    assert why(delivered, dead, PLACE).state == "pending"
    assert why(delivered, dead).state == "dead"
    message = replace(MESSAGE, deliveries=())
    assert reasons_for(message, (), (LANE,), NO_LIMITS, NOW) == Why("delivered", [])


async def test_the_why_call_over_a_real_store(api: Api) -> None:
    published = [(await api("POST", MESSAGES, b"{}", {**api.bearer, "Ordering-Key": "k"})).json["id"] for _ in range(2)]

    async def ask(message_id: str) -> Why:
        answer = await api("GET", f"/v1/messages/{message_id}/why", headers=api.bearer)
        assert answer.status == 200
        return msgspec.json.decode(answer.body, type=Why)

    assert codes(await ask(published[0])) == ["held"]
    assert codes(await ask(published[1])) == ["held", "behind"]
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    assert codes(await ask(published[0])) == ["due"]
    [lease] = await api.store.lease(1, 30)
    verdict = LaneVerdict(health=Health(failures=1, reason="dns_error"), wait=60)
    await api.store.settle(lease, [], verdict, keep=0)
    status = await ask(published[0])
    assert (codes(status), status.reasons[0].until) == (["waiting"], to_datetime(api.clock.now + 60))
    await api("POST", f"/v1/accounts/{ACCOUNT}/pause", b"", api.bearer)
    assert codes(await ask(published[0])) == ["paused"]
