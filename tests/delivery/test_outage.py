"""Twenty-six hours of an outage, replayed on the real store with a virtual clock; run with -s to see the timetable."""

import asyncio
import logging
import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from fotahook.delivery import Outcome, Rules
from fotahook.delivery.policy import HOUR, MINUTE
from fotahook.store.base import Store
from fotahook.store.records import Delivery, Lease, NewMessage
from tests.store.conftest import URL, VirtualClock

from .conftest import DELIVERED, Server, a_dispatcher, failed
from .timetable import Timetable, Turn

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
PUBLISH_EVERY = 20 * MINUTE
RETRY_AFTER = 10 * MINUTE

FIRST_MESSAGE = MIDNIGHT + 9 * HOUR
DOWN = MIDNIGHT + 10 * HOUR
OVERLOADED = DOWN + 20 * HOUR
BACK = DOWN + 26 * HOUR
MENDED = BACK + 2 * HOUR
LAST_MESSAGE = MENDED + HOUR

STRICKEN = ("north", "south")
ACCOUNTS = (*STRICKEN, "east")


def answer(account: str, body: bytes, now: float) -> Outcome:
    """What a receiver answers. East never fails."""
    if account not in STRICKEN or now < DOWN:
        return DELIVERED
    if now < OVERLOADED:
        return failed("connection_refused")
    if now < BACK:
        return failed("http_503", retry_after=RETRY_AFTER)
    # Back, with a fault: it chokes on some messages until that is mended.
    return failed("http_500") if chokes_on(body) and now < MENDED else DELIVERED


def chokes_on(body: bytes) -> bool:
    return body.endswith((b"5", b"6"))


class Simulation:
    """Publishers, receivers and one dispatcher, in simulated time."""

    def __init__(self, store: Store, clock: VirtualClock, seed: int) -> None:
        self.timetable = Timetable(MIDNIGHT)
        self.bodies: dict[str, bytes] = {}
        self._store = store
        self._clock = clock
        self._dispatcher = a_dispatcher(store, Watched(clock).deliver, clock, jitter=random.Random(seed).random)

    async def live(self) -> None:
        """From the first message until nothing is left to do."""
        self._clock.now = FIRST_MESSAGE
        next_message = FIRST_MESSAGE
        while (due_in := await self._store.due_in()) is not None or next_message <= LAST_MESSAGE:
            due = float("inf") if due_in is None else self._clock() + due_in
            if next_message <= min(due, LAST_MESSAGE):
                self._clock.now = next_message
                next_message += PUBLISH_EVERY
                await self._publish()
            else:
                self._clock.now = due
                while await self._serve():
                    pass

    async def _publish(self) -> None:
        """For each account a message without a key, and one with."""
        number = len(self.bodies) // len(ACCOUNTS)
        messages = [
            NewMessage(account=account, body=b"%d" % (number + odd), ordering_key=key)
            for account in ACCOUNTS
            for odd, key in enumerate((None, f"device-{(number + 1) % 10}"))
        ]
        for message, accepted in zip(messages, await self._store.accept(messages), strict=True):
            self.bodies[accepted.id] = message.body

    async def _serve(self) -> int:
        asked_at = self._clock()
        leases = await self._store.lease(10, 30)
        for lease in leases:
            lane = Watched(self._clock)
            self._dispatcher.deliver = lane.deliver
            await Server(lease, asked_at, self._dispatcher, Rules()).run()
            if lane.tries:
                [state] = await self._store.lanes(lease.account)
                self.timetable.add(self._clock(), lease.account, lane.tries, state)
        return len(leases)


class Watched:
    """One turn of a lane: what was tried in it, never more at once than slow start allows."""

    def __init__(self, clock: VirtualClock) -> None:
        self.tries: list[tuple[str, str]] = []
        self._clock = clock
        self._running = 0

    async def deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        self._running += 1
        successes = sum(outcome == "delivered" for _, outcome in self.tries)
        assert self._running <= min(Rules().in_flight, lease.health.window + successes)
        # Lets the lane start whatever else it may have in flight beside this one.
        for _ in range(3):
            await asyncio.sleep(0)
        self._running -= 1
        outcome = answer(lease.account, delivery.body, self._clock())
        self.tries.append((delivery.body.decode(), outcome.code))
        return outcome


