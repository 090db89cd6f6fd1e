"""What every store must do. Nothing here knows which store it is."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from fotahook.contract.operator import AccountFilter, CallbackChange, Phases, StateCounts
from fotahook.store import account_verbs, message_verbs, open_store
from fotahook.store.base import Store
from fotahook.store.records import (
    SCAN_LIMIT,
    Accepted,
    AuditEntry,
    Credential,
    DeliveryState,
    DeliveryStatus,
    Health,
    LaneVerdict,
    Lease,
    Limits,
    MessageFilter,
    NewMessage,
    Pruned,
    Redelivery,
    Retention,
    StoreError,
    StoreUnavailable,
)
from fotahook.store.views import to_datetime

from .conftest import ACCOUNT, URL, WELL, Accept, VirtualClock, hint, lease_one, quiet, settled

# Callbacks


async def test_nothing_is_registered_at_first(store: Store) -> None:
    assert await store.callback(ACCOUNT) is None


async def test_a_registered_callback_is_found_with_its_revision(store: Store, clock: VirtualClock) -> None:
    first = await store.register(ACCOUNT, URL, actor="test")
    clock.advance(5)
    second = await store.register(ACCOUNT, "https://other.example/", actor="test")
    assert (first.revision, second.revision) == (1, 2)
    assert second.registered_at == to_datetime(clock())
    assert await store.callback(ACCOUNT) == second


async def test_deregistering_removes_the_callback_and_returns_whether_there_was_one(registered: Store) -> None:
    assert await registered.deregister(ACCOUNT, actor="test") is True
    assert await registered.callback(ACCOUNT) is None
    assert await registered.deregister(ACCOUNT, actor="test") is False


async def test_revisions_keep_counting_after_a_deregistration(registered: Store) -> None:
    await registered.deregister(ACCOUNT, actor="test")
    assert (await registered.register(ACCOUNT, URL, actor="test")).revision == 3


# Accepting


async def test_accepted_bytes_come_back_exactly(registered: Store, accept: Accept) -> None:
    body = b'{"b": 1,  "a": "\xc3\xa9"}'
    (accepted,) = await accept(body)
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.body == body
    assert len(message.sha256) == 32
    assert message.deliveries[0].state == "pending"


async def test_messages_of_several_accounts_are_searched_by_type_state_and_time(
    store: Store, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_verbs, "SEARCH_STEP", 3)
    monkeypatch.setattr(message_verbs, "SEARCH_EACH", 5)
    ids: list[str] = []
    began = clock.now
    for number in range(12):
        account, kind = "a" if number % 2 else "b", "rare" if number in (1, 6) else "common"
        ids += [one.id for one in await store.accept([NewMessage(account=account, body=b"{}", type=kind)])]
        clock.advance(3600)

    async def search(among: list[str] | None = None, **given: Any) -> list[int]:
        found: list[int] = []
        before: int | None = None
        for _ in ids:
            page = await store.search_messages(MessageFilter(**given), among=among, before=before, limit=4)
            found, before = [*found, *(ids.index(one.id) for one in page.messages)], page.next
            if before is None:
                return found
        raise AssertionError("the search does not end")

    newest = list(reversed(range(12)))
    assert await search() == newest
    assert await search(state="pending") == newest[:4]
    assert await search(type="rare") == [6, 1]
    assert await search(["a"]) == newest[::2]
    assert await search(["a"], state="pending") == newest[:8:2]
    assert await search(["a", "c"], type="rare") == [1]
    # Where there are many, it looks for the type.
    monkeypatch.setattr("fotahook.store.records.SCAN_LIMIT", 2)
    assert await search(type="rare", state="pending") == [6, 1]
    monkeypatch.undo()
    span: dict[str, Any] = {"since": began + 3 * 3600, "until": began + 7 * 3600}
    assert await search(**span) == await search(**span, state="pending") == [6, 5, 4, 3]
    assert (
        await search(state="dead")
        == await search(until=began)
        == await search(since=clock.now)
        == await search([])
        == []
    )
    await store.register("a", URL, actor="test")
    lease = await lease_one(store)
    await store.settle(
        lease,
        [
            settled(each, "delivered" if number else "dead", attempts=3)
            for number, each in enumerate(await store.fetch(lease, 2))
        ],
        WELL,
        keep=0,
    )
    assert await search(state="dead") == await search(["a"], state="dead", type="rare") == [1]
    assert await search(state="delivered") == [3]
    assert await search(["b"], state="dead") == await search(state="dead", until=began + 3600) == []
    page = await store.messages("a", MessageFilter(**span), limit=9)
    assert ([ids.index(one.id) for one in page.messages], page.next) == ([5, 3], None)


async def test_an_unknown_message_is_none(store: Store) -> None:
    assert await store.message("nothing") is None
    assert await store.attempts("nothing") == []


async def test_ids_sort_by_the_order_of_acceptance_even_if_the_clock_goes_back(
    accept: Accept, clock: VirtualClock
) -> None:
    first = await accept(b"1", b"2", b"3")
    clock.advance(-3600)
    second = await accept(b"4")
    clock.advance(7200)
    ids = [accepted.id for accepted in [*first, *second, *await accept(b"5")]]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5


async def test_the_same_idempotency_key_gives_the_first_id_again(store: Store) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    (first,) = await store.accept([message])
    (again,) = await store.accept([message])
    assert (again.id, again.duplicate, again.conflict) == (first.id, True, False)
    found = await store.message(first.id)
    assert found is not None
    assert found.duplicates == 1


async def test_the_same_idempotency_key_with_other_bytes_is_a_conflict(store: Store) -> None:
    await store.accept([NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")])
    (other,) = await store.accept([NewMessage(account=ACCOUNT, body=b"[]", idempotency_key="k")])
    assert other.conflict


async def test_an_idempotency_key_belongs_to_its_account_and_holds_within_a_batch(store: Store) -> None:
    messages = [NewMessage(account=account, body=b"{}", idempotency_key="k") for account in ("a", "b", "a")]
    first, other, again = await store.accept(messages)
    assert first.id != other.id
    assert again.id == first.id
    assert again.duplicate


async def test_an_idempotency_key_holds_until_its_window_ends(store: Store, clock: VirtualClock) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k", idempotency_window=60.0)
    (first,) = await store.accept([message])
    clock.advance(59.5)
    (again,) = await store.accept([message])
    assert (again.id, again.duplicate) == (first.id, True)
    # The window began with the first message, whatever came in between.
    clock.advance(0.5)
    new, repeated = await store.accept([message, message])
    assert (new.duplicate, repeated.duplicate, repeated.id) == (False, True, new.id)
    clock.advance(59.5)
    (known,) = await store.accept([message])
    assert (known.id, known.duplicate) == (new.id, True)
    assert {one.id for one in (first, new)} == {
        found.id for found in (await store.messages(ACCOUNT, MessageFilter(), limit=9)).messages
    }


async def test_a_window_outlasts_a_restart(store_url: str, store: Store, clock: VirtualClock) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k", idempotency_window=60.0)
    (first,) = await store.accept([message])
    await store.close()
    clock.advance(59.5)
    restarted = await open_store(store_url, clock=clock)
    (again,) = await restarted.accept([message])
    await restarted.close()
    assert (again.id, again.duplicate) == (first.id, True)


async def test_a_window_that_a_clock_ahead_began_ends_too(store: Store, clock: VirtualClock) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k", idempotency_window=60.0)
    clock.advance(40 * 86400)
    (first,) = await store.accept([message])
    clock.advance(-40 * 86400)
    (second,) = await store.accept([message])
    (third,) = await store.accept([message])
    assert (first.duplicate, second.duplicate, third.duplicate) == (False, False, True)
    assert third.id == second.id


async def test_messages_are_found_by_their_time_after_the_clock_was_ahead(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    began = clock()
    clock.advance(40 * 86400)
    await accept(b"ahead")
    clock.advance(-40 * 86400)
    for body in (b"1", b"2"):
        await accept(body)
        clock.advance(10)
    wanted = MessageFilter(since=began, until=clock())
    for page in (
        await store.messages(ACCOUNT, wanted, limit=10),
        await store.search_messages(wanted, among=None, limit=10),
    ):
        assert [(await store.message(each.id)).body for each in page.messages] == [b"2", b"1"]  # type: ignore[union-attr]


async def test_a_window_applies_only_to_messages_that_have_one(store: Store, clock: VirtualClock) -> None:
    held = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="forever")
    brief = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="brief", idempotency_window=60.0)
    await store.accept([held, brief, NewMessage(account=ACCOUNT, body=b"{}")])
    clock.advance(60)
    answers = await store.accept([held, brief])
    assert [answer.duplicate for answer in answers] == [True, False]


async def test_concurrent_accepts_of_one_key_store_one_message(store: Store) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    answers = await asyncio.gather(*(store.accept([message]) for _ in range(20)))
    assert len({accepted.id for (accepted,) in answers}) == 1
    assert sum(not accepted.duplicate for (accepted,) in answers) == 1


async def test_what_one_account_publishes_in_bulk_does_not_go_before_all_of_anothers(store: Store) -> None:
    bulk = [NewMessage(account="bulk-00001", body=b"{}")] * 600
    large = [asyncio.ensure_future(store.accept(bulk)) for _ in range(8)]
    await asyncio.sleep(0)  # lets each of them queue up
    await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    assert sum(one.done() for one in large) <= 2
    await asyncio.gather(*large)
    (lane,) = await store.lanes("bulk-00001")
    assert lane.pending == 4800


async def test_what_cannot_be_written_fails_only_for_its_own_caller(store: Store, accept: Accept) -> None:
    unwritable = "\ud800"
    one, refused, other = await asyncio.gather(
        accept(b"1"), accept(b"2", account=unwritable), accept(b"3"), return_exceptions=True
    )
    assert isinstance(refused, Exception)
    (lane,) = await store.lanes(ACCOUNT)
    assert lane.pending == 2
    assert not isinstance(one, BaseException)
    assert not isinstance(other, BaseException)


async def test_a_message_is_put_into_every_lane_of_its_consumers(store: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}", consumers=("billing", "handlers"))
    message = await store.message(accepted.id)
    assert message is not None
    assert [placement.consumer for placement in message.deliveries] == ["billing", "handlers"]
    leases = await store.lease(10, 30)
    assert sorted(lease.consumer for lease in leases) == ["billing", "handlers"]
    assert [lease.url for lease in leases] == [None, None]


# Lanes: held, open


async def test_a_message_without_consumers_is_stored(store: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}", consumers=())
    message = await store.message(accepted.id)
    assert message is not None
    assert (message.body, message.deliveries) == (b"{}", ())
    assert await store.lanes(ACCOUNT) == []


async def test_without_a_callback_the_lane_is_held_and_keeps_everything(store: Store, accept: Accept) -> None:
    await accept(b"{}", b"{}")
    assert await store.lease(10, 30) == []
    assert await store.due_in() is None
    (lane,) = await store.lanes(ACCOUNT)
    assert (lane.state, lane.pending, lane.dead) == ("held", 2, 0)


async def test_registering_opens_the_lane(store: Store, accept: Accept) -> None:
    await accept(b"{}")
    await store.register(ACCOUNT, URL, actor="test")
    lease = await lease_one(store)
    assert (lease.account, lease.url, lease.revision, lease.open) == (ACCOUNT, URL, 1, True)


async def test_deregistering_holds_the_lane(registered: Store, accept: Accept) -> None:
    await accept(b"{}")
    await registered.deregister(ACCOUNT, actor="test")
    assert await registered.lease(10, 30) == []


async def test_age_stands_still_while_the_lane_is_held(store: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"{}")
    clock.advance(1000)
    await store.register(ACCOUNT, URL, actor="test")
    clock.advance(7)
    (delivery,) = await store.fetch(await lease_one(store), 10)
    assert delivery.age == 7
    await store.deregister(ACCOUNT, actor="test")
    clock.advance(1000)
    await store.register(ACCOUNT, URL, actor="test")
    (delivery,) = await store.fetch(await lease_one_after_expiry(store, clock), 10)
    assert delivery.age == 7 + 30


async def lease_one_after_expiry(store: Store, clock: VirtualClock) -> Lease:
    clock.advance(30)
    return await lease_one(store)


async def test_a_lane_that_a_verdict_paused_is_not_leased_and_its_age_stands_still(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    await registered.settle(lease, [], msgspec.structs.replace(WELL, pause=True), keep=0)
    assert await registered.lease(10, 30) == []
    (lane,) = await registered.lanes(ACCOUNT)
    assert lane.state == "paused"
    clock.advance(3600)
    await registered.resume(ACCOUNT)
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert delivery.age == 0


# Leases


async def test_a_lane_with_nothing_due_is_not_leased(registered: Store) -> None:
    assert await registered.lease(10, 30) == []


async def test_a_leased_lane_is_not_leased_again_until_the_lease_ends(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"{}")
    first = await lease_one(registered)
    assert await registered.lease(10, 30) == []
    assert await registered.due_in() == 30
    clock.advance(30)
    assert (await lease_one(registered)).token > first.token


async def test_a_worker_that_lost_its_lease_cannot_settle(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    slow = await lease_one(registered)
    (delivery,) = await registered.fetch(slow, 10)
    clock.advance(31)
    quick = await lease_one(registered)
    assert await registered.settle(slow, [settled(delivery, "dead")], WELL, keep=0) is None
    await registered.settle(quick, [settled(delivery)], WELL, keep=0)
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.deliveries[0].state == "delivered"
    assert len(await registered.attempts(accepted.id)) == 1


async def test_the_longest_overdue_lane_is_leased_first(store: Store, accept: Accept, clock: VirtualClock) -> None:
    for account in ("c", "a", "b"):
        await store.register(account, URL, actor="test")
        await accept(b"{}", account=account)
        clock.advance(1)
    leases = [(await store.lease(1, 30))[0].account for _ in range(3)]
    assert leases == ["c", "a", "b"]


async def test_a_lane_given_back_is_leased_again_at_once(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2")
    lease = await lease_one(registered)
    (first, _) = await registered.fetch(lease, 10)
    assert await registered.settle(lease, [settled(first)], WELL, keep=0) is None
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert delivery.body == b"2"


async def test_a_kept_lease_reads_the_callback_afresh(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    await registered.register(ACCOUNT, "https://new.example/", actor="test")
    clock.advance(10)
    kept = await registered.settle(lease, [], WELL, keep=30)
    assert kept is not None
    assert (kept.url, kept.revision, kept.token, kept.open) == ("https://new.example/", 2, lease.token, True)
    assert await registered.due_in() == 30


async def test_a_lane_held_while_it_is_leased_can_still_be_settled(registered: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    await registered.deregister(ACCOUNT, actor="test")
    kept = await registered.settle(lease, [settled(delivery)], WELL, keep=30)
    assert kept is not None
    assert (kept.open, kept.url) == (False, None)
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.deliveries[0].state == "delivered"


async def test_a_lane_paused_while_it_is_leased_stays_paused_whatever_its_verdict(
    registered: Store, accept: Accept
) -> None:
    await accept(b"1", b"2")
    lease = await lease_one(registered)
    (first,) = await registered.fetch(lease, 1)
    await registered.pause(ACCOUNT)
    await registered.settle(lease, [settled(first)], WELL, keep=0)
    assert await registered.lease(10, 30) == []
    (lane,) = await registered.lanes(ACCOUNT)
    assert (lane.state, lane.pending) == ("paused", 1)


async def test_a_verdict_about_the_old_endpoint_does_not_apply_to_the_new_one(
    registered: Store, accept: Accept
) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    await registered.register(ACCOUNT, "https://new.example/", actor="test")
    trouble = LaneVerdict(health=Health(failures=3, reason="dns_error"), wait=600)
    await registered.settle(lease, [], trouble, keep=0)
    fresh = await lease_one(registered)
    assert fresh.health == Health()


async def test_a_fetch_is_bounded_in_bytes_but_brings_one_at_least(registered: Store, accept: Accept) -> None:
    await accept(b"x" * 600, b"y" * 600, b"z" * 600)
    lease = await lease_one(registered)
    for max_bytes, count in ((0, 1), (599, 1), (600, 2), (1199, 2), (1200, 3)):
        found = await registered.fetch(lease, 10, max_bytes=max_bytes)
        assert [delivery.body[:1] for delivery in found] == [b"x", b"y", b"z"][:count]
    first, second, _ = await registered.fetch(lease, 10)
    assert await registered.fetch(lease, 10, without=[first.seq], max_bytes=0) == [second]


async def test_the_health_of_a_lane_is_kept(registered: Store, accept: Accept) -> None:
    health = Health(failures=2, window=33, refused=3, reason="dns_error", succeeded=1.5, failed=2.5, latency=0.125)
    await accept(b"{}")
    kept = await registered.settle(await lease_one(registered), [], LaneVerdict(health=health), keep=30)
    assert kept is not None
    assert kept.health == health
    (lane,) = await registered.lanes(ACCOUNT)
    assert lane.health == health


async def test_a_lease_has_the_time_of_the_stores_clock(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    assert lease.read_at == pytest.approx(clock())
    clock.advance(5)
    kept = await registered.settle(lease, [], WELL, keep=30)
    assert kept is not None
    assert kept.read_at == pytest.approx(clock())


async def test_lanes_that_wait_for_the_same_receiver_are_woken_together(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    urls = {
        "same-1": "https://receiver.example/a",
        "same-2": "https://receiver.example?b=/c",
        "same-3": "https://receiver.example",
        "port": "https://receiver.example:8443/a",
        "name": "https://receiver.example.org/a",
        "well": "https://receiver.example/d",
    }
    for account, url in urls.items():
        await store.register(account, url, actor="test")
        await accept(b"struck", b"refused", account=account)
    for lease in await store.lease(10, 30):
        struck, refused = await store.fetch(lease, 10)
        outcomes = [
            msgspec.structs.replace(settled(struck, "pending", delay=600), strikes=1),
            settled(refused, "pending", delay=300),
        ]
        # Another lane waits as well, but for nothing that its receiver could end.
        health = Health() if lease.account == "well" else Health(failures=1, reason="http_503")
        await store.settle(lease, outcomes, LaneVerdict(health=health, wait=600), keep=0)
    assert await store.wake_origin("https://receiver.example", 2) == 2
    assert await store.wake_origin("https://receiver.example", 2) == 1
    assert await store.wake_origin("https://receiver.example", 2) == 0
    woken = await store.lease(10, 30)
    assert {lease.account for lease in woken} == {"same-1", "same-2", "same-3"}
    for lease in woken:
        assert [delivery.body for delivery in await store.fetch(lease, 10)] == [b"struck"]


async def test_what_was_written_while_the_clock_was_ahead_is_recalled(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    clock.advance(40 * 86400)
    for number in range(3):
        await accept(b"%d" % number, key="k")
    lease = await lease_one(registered)
    (head,) = await registered.fetch(lease, 10)
    struck = settled(head, "pending", delay=600)
    await registered.settle(lease, [struck], LaneVerdict(health=Health(failures=1), wait=600), keep=30)
    clock.advance(-40 * 86400)
    await accept(b"3", key="k")
    assert await registered.lease(10, 30) == []
    assert await registered.recall(41 * 86400) == 0
    assert await registered.recall(31 * 86400) == 1
    assert await registered.recall(31 * 86400) == 0
    bodies = []
    for _ in range(4):
        lease = await lease_one(registered)
        (delivery,) = await registered.fetch(lease, 10)
        bodies.append(delivery.body)
        await registered.settle(lease, [settled(delivery)], WELL, keep=0)
    assert bodies == [b"0", b"1", b"2", b"3"]


async def test_lanes_that_rest_are_not_recalled(registered: Store, accept: Accept) -> None:
    await accept(b"1")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(delivery, "pending", delay=30 * 86400)], WELL, keep=0)
    assert await registered.recall(31 * 86400) == 0
    await registered.pause(ACCOUNT)
    assert await registered.recall(60) == 0
    await registered.resume(ACCOUNT)
    assert await registered.recall(60) == 1
    assert len(await registered.fetch(await lease_one(registered), 10)) == 1


async def test_a_lane_that_rested_when_the_clock_went_back_is_due_with_its_next_message(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    clock.advance(20 * 86400)
    await accept(b"1")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    # Nothing is left to send, and yet the lane waits.
    health = Health(failures=1)
    await registered.settle(lease, [settled(delivery, "dead")], LaneVerdict(health=health, wait=600), keep=0)
    await registered.register("new", URL, actor="test")
    clock.advance(-20 * 86400)
    # A search of before may begin later than now.
    assert await registered.lease(10, 30) == []
    assert await registered.recall(30, resting=True) > 0
    assert await registered.recall(0, resting=True) == 0
    await accept(b"2")
    await accept(b"3", account="new")
    leases = await registered.lease(10, 30)
    assert [each.body for one in leases for each in await registered.fetch(one, 10)] == [b"2", b"3"]


async def test_a_lane_that_was_paused_when_the_clock_went_back_is_due_when_it_is_resumed(
    registered: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_verbs, "STEP", 1)
    await registered.register("new", URL, actor="test")
    await accept(b"1", account="new")
    clock.advance(20 * 86400)
    await accept(b"2", account="new")
    lease = await lease_one(registered)
    _, second = await registered.fetch(lease, 10)
    # The first one is due even before the clock goes back, and hides the other one.
    later = settled(second, "pending", delay=600)
    await registered.settle(lease, [later], LaneVerdict(health=WELL.health, pause=True), keep=0)
    clock.advance(-20 * 86400)
    # A search of before may begin later than now.
    assert await registered.lease(10, 30) == []
    assert await registered.recall(30, resting=True) == 1
    await registered.resume("new")
    assert len(await registered.fetch(await lease_one(registered), 10)) == 2


async def test_a_lanes_wait_keeps_it_from_being_leased(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"{}")
    health = Health(failures=2, window=1, refused=3, reason="timeout_connect")
    await registered.settle(await lease_one(registered), [], LaneVerdict(health=health, wait=60), keep=0)
    assert await registered.lease(10, 30) == []
    assert await registered.due_in() == 60
    (lane,) = await registered.lanes(ACCOUNT)
    assert (lane.state, lane.until, lane.health) == ("waiting", clock() + 60, health)
    clock.advance(60)
    assert (await lease_one(registered)).health == health


async def test_registering_again_ends_the_backoff(registered: Store, accept: Accept) -> None:
    await accept(b"{}")
    trouble = LaneVerdict(health=Health(failures=9), wait=3600)
    await registered.settle(await lease_one(registered), [], trouble, keep=0)
    await registered.register(ACCOUNT, URL, actor="test")
    assert (await lease_one(registered)).health == Health()


# Order


async def test_of_one_key_only_the_head_is_ready(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2", b"3", key="device-1")
    await accept(b"4", key="device-2")
    await accept(b"5", b"6")
    found = await registered.fetch(await lease_one(registered), 10)
    assert [delivery.body for delivery in found] == [b"1", b"4", b"5", b"6"]


async def test_a_delivered_head_promotes_the_next_of_its_key(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2", key="k")
    lease = await lease_one(registered)
    (head,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(head)], WELL, keep=30)
    (successor,) = await registered.fetch(lease, 10)
    assert successor.body == b"2"


async def test_a_delivery_says_whether_another_of_its_key_waits_behind_it(registered: Store, accept: Accept) -> None:
    await accept(b"head", b"behind", key="k")
    await accept(b"alone", key="other")
    await accept(b"keyless", b"as well")
    (lease,) = await registered.lease(10, 30)
    found = {delivery.body: delivery.followed for delivery in await registered.fetch(lease, 10)}
    assert found == {b"head": True, b"alone": False, b"keyless": False, b"as well": False}


async def test_bodies_that_are_fetched_together_or_at_once_keep_their_bytes(registered: Store, accept: Accept) -> None:
    bodies = [b"", b"\x00", b"\xff\xfe\x00", b'{"a": "\xc3\xa9"}', bytes(range(256))]
    await registered.register("another", URL, actor="test")
    for body in bodies:
        await accept(body)
        await accept(body, account="another")
    leases = await registered.lease(2, 30)
    assert len(leases) == 2
    for found in await asyncio.gather(*(registered.fetch(lease, 10) for lease in leases)):
        assert [delivery.body for delivery in found] == bodies


@pytest.mark.parametrize("body", [b"", b"\x00\xff\x00", b'{"a": "\xc3\xa9"}', bytes(range(256)) * 1024])
async def test_any_bytes_are_fetched_as_they_are(registered: Store, accept: Accept, body: bytes) -> None:
    await accept(body, b"next")
    (lease,) = await registered.lease(10, 30)
    assert [delivery.body for delivery in await registered.fetch(lease, 10)] == [body, b"next"]


async def test_a_failing_head_holds_back_its_key_and_nothing_else(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1", b"2", key="k")
    await accept(b"3")
    lease = await lease_one(registered)
    head, other = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(head, "pending", delay=5), settled(other)], WELL, keep=0)
    assert await registered.due_in() == 5
    clock.advance(5)
    (again,) = await registered.fetch(await lease_one(registered), 10)
    assert (again.body, again.attempts) == (b"1", 1)


async def test_a_dead_head_frees_its_key(registered: Store, accept: Accept) -> None:
    await accept(b"1", b"2", key="k")
    lease = await lease_one(registered)
    (head,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(head, "dead")], WELL, keep=0)
    (successor,) = await registered.fetch(await lease_one(registered), 10)
    assert successor.body == b"2"
    (lane,) = await registered.lanes(ACCOUNT)
    assert (lane.pending, lane.dead) == (1, 1)


async def test_a_message_after_its_key_was_settled_is_ready_at_once(registered: Store, accept: Accept) -> None:
    await accept(b"1", key="k")
    lease = await lease_one(registered)
    await registered.settle(lease, [settled(one) for one in await registered.fetch(lease, 10)], WELL, keep=30)
    await accept(b"2", key="k")
    (delivery,) = await registered.fetch(lease, 10)
    assert delivery.body == b"2"


async def test_a_message_accepted_while_its_lane_is_leased_is_not_forgotten(registered: Store, accept: Accept) -> None:
    await accept(b"1")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    await accept(b"2")
    await registered.settle(lease, [settled(delivery)], WELL, keep=0)
    assert await registered.due_in() == 0


async def test_a_new_message_does_not_wait_for_a_delayed_retry(registered: Store, accept: Accept) -> None:
    await accept(b"1")
    lease = await lease_one(registered)
    (failed,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(failed, "pending", delay=60)], WELL, keep=0)
    assert await registered.due_in() == 60
    await accept(b"2")
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert delivery.body == b"2"


# Settling


async def test_a_settled_delivery_is_not_settled_twice(registered: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(delivery)], WELL, keep=30)
    await registered.settle(lease, [settled(delivery, "dead")], WELL, keep=0)
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.deliveries[0].state == "delivered"


async def test_deliveries_in_flight_can_be_left_out(registered: Store, accept: Accept) -> None:
    await accept(*(b"%d" % number for number in range(5)))
    lease = await lease_one(registered)
    first, second, *others = await registered.fetch(lease, 9)
    without = [first.seq, others[1].seq]
    assert await registered.fetch(lease, 2, without=without) == [second, others[0]]
    assert await registered.fetch(lease, 9, without=[each.seq for each in (first, second, *others)]) == []


async def test_every_attempt_is_kept_oldest_first(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}")
    for state, resent in (("pending", False), ("delivered", True)):
        lease = await lease_one(registered)
        (delivery,) = await registered.fetch(lease, 10)
        one = settled(delivery, state)
        one = msgspec.structs.replace(one, attempt=msgspec.structs.replace(one.attempt, resent=resent))
        await registered.settle(lease, [one], WELL, keep=0)
    attempts = await registered.attempts(accepted.id)
    assert [(attempt.outcome, attempt.resent) for attempt in attempts] == [("pending", False), ("delivered", True)]
    assert attempts[0].phases == Phases(total=1.5)
    message = await registered.message(accepted.id)
    assert message is not None
    assert message.deliveries[0].settled_at == clock()


async def test_the_last_attempts_come_newest_first_with_their_messages(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    (first,) = await accept(b"1")
    for state in ("pending", "delivered"):
        lease = await lease_one(registered)
        (delivery,) = await registered.fetch(lease, 10)
        await registered.settle(lease, [settled(delivery, state)], WELL, keep=0)
    accepted_at = clock()
    clock.advance(1)
    (second,) = await accept(b"2")
    lease = await lease_one(registered)
    (delivery,) = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(delivery)], WELL, keep=0)
    recent = await registered.recent_attempts(ACCOUNT, limit=10)
    assert [(one.message_id, one.number) for _, one in recent] == [(second.id, 1), (first.id, 2), (first.id, 1)]
    assert recent[1][0] == accepted_at
    assert [one for _, one in reversed(recent[1:])] == await registered.attempts(first.id)
    assert await registered.recent_attempts(None, limit=2) == recent[:2]
    assert recent[1][1].phases == Phases(total=1.5)
    assert await registered.recent_attempts("other", limit=10) == []


async def test_accounts_are_counted_by_state(registered: Store, accept: Accept) -> None:
    await registered.register("paused", URL, actor="test")
    await registered.pause("paused")
    await registered.accept([NewMessage(account="held", body=b"{}")])
    await accept(b"{}")
    lease = await lease_one(registered)
    await registered.settle(lease, [], LaneVerdict(health=Health(failures=1, reason="http_503"), wait=60), keep=0)
    everything = await registered.state_counts()
    assert everything == StateCounts(open=0, waiting=1, held=1, paused=1, trouble=2)
    assert await registered.state_counts(["paused", "none"]) == StateCounts(
        open=0, waiting=0, held=0, paused=1, trouble=0
    )


async def test_lanes_report_the_oldest_undelivered_message(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    began = clock()
    await accept(b"1")
    clock.advance(10)
    await accept(b"2")
    (lane,) = await registered.lanes(ACCOUNT)
    assert (lane.state, lane.pending, lane.oldest_accepted_at) == ("open", 2, began)
    assert await registered.lanes("unknown") == []


# Waiting


async def test_a_hint_ends_the_wait(registered: Store, accept: Accept) -> None:
    await quiet(registered)
    waiting = asyncio.ensure_future(hint(registered))
    await accept(b"{}")
    await waiting
    assert await registered.due_in() == 0


# Credentials


CREDENTIAL = Credential(
    kind="client", id="c", owner="o", secret_hash=b"h", accounts=("a", "b"), scopes=("publish",), created_at=1.0
)


async def test_a_credential_comes_back_as_it_was_saved(store: Store) -> None:
    networks = ("192.0.2.0/24", "2001:db8::/32")
    everything = msgspec.structs.replace(CREDENTIAL, id="d", accounts=None, networks=networks, created_at=2.0)
    await store.save_credential(CREDENTIAL)
    await store.save_credential(everything)
    assert await store.credential("client", "c") == CREDENTIAL
    assert await store.credentials("client", "o") == [CREDENTIAL, everything]
    assert await store.credential("user", "c") is None


async def test_nothing_is_found_by_a_name_with_nul(store: Store) -> None:
    assert await store.credential("client", "a\0b") is None
    assert await store.credentials("token", "a\0b") == []
    assert await store.message("a\0b") is None
    assert await store.callback("a\0b") is None


async def test_saving_a_credential_again_replaces_it(store: Store) -> None:
    await store.save_credential(CREDENTIAL)
    changed = msgspec.structs.replace(CREDENTIAL, secret_hash=b"other")
    await store.save_credential(changed)
    assert await store.credential("client", "c") == changed


async def test_a_credential_is_replaced_only_if_it_is_still_the_same(store: Store, clock: VirtualClock) -> None:
    first = CREDENTIAL
    second = msgspec.structs.replace(first, scopes=("publish",), accounts=None, expires_at=clock() + 5)
    assert await store.replace_credential(first, second) is False
    assert await store.credential("client", "c") is None
    await store.save_credential(first)
    assert await store.replace_credential(second, first) is False
    assert await store.replace_credential(first, second) is True
    assert await store.credential("client", "c") == second
    clock.advance(5)
    assert await store.replace_credential(second, first) is False


async def test_expired_and_dropped_credentials_are_gone(store: Store, clock: VirtualClock) -> None:
    brief = msgspec.structs.replace(CREDENTIAL, id="brief", expires_at=clock() + 10)
    await store.save_credential(CREDENTIAL)
    await store.save_credential(brief)
    clock.advance(10)
    assert await store.credential("client", "brief") is None
    assert await store.credentials("client", "o") == [CREDENTIAL]
    await store.drop_credentials("client", ["c"])
    assert await store.credential("client", "c") is None


async def test_a_lease_names_the_live_signing_keys_oldest_first(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    now = clock()
    key = Credential(kind="signing_key", id="old", owner=ACCOUNT, created_at=now - 9)
    await store_all(
        registered,
        key,
        msgspec.structs.replace(key, id="new", created_at=now),
        msgspec.structs.replace(key, id="ending", expires_at=now + 10),
        msgspec.structs.replace(key, id="other", owner="other"),
    )
    await accept(b"{}")
    clock.advance(10)
    assert (await lease_one(registered)).signing_keys == ("old", "new")


async def store_all(store: Store, *credentials: Credential) -> None:
    for credential in credentials:
        await store.save_credential(credential)


# Durability


async def test_everything_survives_reopening(store: Store, store_url: str, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}", key="k")
    await store.register(ACCOUNT, URL, actor="test")
    await store.close()
    again = await open_store(store_url, clock=clock)
    try:
        message = await again.message(accepted.id)
        assert message is not None
        assert message.ordering_key == "k"
        assert (await lease_one(again)).url == URL
    finally:
        await again.close()


async def test_a_closed_store_raises_store_unavailable(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.callback(ACCOUNT)


# What an operator asks for


async def test_a_paused_lane_keeps_everything_and_its_time_to_live_stands_still(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"{}")
    await registered.pause(ACCOUNT)
    clock.advance(1000)
    assert await registered.lease(10, 30) == []
    (lane,) = await registered.lanes(ACCOUNT)
    assert (lane.state, lane.pending) == ("paused", 1)
    await registered.resume(ACCOUNT)
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert delivery.age == 0


@pytest.mark.parametrize("stop", ["pause", "deregister", "410"])
async def test_a_clock_that_is_ahead_when_a_lane_stops_makes_its_messages_no_older(
    registered: Store, accept: Accept, clock: VirtualClock, stop: str
) -> None:
    await accept(b"{}")
    lease = await lease_one(registered)
    clock.advance(40 * 86400)
    if stop == "410":
        await registered.settle(lease, [], msgspec.structs.replace(WELL, pause=True), keep=0)
    else:
        await registered.settle(lease, [], WELL, keep=0)
    if stop == "pause":
        await registered.pause(ACCOUNT)
    elif stop == "deregister":
        await registered.deregister(ACCOUNT, actor="test")
    clock.advance(700 - 40 * 86400)
    if stop == "deregister":
        await registered.register(ACCOUNT, URL, actor="test")
    else:
        await registered.resume(ACCOUNT)
    await registered.recall(60)
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert 0 <= delivery.age <= 700


async def test_an_account_can_be_paused_before_its_first_message(registered: Store, accept: Accept) -> None:
    await registered.pause("new")
    await registered.register("new", URL, actor="test")
    await accept(b"{}", account="new")
    assert await registered.lease(10, 30) == []
    (lane,) = await registered.lanes("new")
    assert lane.state == "paused"


@pytest.mark.parametrize("first", ["pause", "deregister"])
async def test_a_lane_held_and_paused_opens_when_both_have_ended(
    registered: Store, accept: Accept, clock: VirtualClock, first: str
) -> None:
    await accept(b"{}")
    for stop in ("pause", "deregister") if first == "pause" else ("deregister", "pause"):
        await (registered.pause(ACCOUNT) if stop == "pause" else registered.deregister(ACCOUNT, actor="test"))
        clock.advance(10)
    await registered.register(ACCOUNT, URL, actor="test")
    assert await registered.lease(10, 30) == []
    clock.advance(10)
    await registered.resume(ACCOUNT)
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert delivery.age == 0


async def test_resuming_ends_the_backoff_and_resets_the_endpoints_health(registered: Store, accept: Accept) -> None:
    await accept(b"{}")
    trouble = LaneVerdict(health=Health(failures=5, reason="dns_error"), wait=600)
    await registered.settle(await lease_one(registered), [], trouble, keep=0)
    await registered.resume(ACCOUNT)
    assert (await lease_one(registered)).health == Health()


@pytest.mark.parametrize("how", ["resume", "register"])
async def test_deliveries_in_backoff_are_due_at_once_after_a_resume_or_register(
    registered: Store, accept: Accept, how: str
) -> None:
    await accept(b"struck", b"refused")
    lease = await lease_one(registered)
    struck, refused = await registered.fetch(lease, 10)
    outcomes = [
        msgspec.structs.replace(settled(struck, "pending", delay=3600, attempts=0), strikes=1),
        settled(refused, "pending", delay=300),
    ]
    trouble = LaneVerdict(health=Health(failures=9, reason="dns_error"), wait=3000)
    await registered.settle(lease, outcomes, trouble, keep=0)
    assert await registered.due_in() == 3000
    await (registered.resume(ACCOUNT) if how == "resume" else registered.register(ACCOUNT, URL, actor="test"))
    assert await registered.due_in() == 0
    found = await registered.fetch(await lease_one(registered), 10)
    assert [delivery.body for delivery in found] == [b"struck"]


async def test_limits_are_none_until_they_are_set_and_come_with_the_lease(registered: Store, accept: Accept) -> None:
    assert await registered.limits(ACCOUNT) == Limits()
    limits = Limits(in_flight=2, per_second=0.5)
    await registered.set_limits(ACCOUNT, Limits(in_flight=1))
    await registered.set_limits(ACCOUNT, limits)
    await accept(b"{}")
    assert await registered.limits(ACCOUNT) == limits
    assert (await lease_one(registered)).limits == limits


# Listing


async def test_a_callbacks_history_lists_who_changed_it_newest_first(store: Store, clock: VirtualClock) -> None:
    began = clock()
    await store.register(ACCOUNT, URL, actor="one")
    clock.advance(5)
    await store.deregister(ACCOUNT, actor="two")
    await store.register("other", URL, actor="three")
    assert await store.callback_history(ACCOUNT, 10) == [
        CallbackChange(None, "deregistered", "two", to_datetime(began + 5), 2),
        CallbackChange(URL, "registered", "one", to_datetime(began), 1),
    ]
    assert [change.revision for change in await store.callback_history(ACCOUNT, 1)] == [2]
    assert await store.callback_history("unknown", 10) == []


async def test_accounts_are_listed_by_name_with_callback_lane_and_limits(store: Store, accept: Accept) -> None:
    registered = await store.register("b", URL, actor="test")
    await store.set_limits("b", Limits(in_flight=3))
    await accept(b"{}", b"{}", account="b")
    await accept(b"{}", account="a")
    await accept(b"{}", account="c", consumers=("handlers",))
    first, second = await store.accounts(limit=10)
    assert (first.account, first.callback, first.lane.state, first.backlog.pending) == ("a", None, "held", 1)
    assert (second.account, second.callback, second.limits) == ("b", registered, Limits(in_flight=3))
    assert (second.lane.state, second.lane.in_flight, second.backlog.pending) == ("open", 3, 2)
    (lane,) = await store.lanes("b")
    assert (lane.state, lane.health, lane.pending, lane.dead) == ("open", Health(), 2, 0)


async def test_accounts_come_in_pages(store: Store) -> None:
    for account in ("b", "a", "C", "d"):
        await store.register(account, URL, actor="test")
    pages = [await store.accounts(after=after, limit=2) for after in ("", "a", "d")]
    assert [[each.account for each in page] for page in pages] == [["C", "a"], ["b", "d"], []]
    assert [each.account for each in await store.accounts(among=("d", "a", "x"), limit=10)] == ["a", "d"]
    assert await store.accounts(among=(), limit=10) == []


async def test_accounts_are_found_by_their_state(store: Store, accept: Accept, clock: VirtualClock) -> None:
    for account in ("failing", "gone", "open", "paused", "probing", "silent"):
        await store.register(account, URL, actor="test")
    await store.deregister("silent", actor="test")
    await store.pause("paused")
    for account in ("probing", "failing", "gone", "held", "paused", "open"):
        await accept(b"{}", account=account)
    verdicts = {
        "probing": LaneVerdict(health=Health(failures=1, reason="dns_error"), wait=10),
        "failing": LaneVerdict(health=Health(failures=2, reason="dns_error"), wait=60),
        "gone": LaneVerdict(health=Health(reason="http_410"), pause=True),
        "open": WELL,
    }
    for lease in await store.lease(10, 30):
        await store.settle(lease, [], verdicts[lease.account], keep=0)
    clock.advance(20)
    found = {state: [each.account for each in await store.accounts(state=state, limit=10)] for state in ACCOUNT_STATES}
    assert found == {
        "open": ["open", "probing"],
        "waiting": ["failing"],
        "held": ["held", "silent"],
        "paused": ["gone", "paused"],
        "trouble": ["failing", "gone", "held", "probing"],
    }


ACCOUNT_STATES: tuple[AccountFilter, ...] = ("open", "waiting", "held", "paused", "trouble")


async def test_messages_are_listed_newest_first_without_their_bodies(registered: Store, accept: Accept) -> None:
    await accept(b"{}", account="other")
    accepted = await accept(b"1", b"22", b"333", key="k")
    page = await registered.messages(ACCOUNT, MessageFilter(), limit=10)
    assert [message.id for message in page.messages] == [one.id for one in reversed(accepted)]
    assert page.next is None
    whole = await registered.message(accepted[0].id)
    assert whole is not None
    assert page.messages[-1] == msgspec.structs.replace(whole, body=None)


async def test_messages_come_in_pages_that_new_ones_do_not_shift(store: Store, accept: Accept) -> None:
    ids = [one.id for one in await accept(*(b"%d" % number for number in range(5)))]
    first = await store.messages(ACCOUNT, MessageFilter(), limit=2)
    await accept(b"new")
    second = await store.messages(ACCOUNT, MessageFilter(), before=first.next, limit=2)
    third = await store.messages(ACCOUNT, MessageFilter(), before=second.next, limit=2)
    seen = [message.id for page in (first, second, third) for message in page.messages]
    assert seen == list(reversed(ids))
    assert third.next is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (MessageFilter(state="pending"), [b"other lane", b"late", b"behind"]),
        (MessageFilter(state="delivered"), [b"other lane", b"delivered"]),
        (MessageFilter(state="dead"), [b"dead"]),
        (MessageFilter(type="t"), [b"dead"]),
        (MessageFilter(ordering_key="k"), [b"behind", b"delivered"]),
        (MessageFilter(state="pending", ordering_key="k"), [b"behind"]),
        (MessageFilter(since=1_800_000_010), [b"other lane", b"late"]),
        (MessageFilter(until=1_800_000_010), [b"behind", b"dead", b"delivered"]),
        (MessageFilter(state="dead", since=1_800_000_010), []),
    ],
)
async def test_messages_are_filtered(
    registered: Store, accept: Accept, clock: VirtualClock, wanted: MessageFilter, found: list[bytes]
) -> None:
    bodies = {}
    (one,) = await accept(b"delivered", key="k")
    (two,) = await registered.accept([NewMessage(account=ACCOUNT, body=b"dead", type="t")])
    lease = await lease_one(registered)
    first, second = await registered.fetch(lease, 10)
    await registered.settle(lease, [settled(first), settled(second, "dead")], WELL, keep=0)
    (three,) = await accept(b"behind", key="k")
    clock.advance(10)
    (four,) = await accept(b"late")
    (five,) = await accept(b"other lane", consumers=("", "x"))
    for lease in await registered.lease(10, 30):
        if lease.consumer == "x":
            await registered.settle(lease, [settled(one) for one in await registered.fetch(lease, 10)], WELL, keep=0)
    for accepted, body in zip(
        (one, two, three, four, five), (b"delivered", b"dead", b"behind", b"late", b"other lane"), strict=True
    ):
        bodies[accepted.id] = body
    page = await registered.messages(ACCOUNT, wanted, limit=10)
    assert [bodies[message.id] for message in page.messages] == found


@pytest.mark.parametrize("state", [None, "dead", "delivered"])
async def test_a_page_may_be_empty_and_not_the_last(
    registered: Store, accept: Accept, state: DeliveryState | None
) -> None:
    (oldest,) = await accept(b"oldest", key="k")
    if state is not None:
        await settle_all(registered, state)
    newer = [NewMessage(account=ACCOUNT, body=b"{}", type="t") for _ in range(SCAN_LIMIT)]
    await registered.accept(newer)
    await settle_all(registered, "dead")
    wanted = MessageFilter(state=state, ordering_key="k")
    first = await registered.messages(ACCOUNT, wanted, limit=10)
    assert first.messages == ()
    assert first.next is not None
    second = await registered.messages(ACCOUNT, wanted, before=first.next, limit=10)
    assert [message.id for message in second.messages] == [oldest.id]
    assert second.next is None


async def test_a_delivery_status_says_whether_its_age_stands_still(store: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}")
    assert (await placement_of(store, accepted)).stopped
    await store.register(ACCOUNT, URL, actor="test")
    assert not (await placement_of(store, accepted)).stopped
    await store.pause(ACCOUNT)
    assert (await placement_of(store, accepted)).stopped


async def test_a_delivery_status_names_the_message_that_goes_first(registered: Store, accept: Accept) -> None:
    head, second, third = await accept(b"1", b"2", b"3", key="k")
    (other,) = await accept(b"4")
    assert [(await placement_of(registered, one)).behind for one in (head, second, third, other)] == [
        None,
        head.id,
        head.id,
        None,
    ]
    lease = await lease_one(registered)
    await registered.settle(lease, [settled(one) for one in await registered.fetch(lease, 10)], WELL, keep=0)
    assert [(await placement_of(registered, one)).behind for one in (head, second, third)] == [None, None, second.id]


async def placement_of(store: Store, accepted: Accepted) -> DeliveryStatus:
    message = await store.message(accepted.id)
    assert message is not None
    return message.deliveries[0]


# Redelivery


async def settle_all(store: Store, state: str = "delivered") -> None:
    """Settle whatever is due, and what is promoted thereby."""
    while leases := await store.lease(10, 30):
        for lease in leases:
            found = await store.fetch(lease, 100)
            await store.settle(lease, [settled(delivery, state) for delivery in found], WELL, keep=0)


async def test_a_redelivered_message_keeps_its_id_and_starts_afresh(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    (accepted,) = await accept(b"{}")
    await settle_all(registered, "dead")
    clock.advance(100)
    assert await registered.redeliver(accepted.id) == Redelivery(id=accepted.id)
    (delivery,) = await registered.fetch(await lease_one(registered), 10)
    assert (delivery.message, delivery.attempts, delivery.age) == (accepted.id, 0, 0)


async def test_a_redelivered_message_goes_to_the_tail_of_its_key(registered: Store, accept: Accept) -> None:
    (first,) = await accept(b"1", key="k")
    (second,) = await accept(b"2", key="k")
    await settle_all(registered)
    await accept(b"3", b"4", key="k")
    await registered.redeliver(second.id)
    await registered.redeliver(first.id)
    await accept(b"5", key="k")
    order = []
    while leases := await registered.lease(10, 30):
        found = await registered.fetch(leases[0], 10)
        order += [delivery.body for delivery in found]
        await registered.settle(leases[0], [settled(delivery) for delivery in found], WELL, keep=0)
    assert order == [b"3", b"4", b"2", b"1", b"5"]


async def test_a_message_redelivered_as_new_gets_another_id(registered: Store, accept: Accept) -> None:
    (accepted,) = await accept(b'{"a": 1}', key="k")
    redelivery = await registered.redeliver(accepted.id, as_new=True)
    assert redelivery.id is not None
    assert redelivery.id > accepted.id
    copy = await registered.message(redelivery.id)
    assert copy is not None
    assert (copy.body, copy.ordering_key, len(copy.deliveries)) == (b'{"a": 1}', "k", 1)


async def test_a_refused_redelivery_says_why(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    (accepted,) = await accept(b"{}")
    assert await registered.redeliver("nothing") == Redelivery(refused="unknown")
    assert await registered.redeliver(accepted.id) == Redelivery(refused="pending")
    await settle_all(registered)
    clock.advance(10)
    await tidy_up(registered, Retention(seconds=5))
    assert await registered.redeliver(accepted.id) == Redelivery(refused="pruned")


async def tidy_up(store: Store, retention: Retention | None = None) -> None:
    while await store.tidy(retention or Retention()):
        pass


async def test_bulk_redelivery_counts_and_selects_by_state_and_time(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"early")
    clock.advance(10)
    since = clock()
    await accept(b"dead-1", b"dead-2")
    await settle_all(registered, "dead")
    await accept(b"delivered")
    await settle_all(registered)
    await accept(b"pending")
    until = clock() + 1
    assert await registered.redeliver_all(ACCOUNT, "dead", since=since, until=until, dry_run=True) == 2
    await tidy_up(registered)
    assert (await registered.lanes(ACCOUNT))[0].pending == 1
    assert await registered.redeliver_all(ACCOUNT, "dead", since=since, until=until) == 2
    assert await registered.redeliver_all("other", "dead", since=since, until=until) == 0
    await tidy_up(registered)
    found = await registered.fetch(await lease_one(registered), 10)
    assert [delivery.body for delivery in found] == [b"pending", b"dead-1", b"dead-2"]


async def test_a_bulk_redelivery_continues_after_a_restart(
    store: Store, store_url: str, accept: Accept, clock: VirtualClock
) -> None:
    await store.register(ACCOUNT, URL, actor="test")
    await accept(*(b"%d" % number for number in range(450)))
    await settle_all(store, "dead")
    assert await store.redeliver_all(ACCOUNT, "dead", since=0, until=clock() + 1) == 450
    assert await store.tidy(Retention())
    await store.close()
    again = await open_store(store_url, clock=clock)
    try:
        await tidy_up(again)
        (lane,) = await again.lanes(ACCOUNT)
        assert (lane.pending, lane.dead) == (450, 0)
    finally:
        await again.close()


# Retention


async def body_of(store: Store, message_id: str) -> bytes | None:
    message = await store.message(message_id)
    assert message is not None
    return message.body


async def test_old_settled_bodies_are_removed_and_ids_stay_for_deduplication(
    registered: Store, clock: VirtualClock
) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    (accepted,) = await registered.accept([message])
    await settle_all(registered)
    clock.advance(10)
    await tidy_up(registered, Retention(seconds=10))
    assert await body_of(registered, accepted.id) == b"{}"
    clock.advance(1)
    await tidy_up(registered, Retention(seconds=10))
    assert await body_of(registered, accepted.id) is None
    (again,) = await registered.accept([message])
    assert (again.id, again.duplicate, again.conflict) == (accepted.id, True, False)


async def test_pruning_returns_what_it_removed(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"1", b"22", b"333")
    await settle_all(registered)
    await accept(b"pending")
    assert await registered.redeliver_all(ACCOUNT, "delivered", since=0, until=clock() + 1) == 3
    clock.advance(10)
    # Retention alone: the redelivery is left to those who tidy.
    assert await registered.prune(Retention(seconds=1)) == Pruned(bodies=3, bytes=6, more=True)
    assert await registered.prune(Retention(seconds=1)) == Pruned(bodies=0, bytes=0, more=False)


async def test_pending_messages_are_never_pruned(registered: Store, accept: Accept, clock: VirtualClock) -> None:
    (settled_one,) = await accept(b"settled")
    await settle_all(registered)
    (pending,) = await accept(b"pending")
    clock.advance(1000)
    await tidy_up(registered, Retention(seconds=1, bytes=0))
    assert await body_of(registered, settled_one.id) is None
    assert await body_of(registered, pending.id) == b"pending"


async def test_above_the_byte_limit_the_oldest_bodies_are_removed_whatever_their_age(
    registered: Store, accept: Accept
) -> None:
    ids = [accepted.id for accepted in await accept(*(b"x" * 100_000 for _ in range(20)))]
    await settle_all(registered)
    await tidy_up(registered, Retention(bytes=1_500_000))
    kept = [await body_of(registered, message_id) is not None for message_id in ids]
    assert kept == sorted(kept)
    assert not kept[0]
    assert kept[-1]


async def test_retention_goes_through_many_messages_in_steps(
    registered: Store, accept: Accept, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(450)))
    await settle_all(registered)
    clock.advance(10)
    steps = 0
    while await registered.tidy(Retention(seconds=1)):
        steps += 1
    assert steps >= 2
    assert await registered.tidy(Retention()) is False


# The audit log


ENTRY = AuditEntry(actor="app/user", address="192.0.2.1", action="account.pause", account=ACCOUNT)


async def logged(store: Store, **options: Any) -> list[tuple[str, str | None]]:
    return [(entry.action, entry.account) for entry in await store.audit(**{"limit": 9, **options})]


async def test_a_change_and_its_audit_entry_are_one_transaction(store: Store, clock: VirtualClock) -> None:
    await store.audited(ENTRY).pause(ACCOUNT)
    [entry] = await store.audit(limit=9)
    assert entry == msgspec.structs.replace(ENTRY, number=entry.number, at=clock.now)
    # The store itself records nothing, and what changes nothing leaves no entry.
    await store.resume(ACCOUNT)
    view = store.audited(msgspec.structs.replace(ENTRY, action="refused"))
    assert await view.deregister(ACCOUNT, actor="x") is False
    assert await view.replace_credential(CREDENTIAL, CREDENTIAL) is False
    assert (await view.redeliver("none")).refused == "unknown"
    assert (await view.redeliver("none", as_new=True)).refused == "unknown"
    assert await logged(store) == [("account.pause", ACCOUNT)]
    # An entry that cannot be written takes the change with it.
    with pytest.raises((sqlite3.IntegrityError, asyncpg.NotNullViolationError, StoreError)):
        await store.audited(msgspec.structs.replace(ENTRY, actor=None)).save_credential(CREDENTIAL)
    assert await store.credential("client", "c") is None


async def test_the_detail_of_an_audit_entry_can_be_amended(store: Store) -> None:
    [number] = await store.write_audit([ENTRY])
    amended = msgspec.structs.replace(ENTRY, number=number, detail="password=2")
    other = msgspec.structs.replace(ENTRY, action="login.refused")
    numbers = await store.write_audit([amended, other])
    assert numbers[0] == number
    found = [(entry.number, entry.action, entry.detail) for entry in await store.audit(limit=9)]
    assert found == [(numbers[1], "login.refused", other.detail), (number, ENTRY.action, "password=2")]


async def test_every_change_can_be_audited(registered: Store, accept: Accept) -> None:
    (accepted,) = await accept(b"{}")
    changes: dict[str, Callable[[Store], Awaitable[object]]] = {
        "register": lambda view: view.register(ACCOUNT, URL, actor="x"),
        "set_limits": lambda view: view.set_limits(ACCOUNT, Limits(in_flight=1)),
        "save": lambda view: view.save_credential(CREDENTIAL),
        "replace": lambda view: view.replace_credential(CREDENTIAL, CREDENTIAL),
        "drop": lambda view: view.drop_credentials("client", ["c"]),
        "copy": lambda view: view.redeliver(accepted.id, as_new=True),
        "pause": lambda view: view.pause(ACCOUNT),
        "resume": lambda view: view.resume(ACCOUNT),
        "deregister": lambda view: view.deregister(ACCOUNT, actor="x"),
    }
    for action, change in changes.items():
        await change(registered.audited(msgspec.structs.replace(ENTRY, action=action)))
        assert (await registered.audit(limit=1))[0].action == action


async def test_the_audit_log_is_read_newest_first_and_by_account(store: Store) -> None:
    for number, account in enumerate(("a", "b", None, "a", "c")):
        entry = msgspec.structs.replace(ENTRY, action=str(number), account=account)
        await store.audited(entry).set_limits("x", Limits())
    assert await logged(store) == [("4", "c"), ("3", "a"), ("2", None), ("1", "b"), ("0", "a")]
    assert await logged(store, among=["a", "c"]) == [("4", "c"), ("3", "a"), ("0", "a")]
    assert await logged(store, among=[]) == []
    first, second = await store.audit(limit=2)
    assert first.number > second.number
    assert await logged(store, before=second.number, limit=2) == [("2", None), ("1", "b")]


async def test_audit_entries_are_kept_for_more_than_a_year(store: Store, clock: VirtualClock) -> None:
    await store.audited(ENTRY).pause(ACCOUNT)
    clock.advance(399 * 86_400)
    await tidy_up(store, Retention(seconds=0, bytes=0))
    assert len(await logged(store)) == 1
    clock.advance(2 * 86_400)
    await tidy_up(store, Retention())
    assert await logged(store) == []


async def test_what_waits_of_an_account_is_counted_in_looks(registered: Store, accept: Accept) -> None:
    for body in (b"1", b"22", b"333"):
        await accept(body)
    await accept(b"4444", account="other")
    *first, last = await registered.pending_usage(ACCOUNT, after=0, limit=2)
    assert first == [2, 3]
    *rest, last = await registered.pending_usage(ACCOUNT, after=last, limit=2)
    assert rest == [1, 3]
    assert await registered.pending_usage(ACCOUNT, after=last, limit=2) == (0, 0, 0)
    lease = await lease_one(registered)
    deliveries = await registered.fetch(lease, 1)
    await registered.settle(lease, [settled(each) for each in deliveries], WELL, keep=0)
    assert (await registered.pending_usage(ACCOUNT, after=0, limit=9))[0] == 2
    assert await registered.pending_usage("nobody", after=0, limit=9) == (0, 0, 0)
