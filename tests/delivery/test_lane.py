"""One lane, served from its lease to giving it back, on a real store with a virtual clock."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fotahook.delivery import Dispatcher, Outcome, Rules
from fotahook.delivery.places import FETCH_BYTES_IN_ALL, FETCH_SECONDS, FETCH_SECONDS_CAP, FetchBudget
from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, Limits, NewMessage
from tests.deadlines import DEADLINE
from tests.store.conftest import ACCOUNT, URL, VirtualClock, lease_one

from .conftest import DELIVERED, Accept, Flaky, Receiver, Serve, Server, a_dispatcher, a_server, failed


async def state_of(store: Store, message_id: str) -> str:
    message = await store.message(message_id)
    assert message is not None
    return message.deliveries[0].state


async def test_everything_due_is_delivered_and_settled(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver
) -> None:
    ids = await accept(*(b"%d" % number for number in range(250)))
    while await serve():
        pass
    assert sorted(receiver.seen, key=int) == [b"%d" % number for number in range(250)]
    assert {await state_of(store, message_id) for message_id in ids} == {"delivered"}
    assert await store.due_in() is None


async def test_a_delivery_that_is_settled_during_a_fetch_is_not_sent_again(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(150)))

    class Overlapping(Flaky):
        """Each answer to a fetch arrives only after the settlement that began with it."""

        settlements: set[asyncio.Future[object]]

        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def settle(*args: object, **options: object) -> object:
                settled = asyncio.ensure_future(real(*args, **options))  # type: ignore[operator]
                self.settlements.add(settled)
                return await settled

            async def fetch(*args: object, **options: object) -> object:
                found = await real(*args, **options)  # type: ignore[operator]
                await asyncio.gather(*self.settlements)
                return found

            return {"settle": settle, "fetch": fetch}.get(name, real)

    overlapping = Overlapping(store, "", 0)
    overlapping.settlements = set()
    server = a_server(await lease_one(store), clock(), overlapping, receiver.deliver, clock)  # type: ignore[arg-type]
    await server.run()
    assert sorted(receiver.seen, key=int) == [b"%d" % number for number in range(150)]


async def test_a_lane_starts_with_four_and_grows_to_its_limit(accept: Accept, serve: Serve, receiver: Receiver) -> None:
    await accept(*(b"%d" % number for number in range(4)))
    await serve()
    assert receiver.most_running == 4
    rules = Rules(in_flight=8)
    await accept(*(b"%d" % number for number in range(100)))
    while await serve(rules=rules):
        pass
    assert receiver.most_running == rules.in_flight


async def test_a_lane_without_slow_start_begins_with_its_limit(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    rules = Rules(slow_start=False, in_flight=8)
    await accept(*(b"%d" % number for number in range(8)))
    await serve(rules=rules)
    assert receiver.most_running == rules.in_flight
    receiver.default = failed("connection_refused")
    await accept(*(b"%d" % number for number in range(8)))
    await serve(rules=rules)
    # After an endpoint failure, one delivery is the probe, as in any lane.
    receiver.most_running = 0
    clock.advance(await store.due_in() or 0)
    await serve(rules=rules)
    assert receiver.most_running == 1


@pytest.mark.parametrize("key", [None, "another"])
async def test_a_message_that_arrives_while_an_attempt_hangs_is_sent_concurrently(
    key: str | None, store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(b"1", b"2", b"3")
    await serve()
    hangs, let_go, beside = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if delivery.body == b"hangs":
            hangs.set()
            await let_go.wait()
        else:
            beside.set()
        return DELIVERED

    await accept(b"hangs", key="k")
    serving = asyncio.ensure_future(serve(deliver))
    async with asyncio.timeout(DEADLINE):
        await hangs.wait()
        await accept(b"beside", key=key)
        clock.advance(FETCH_SECONDS)
        await beside.wait()
        let_go.set()
        await serving
    assert await store.due_in() is None


async def test_while_an_attempt_hangs_the_lane_fetches_less_and_less_often(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    hangs, let_go = asyncio.Event(), asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        hangs.set()
        await let_go.wait()
        return DELIVERED

    fetches: asyncio.Queue[float] = asyncio.Queue()

    class Watched(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def fetch(*args: object, **options: object) -> object:
                found = await real(*args, **options)  # type: ignore[operator]
                fetches.put_nowait(clock())
                # Each look is made when it is time for it, by the clock that the lane goes by.
                clock.advance(FETCH_SECONDS)
                return found

            return fetch if name == "fetch" else real

    await accept(b"hangs")
    watched = Watched(store, "", 0)
    rules = Rules(slow_start=False)
    server = a_server(await lease_one(store), clock(), watched, deliver, clock, rules=rules)  # type: ignore[arg-type]
    serving = asyncio.ensure_future(server.run())
    async with asyncio.timeout(DEADLINE):
        await hangs.wait()
        await fetches.get()
        first = await fetches.get()
        clock.advance(FETCH_SECONDS)
        second = await fetches.get()
        clock.advance(3 * FETCH_SECONDS)
        third = await fetches.get()
        let_go.set()
        await serving
    assert (second - first, third - second) == (2 * FETCH_SECONDS, FETCH_SECONDS_CAP)


async def test_a_dead_endpoint_is_tried_four_times_and_then_probed(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.default = failed("connection_refused")
    await accept(*(b"%d" % number for number in range(20)))
    until = clock() + 60
    await serve()
    assert receiver.seen == [b"%d" % number for number in range(4)]
    while (due_in := await store.due_in()) is not None and clock() + due_in < until:
        clock.advance(due_in)
        receiver.most_running = 0
        await serve()
        assert receiver.most_running == 1
    assert len(receiver.seen) <= 12


async def test_one_failure_among_successes_holds_up_only_its_own_message(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.answers[b"3"] = failed("http_503")
    ids = await accept(*(b"%d" % number for number in range(20)))
    while await serve():
        pass
    (lane,) = await store.lanes(ACCOUNT)
    assert (lane.state, lane.pending, lane.health.failures) == ("open", 1, 0)
    receiver.answers.clear()
    assert await store.due_in() == 1
    clock.advance(1)
    await serve()
    assert [attempt.error_code for attempt in await store.attempts(ids[3])] == ["http_503", None]


async def test_one_failure_of_a_key_holds_up_only_that_key(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(8)))
    receiver.answers[b"a0"] = failed("http_503")
    await accept(b"a0", b"a1", key="a")
    await accept(b"b0", b"b1", key="b")
    while await serve():
        pass
    assert {b"b0", b"b1"} <= set(receiver.seen)
    assert b"a1" not in receiver.seen
    receiver.answers.clear()
    clock.advance(1)
    while await serve():
        pass
    assert receiver.seen[-2:] == [b"a0", b"a1"]


async def test_deliveries_of_one_key_go_one_at_a_time_in_accepted_order(
    accept: Accept, serve: Serve, receiver: Receiver
) -> None:
    for number in range(30):
        await accept(b"%d" % number, key=f"device-{number % 3}")
    while await serve():
        pass
    for device in range(3):
        numbers = [int(body) for body in receiver.seen if int(body) % 3 == device]
        assert numbers == sorted(numbers)
    assert len(receiver.seen) == 30
    assert receiver.most_running <= 3


async def test_a_backlog_of_one_key_is_served_in_one_turn(accept: Accept, serve: Serve, receiver: Receiver) -> None:
    await accept(*(b"%d" % number for number in range(30)), key="k")
    assert await serve() == 1
    assert receiver.seen == [b"%d" % number for number in range(30)]
    assert await serve() == 0


async def test_the_turn_of_a_lane_of_one_key_ends_like_any_other_if_others_wait(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(150)), key="k")
    server = a_server(await lease_one(store), clock(), store, receiver.deliver, clock, others_wait=True)
    await server.run()
    assert receiver.seen == [b"%d" % number for number in range(100)]
    assert await store.due_in() == 0


async def test_a_message_that_is_alone_in_its_key_costs_one_write_and_the_lane_is_given_back(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(b"alone", key="k")
    never_away = Flaky(store, "settle", 0)
    server = a_server(await lease_one(store), clock(), never_away, receiver.deliver, clock)  # type: ignore[arg-type]
    await server.run()
    assert receiver.seen == [b"alone"]
    assert -never_away.times == 1
    assert await store.due_in() is None


async def test_a_refused_message_holds_back_only_its_key_and_is_retried(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.answers[b"bad"] = failed("http_500")
    await accept(b"good")
    (bad, *_) = await accept(b"bad", b"behind", key="k")
    while await serve():
        pass
    assert receiver.seen == [b"good", b"bad"]
    receiver.answers.clear()
    clock.advance(5)
    while await serve():
        pass
    assert receiver.seen == [b"good", b"bad", b"bad", b"behind"]
    assert [attempt.error_code for attempt in await store.attempts(bad)] == ["http_500", None]


async def test_while_the_endpoint_fails_the_lane_backs_off_and_probes_with_another_message(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.default = failed("http_429")
    await accept(b"1", b"2", b"3")
    waits = []
    for _ in range(3):
        await serve(rules=Rules(in_flight=1))
        (lane,) = await store.lanes(ACCOUNT)
        assert (lane.state, lane.health.reason) == ("waiting", "http_429")
        due_in = await store.due_in()
        assert due_in is not None
        waits.append(due_in)
        clock.advance(due_in)
    assert receiver.seen == [b"1", b"2", b"3"]
    assert waits == [5, 10, 20]
    receiver.default = DELIVERED
    while await serve():
        pass
    (lane,) = await store.lanes(ACCOUNT)
    assert (lane.state, lane.pending, lane.health.failures) == ("open", 0, 0)


async def test_concurrent_endpoint_failures_count_once(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver
) -> None:
    await accept(*(b"%d" % number for number in range(8)))
    await serve()
    receiver.default = failed("connection_refused")
    await accept(*(b"x%d" % number for number in range(8)))
    await serve()
    assert len(receiver.seen) == 16
    (lane,) = await store.lanes(ACCOUNT)
    assert lane.health.failures == 1
    assert await store.due_in() == 5


async def test_a_message_that_hangs_the_receiver_does_not_stall_its_account(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.answers[b"poison"] = failed("timeout_response")
    (poison,) = await accept(b"poison")
    others = await accept(*(b"%d" % number for number in range(20)))
    for _ in range(2):
        while await serve():
            pass
        clock.advance(await store.due_in() or 0)
    assert {await state_of(store, other) for other in others} == {"delivered"}
    while (due_in := await store.due_in()) is not None:
        (fresh,) = await accept(b"fresh")
        clock.advance(due_in)
        while await serve():
            pass
        assert await state_of(store, fresh) == "delivered"
    assert await state_of(store, poison) == "dead"


async def test_a_receiver_that_refuses_everything_for_two_days_loses_no_backlog(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    receiver.default = failed("http_404")
    ids = await accept(*(b"%d" % number for number in range(50)))
    until = clock() + 48 * 3600
    while clock() < until:
        while await serve():
            pass
        clock.advance(await store.due_in() or 0)
    receiver.default = DELIVERED
    while (due_in := await store.due_in()) is not None:
        clock.advance(due_in)
        await serve()
    assert {await state_of(store, message_id) for message_id in ids} == {"delivered"}
    assert len(receiver.seen) < 50 * 8


async def test_410_pauses_the_lane(store: Store, accept: Accept, serve: Serve, receiver: Receiver) -> None:
    receiver.default = failed("http_410")
    bodies = [b"%d" % number for number in range(20)]
    await accept(*bodies)
    await serve()
    (lane,) = await store.lanes(ACCOUNT)
    assert (lane.state, lane.pending, lane.health.reason) == ("paused", 20, "http_410")
    # Those that were in flight at once, and none after the answer.
    assert receiver.seen == bodies[:4]


async def test_an_expired_message_dies_without_an_attempt_and_frees_its_key(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    (old,) = await accept(b"old", key="k")
    clock.advance(7 * 86400)
    await accept(b"new", key="k")
    while await serve():
        pass
    assert receiver.seen == [b"new"]
    assert await state_of(store, old) == "dead"
    assert [attempt.error_code for attempt in await store.attempts(old)] == ["expired"]


async def test_no_message_expires_while_the_clock_is_not_to_be_trusted(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    monotonic = VirtualClock()
    receiver.default = failed("http_500")
    (message_id,) = await accept(b"{}")

    dispatcher = a_dispatcher(store, receiver.deliver, clock, monotonic=monotonic)

    async def serve_once() -> None:
        await Server(await lease_one(store), monotonic(), dispatcher, Rules()).run()

    await serve_once()
    # The clock stands 40 days ahead, and is right again after six seconds.
    for jump in (40 * 86400, 6 - 40 * 86400):
        clock.advance(jump)
        monotonic.advance(6)
        if jump > 0:
            await serve_once()
    assert await state_of(store, message_id) == "pending"
    assert receiver.seen == [b"{}"] * 2


async def test_a_message_is_no_older_when_a_clock_that_was_behind_is_right(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    monotonic = VirtualClock()
    receiver.default = failed("http_500")
    (message_id,) = await accept(b"{}")
    dispatcher = a_dispatcher(store, receiver.deliver, clock, monotonic=monotonic)
    # Then it goes on for longer than a jump takes to be believed, and at last for the message's time to live.
    for jump, seconds in ((0.0, 7200.0), (40 * 86400.0, 7200.0), (0.0, 7200.0), (0.0, 7 * 86400.0)):
        await Server(await lease_one(store), monotonic(), dispatcher, Rules()).run()
        assert await state_of(store, message_id) == "pending"
        clock.advance(jump + seconds)
        monotonic.advance(seconds)
    await Server(await lease_one(store), monotonic(), dispatcher, Rules()).run()
    assert await state_of(store, message_id) == "dead"
    assert len(receiver.seen) == 4


async def test_no_message_expires_if_the_clock_jumps_after_the_lease_was_read(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = VirtualClock()
    await accept(b"{}")
    fetch = store.fetch

    async def jump_and_fetch(lease: Lease, limit: int, **options: Any) -> list[Delivery]:
        clock.advance(40 * 86400)
        return await fetch(lease, limit, **options)

    monkeypatch.setattr(store, "fetch", jump_and_fetch)
    worker = a_server(await lease_one(store), monotonic(), store, receiver.deliver, clock, monotonic=monotonic)
    await worker.run()
    assert receiver.seen == [b"{}"]


async def test_a_lane_that_runs_out_of_memory_goes_on_with_one_message_at_a_time(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.lane.RETRY_SECONDS", 0)
    limits = []

    class Exhausted(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def fetch(lease: Lease, limit: int, **options: object) -> object:
                limits.append(limit)
                if len(limits) == 1:
                    raise MemoryError
                return await real(lease, limit, **options)  # type: ignore[operator]

            return fetch if name == "fetch" else real

    await accept(b"0", b"1", b"2")
    exhausted = Exhausted(store, "", 0)
    await a_server(await lease_one(store), clock(), exhausted, receiver.deliver, clock).run()  # type: ignore[arg-type]
    assert sorted(receiver.seen) == [b"0", b"1", b"2"]
    assert limits[0] > 1
    assert set(limits[1:]) == {1}


async def test_lanes_that_fetch_at_once_share_the_memory(store: Store, accept: Accept, clock: VirtualClock) -> None:
    """However many lanes fetch at the same time, the bodies in memory and what is asked for are bounded."""
    body, budget = bytes(1000), FetchBudget(2500)
    held = most = 0
    names = [f"a{number}" for number in range(6)]

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        await asyncio.sleep(0)
        return DELIVERED

    class Watched(Flaky):
        def __getattr__(self, name: str) -> object:
            real = super().__getattr__(name)

            async def fetch(*args: object, max_bytes: int, **options: object) -> list[Delivery]:
                nonlocal held, most
                held += max_bytes
                most = max(most, held)
                found: list[Delivery] = await real(*args, max_bytes=max_bytes, **options)  # type: ignore[operator]
                held -= max_bytes
                return found

            return fetch if name == "fetch" else real

    for account in names:
        await store.register(account, URL, actor="test")
        await accept(*[body] * 10, account=account)
    dispatcher = a_dispatcher(Watched(store, "", 0), deliver, clock)  # type: ignore[arg-type]
    dispatcher.places.quick_budget = dispatcher.places.other_budget = budget
    asked_at = clock()
    workers = [Server(lease, asked_at, dispatcher, Rules()) for lease in await store.lease(10, 30)]
    lowest = 0

    async def watch() -> None:
        nonlocal lowest
        while True:
            lowest = min(lowest, budget._left)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(worker.run() for worker in workers))
    watching.cancel()
    # Over the budget each lane still holds one message, and the last one within it may be longer than what was left.
    assert -len(names) * len(body) - len(body) <= lowest
    assert most <= 2500
    assert budget._left == 2500
    assert await store.due_in() is None


async def test_a_lane_that_recovers_says_so(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    recovered: list[str | None] = []
    receiver.default = failed("http_429")
    await accept(b"{}")
    for _ in range(2):
        server = a_server(await lease_one(store), clock(), store, receiver.deliver, clock)
        server.dispatcher.on_recovered = lambda lease: recovered.append(lease.url)  # type: ignore[method-assign]
        await server.run()
        clock.advance(await store.due_in() or 0)
        receiver.default = DELIVERED
    assert recovered == [URL]


async def test_a_failure_of_our_own_is_charged_to_the_message_not_the_lane(
    store: Store, accept: Accept, serve: Serve
) -> None:
    async def broken(lease: Lease, delivery: Delivery) -> Outcome:
        raise RuntimeError("on purpose")

    (message_id,) = await accept(b"{}")
    await serve(broken)
    assert [attempt.error_code for attempt in await store.attempts(message_id)] == ["internal_error"]
    assert await store.due_in() == 5


async def test_an_attempt_that_is_cancelled_is_not_settled_and_ends_the_lane(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    """A loop that ends, as those of some test clients do, cancels what runs in it."""
    attempt: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    def deliver(lease: Lease, delivery: Delivery) -> asyncio.Future[Outcome]:
        begun.set()
        return attempt

    (message_id,) = await accept(b"{}")
    serving = asyncio.create_task(a_server(await lease_one(store), clock(), store, deliver, clock).run())
    await begun.wait()
    attempt.cancel()
    await serving
    assert await store.attempts(message_id) == []
    assert await state_of(store, message_id) == "pending"


async def test_the_log_names_the_host_of_the_callback_that_failed(
    accept: Accept, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(lease: Lease, delivery: Delivery) -> Outcome:
        return Outcome(code="redirect", status=302, url="https://callback.example:8443/tok?key=tok")

    (message_id,) = await accept(b"{}")
    await serve(refused)
    assert f"message {message_id} of {ACCOUNT} to https://callback.example:8443: redirect; " in caplog.text
    assert "tok" not in caplog.text


# The lease


async def test_no_attempt_starts_on_an_old_url_once_the_lease_was_read_afresh(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(10)))

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if delivery.body == b"0":
            await store.register(ACCOUNT, "https://new.example/", actor="test")
            clock.advance(1)
        return await receiver.deliver(lease, delivery)

    await a_server(await lease_one(store), clock(), store, deliver, clock, rules=Rules(in_flight=1)).run()
    assert receiver.urls == [URL] + ["https://new.example/"] * 9


async def test_nothing_starts_after_the_callback_was_deregistered(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    first, second = await accept(b"0", b"1")

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        await store.deregister(ACCOUNT, actor="test")
        clock.advance(1)
        return await receiver.deliver(lease, delivery)

    await a_server(await lease_one(store), clock(), store, deliver, clock, rules=Rules(in_flight=1)).run()
    assert receiver.seen == [b"0"]
    assert [await state_of(store, one) for one in (first, second)] == ["delivered", "pending"]


async def test_an_answer_of_the_old_endpoint_does_not_pause_the_new_one(
    store: Store, accept: Accept, clock: VirtualClock
) -> None:
    ids = await accept(b"0", b"1", b"2")
    replaced = asyncio.Event()

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        if delivery.body == b"0":
            await store.register(ACCOUNT, "https://new.example/", actor="test")
            clock.advance(1)
        elif lease.url == URL:
            await replaced.wait()
            return failed("http_410")
        else:
            replaced.set()
        return DELIVERED

    server = a_server(await lease_one(store), clock(), store, deliver, clock, rules=Rules(in_flight=2))
    async with asyncio.timeout(DEADLINE):
        await server.run()
    (lane,) = await store.lanes(ACCOUNT)
    assert lane.state == "open"
    assert [await state_of(store, one) for one in ids] == ["delivered", "pending", "delivered"]


async def test_a_lane_that_lost_its_lease_stops_at_once(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = await accept(b"0", b"1")

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        clock.advance(31)
        await lease_one(store)
        return await receiver.deliver(lease, delivery)

    server = a_server(await lease_one(store), clock(), store, deliver, clock)
    await server.run()
    assert receiver.seen == [b"0"]
    assert await state_of(store, first) == "pending"
    assert "lost its lease" in caplog.text
    places = server.dispatcher.places
    assert [budget._left for budget in (places.quick_budget, places.other_budget)] == [FETCH_BYTES_IN_ALL] * 2


async def test_a_turn_ends_after_a_hundred_deliveries_if_others_wait(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(*(b"%d" % number for number in range(150)))
    server = a_server(await lease_one(store), clock(), store, receiver.deliver, clock, others_wait=True)
    await server.run()
    assert len(receiver.seen) == 100
    assert await store.due_in() == 0


async def test_a_turn_ends_after_a_second_if_others_wait(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    await accept(b"0", b"1")

    async def slow(lease: Lease, delivery: Delivery) -> Outcome:
        clock.advance(1)
        return await receiver.deliver(lease, delivery)

    lease, rules = await lease_one(store), Rules(in_flight=1)
    await a_server(lease, clock(), store, slow, clock, rules=rules, others_wait=True).run()
    assert receiver.seen == [b"0"]


async def test_a_stopping_lane_finishes_its_running_attempts(
    store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock
) -> None:
    first, second = await accept(b"0", b"1")

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        server.dispatcher.stop()
        return await receiver.deliver(lease, delivery)

    server = a_server(await lease_one(store), clock(), store, deliver, clock, rules=Rules(in_flight=1))
    await server.run()
    assert [await state_of(store, one) for one in (first, second)] == ["delivered", "pending"]
    assert await store.due_in() == 0


async def test_cancelling_a_lane_leaves_no_task_behind(store: Store, accept: Accept, clock: VirtualClock) -> None:
    await accept(b"0")
    reached = asyncio.Event()

    async def hang(lease: Lease, delivery: Delivery) -> Outcome:
        reached.set()
        await asyncio.Event().wait()
        return DELIVERED

    before = asyncio.all_tasks()
    serving = asyncio.create_task(a_server(await lease_one(store), clock(), store, hang, clock).run())
    await reached.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    # A transaction of the store that has begun ends by itself.
    async with asyncio.timeout(DEADLINE):
        while asyncio.all_tasks() != before:  # noqa: ASYNC110  # a store tells nobody
            await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("verb", ["fetch", "settle"])
async def test_a_store_that_is_unavailable_for_a_while_loses_nothing(
    verb: str, store: Store, accept: Accept, receiver: Receiver, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.delivery.lane.RETRY_SECONDS", 0)
    (message_id,) = await accept(b"0")
    flaky = Flaky(store, verb, 3)
    await a_server(await lease_one(store), clock(), flaky, receiver.deliver, clock).run()  # type: ignore[arg-type]
    assert receiver.seen == [b"0"]
    assert await state_of(store, message_id) == "delivered"


async def test_a_lane_ends_when_the_store_is_unavailable_for_longer_than_the_lease(
    store: Store, accept: Accept, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fotahook.delivery.lane.RETRY_SECONDS", 0)
    (message_id,) = await accept(b"0")

    async def deliver(lease: Lease, delivery: Delivery) -> Outcome:
        clock.advance(31)
        return DELIVERED

    flaky = Flaky(store, "settle", 10**9)
    async with asyncio.timeout(DEADLINE):
        await a_server(await lease_one(store), clock(), flaky, deliver, clock).run()  # type: ignore[arg-type]
    assert f"lane {ACCOUNT} is lost: the store is unavailable: away on purpose" in caplog.text
    assert await state_of(store, message_id) == "pending"


# An account's own limits


async def test_an_account_may_have_a_lower_limit_in_flight_but_no_higher_one(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver
) -> None:
    for in_flight, allowed in ((3, 3), (20, 6)):
        await store.set_limits(ACCOUNT, Limits(in_flight=in_flight))
        await accept(*(b"%d" % number for number in range(100)))
        while await serve(rules=Rules(in_flight=6)):
            pass
        assert receiver.most_running == allowed


async def test_an_account_may_have_its_own_rate_limit(
    store: Store, accept: Accept, serve: Serve, receiver: Receiver, clock: VirtualClock
) -> None:
    await store.set_limits(ACCOUNT, Limits(per_second=0.5))
    await accept(b"1", b"2", b"3")
    moments = []
    while (due_in := await store.due_in()) is not None:
        clock.advance(due_in)
        moments.append(clock())
        await serve()
    assert receiver.seen == [b"1", b"2", b"3"]
    assert [moment - moments[0] for moment in moments] == [0, 2, 4]


async def test_the_rate_limit_holds_across_turns(
    store: Store, accept: Accept, serve: Serve, clock: VirtualClock
) -> None:
    await store.set_limits(ACCOUNT, Limits(per_second=0.1))
    await accept(b"1")
    await serve()
    await accept(b"2")
    assert await store.due_in() == 10


def test_a_pause_that_is_too_short_for_a_timer_drops_no_lane(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """uvloop has no timers below a millisecond."""

    async def deliver_everything() -> int:
        store = await open_store(f"sqlite:///{tmp_path}/store.db")
        await store.register(ACCOUNT, URL, actor="test")
        await store.set_limits(ACCOUNT, Limits(per_second=5000))
        await store.accept([NewMessage(account=ACCOUNT, body=b"{}")] * 50)
        dispatcher = Dispatcher(store, Receiver().deliver)
        dispatching = asyncio.create_task(dispatcher.run())
        async with asyncio.timeout(DEADLINE):
            while pending := (await store.backlog()).pending:  # noqa: ASYNC110  # the store tells nobody
                await asyncio.sleep(0)
        dispatcher.stop()
        await dispatching
        await store.close()
        return pending

    assert uvloop.run(deliver_everything()) == 0
    assert "dropped" not in caplog.text