@pytest.fixture
async def outage(store: Store, clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> Simulation:
    """An outage that is over, and all that there was to do about it done."""
    caplog.set_level(logging.ERROR, "fotahook.delivery")
    for account in ACCOUNTS:
        await store.register(account, URL, actor="test")
    simulation = Simulation(store, clock, seed=26)
    await simulation.live()
    return simulation


def probes(turns: list[Turn], code: str) -> list[Turn]:
    """The turns in which nothing but this came, and after which the lane waited."""
    return [turn for turn in turns if set(turn.outcomes) == {code} and turn.until is not None]


async def test_an_outage_of_26_hours_uses_up_no_retries(outage: Simulation, store: Store) -> None:
    print(f"\n{outage.timetable}")
    table = outage.timetable
    for account in STRICKEN:
        turns = table.of(account)
        refused, overloaded = probes(turns, "connection_refused"), probes(turns, "http_503")

        # Down: after the first three failures one probe at a time, each with another message, ever less often.
        assert all(len(turn.tried) == 1 for turn in refused + overloaded)
        assert all(one.tried != other.tried for one, other in pairwise((refused + overloaded)[3:]))
        for failures, turn in enumerate(refused):
            assert turn.until is not None
            assert turn.at <= turn.until <= turn.at + min(5.0 * 2**failures, HOUR)
        assert 20 < len(refused) < 80
        # Overloaded: asked to leave it alone for ten minutes, the service does, or for as long as its own backoff.
        assert all(RETRY_AFTER - 1 < turn.until - turn.at < HOUR + 1 for turn in overloaded if turn.until is not None)
        # In both cases the next probe is made at that very time.
        waiting = [turn for turn in turns if turn.until is not None]
        assert [turn.until for turn in waiting] == [turns[turns.index(turn) + 1].at for turn in waiting]

        # Back: found out by the next probe, and at once all goes that the receiver does not choke on.
        found_out = next(turn.at for turn in turns if turn.at >= BACK)
        drained = [turn for turn in turns if turn.at == found_out][-1]
        published = 2 * (int((found_out - FIRST_MESSAGE) / PUBLISH_EVERY) + 1)
        before = 2 * int((DOWN - FIRST_MESSAGE) / PUBLISH_EVERY)
        assert found_out <= BACK + HOUR
        assert drained.state == "open"
        assert drained.pending == sum(chokes_on(b"%d" % number) for number in range(before, published))

    await check_messages(outage, store)


async def check_messages(outage: Simulation, store: Store) -> None:
    """Everything is delivered, and each message has used up only the retries of its own failures."""
    for message_id, body in outage.bodies.items():
        message = await store.message(message_id)
        assert message is not None
        [placement] = message.deliveries
        assert placement.state == "delivered"
        codes = [attempt.error_code for attempt in await store.attempts(message_id)]
        own = [code for code in codes if code not in ("connection_refused", "http_503")]
        assert placement.attempts == len(own)
        assert set(own) <= ({None, "http_500"} if chokes_on(body) else {None})


async def test_healthy_accounts_are_not_affected(outage: Simulation) -> None:
    turns = outage.timetable.of("east")
    assert {turn.at for turn in turns} == {FIRST_MESSAGE + step * PUBLISH_EVERY for step in range(len(turns))}
    assert {turn.pending for turn in turns} == {0}


async def test_each_key_keeps_its_order_across_the_outage(outage: Simulation) -> None:
    for account in ACCOUNTS:
        delivered = [
            int(body)
            for turn in outage.timetable.of(account)
            for body, outcome in zip(turn.tried, turn.outcomes, strict=True)
            if outcome == "delivered"
        ]
        assert sorted(delivered) == list(range(len(outage.bodies) // len(ACCOUNTS)))
        for digit in (1, 3, 5, 7, 9):
            of_key = [number for number in delivered if number % 10 == digit]
            assert of_key == sorted(of_key)


async def test_the_timetable_reads_as_clock_times(outage: Simulation) -> None:
    lines = str(outage.timetable).splitlines()
    assert lines[0] == "day 1 09:00:00  north    2 messages     2 delivered                    open, 0 pending"
    assert any("connection_refused" in line and "waits until day 2" in line for line in lines)
    assert any("http_503" in line and "waits until" in line for line in lines)
