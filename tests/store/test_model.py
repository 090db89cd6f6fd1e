"""Any interleaving of accepting, leasing, settling, expiry and crashes, on either store, against a model of both."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.records import Delivery, HandOver, Health, LaneVerdict, Lease, LeaseRequest, NewMessage, Settlement
from tests.postgres import ClockFile, Server, a_schema

from .conftest import ENGINES, VirtualClock, settled

T = TypeVar("T")
ACCOUNTS = ("a", "b")
LEASE = 30.0

WINDOWED = "w"
"""The idempotency key that is known for a while only."""
WINDOW = 50.0


def windowed(message: NewMessage) -> NewMessage:
    return msgspec.structs.replace(message, idempotency_window=WINDOW if message.idempotency_key == WINDOWED else None)


new_messages = st.builds(
    NewMessage,
    account=st.sampled_from(ACCOUNTS),
    body=st.sampled_from((b"1", b"2")),
    ordering_key=st.sampled_from((None, "k", "l")),
    idempotency_key=st.sampled_from((None, None, None, "i", "j", WINDOWED)),
    consumers=st.just(("c",)),
).map(windowed)
fates = st.lists(
    st.tuples(st.sampled_from(("delivered", "dead", "pending")), st.sampled_from((0.0, 100.0))), min_size=1, max_size=4
)


class World(Protocol):
    """Lends stores, each of them empty."""

    runner: asyncio.Runner
    clock: VirtualClock

    async def empty_store(self) -> Store: ...

    async def leave(self, store: Store) -> None: ...


@dataclass
class Kept:
    """What the model knows of an accepted message."""

    id: str
    message: NewMessage
    accepted_at: float
    due: float
    state: str = "pending"


@dataclass
class ModelLane:
    """What the model knows of a lane: its messages as they were accepted, and who has it until when."""

    kept: list[Kept] = field(default_factory=list)
    token: int = 0
    owned: bool = False
    until: float = 0.0
    wait_until: float = 0.0

    def ready(self, now: float) -> list[Kept]:
        """What may be tried now: what is due, but of each key only the first that is pending."""
        keys: set[str] = set()
        heads = []
        for kept in self.kept:
            key = kept.message.ordering_key
            if kept.state == "pending" and (key is None or key not in keys):
                heads.append(kept)
                keys.update([key] if key is not None else [])
        return [kept for kept in heads if kept.due <= now]


@dataclass
class Worker:
    """A dispatcher's hold on a lane, rightful or not any more, and what it has fetched."""

    lease: Lease
    hand: list[Delivery] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Checks every answer of a store against the model."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.clock = world.clock
        self.store = self.run(world.empty_store())
        self.lanes = {account: ModelLane() for account in ACCOUNTS}
        self.known: dict[tuple[str, str | None], Kept] = {}
        self.workers: list[Worker] = []
        self.handed: list[HandOver] = []
        self.request: LeaseRequest | None = None
        # A SQLite store hands over once its dispatcher has leased.
        self.run(self.store.lease(1, LEASE))
        self.store.hand_over(lambda: self.request, self.receive)

    def receive(self, handed: Sequence[HandOver]) -> None:
        self.handed += handed

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.world.runner.run(doing)

    @rule(messages=st.lists(new_messages, min_size=1, max_size=5), handing=st.booleans())
    def accept(self, messages: list[NewMessage], handing: bool) -> None:
        now = self.clock()
        idle = {
            account
            for account, lane in self.lanes.items()
            if lane.wait_until <= now and not (lane.owned and lane.until > now)
            if not any(kept.state == "pending" for kept in lane.kept)
        }
        before = {kept.id for lane in self.lanes.values() for kept in lane.kept}
        self.request = LeaseRequest(lanes=len(ACCOUNTS), seconds=LEASE) if handing else None
        self.accepted(messages)
        new = {a: {each.id for each in lane.ready(now)} - before for a, lane in self.lanes.items()}
        taken = {handed.lease.account for handed in self.handed if handed.lease is not None}
        assert taken == ({account for account in idle if new[account]} if handing else set())
        for handed in self.handed:
            ids = {delivery.message for delivery in handed.deliveries}
            if handed.lease is None:
                assert any(ids <= each for each in new.values())
                continue
            assert ids == new[handed.lease.account]
            self.owned(handed.lease)
            self.workers[-1].hand = list(handed.deliveries)
        self.handed.clear()

    def accepted(self, messages: list[NewMessage]) -> None:
        for message, accepted in zip(messages, self.run(self.store.accept(messages)), strict=True):
            known = self.known.get((message.account, message.idempotency_key))
            if known is not None and message.idempotency_window is not None:
                known = known if self.clock() < known.accepted_at + message.idempotency_window else None
            if known is not None:
                assert (accepted.id, accepted.duplicate) == (known.id, True)
                assert accepted.conflict == (message.body != known.message.body)
                continue
            assert not accepted.duplicate
            kept = Kept(accepted.id, message, self.clock(), self.clock())
            self.lanes[message.account].kept.append(kept)
            if message.idempotency_key is not None:
                self.known[message.account, message.idempotency_key] = kept

    @rule(limit=st.integers(1, 2))
    def lease(self, limit: int) -> None:
        now = self.clock()
        free = {
            account
            for account, lane in self.lanes.items()
            if lane.ready(now) and lane.wait_until <= now and not (lane.owned and lane.until > now)
        }
        leases = self.run(self.store.lease(limit, LEASE))
        assert len(leases) == min(limit, len(free))
        for lease in leases:
            assert lease.account in free
            self.owned(lease)
            free.remove(lease.account)

    def owned(self, lease: Lease) -> None:
        lane = self.lanes[lease.account]
        assert lease.token > lane.token
        lane.token, lane.owned, lane.until = lease.token, True, self.clock() + LEASE
        self.workers.append(Worker(lease))

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 9))
    def fetch(self, index: int) -> None:
        worker = self.workers[index % len(self.workers)]
        worker.hand = self.run(self.store.fetch(worker.lease, 100))
        ready = self.lanes[worker.lease.account].ready(self.clock())
        assert {delivery.message for delivery in worker.hand} == {kept.id for kept in ready}
        assert all(delivery.body == self.kept(delivery).message.body for delivery in worker.hand)

    @precondition(lambda self: self.workers)
    @rule(
        index=st.integers(0, 9), fates=fates, keep=st.sampled_from((0.0, LEASE)), wait=st.sampled_from((0.0, 0.0, 20.0))
    )
    def settle(self, index: int, fates: list[tuple[str, float]], keep: float, wait: float) -> None:
        worker = self.workers[index % len(self.workers)]
        outcomes = [
            (delivery, settled(delivery, state, delay=delay), state, delay)
            for delivery, (state, delay) in zip(worker.hand, fates, strict=False)
        ]
        del worker.hand[: len(outcomes)]
        if self.settled(worker, [settlement for _, settlement, _, _ in outcomes], keep, wait):
            for delivery, _, state, delay in outcomes:
                kept = self.kept(delivery)
                if kept.state == "pending":
                    kept.state, kept.due = state, self.clock() + delay

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 9))
    def heartbeat(self, index: int) -> None:
        self.settled(self.workers[index % len(self.workers)], [], LEASE, 0.0)

    def settled(self, worker: Worker, settlements: list[Settlement], keep: float, wait: float) -> bool:
        """Settle; whether the store took it, which is to be so for the rightful owner alone."""
        lane = self.lanes[worker.lease.account]
        rightful = lane.owned and lane.token == worker.lease.token
        verdict = LaneVerdict(health=Health(), wait=wait)
        lease = self.run(self.store.settle(worker.lease, settlements, verdict, keep=keep))
        assert (lease is not None) == (rightful and keep > 0)
        if rightful:
            lane.owned, lane.until = keep > 0, self.clock() + keep
            lane.wait_until = self.clock() + wait if wait else lane.wait_until
        return rightful

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 9))
    def crash(self, index: int) -> None:
        del self.workers[index % len(self.workers)]

    @rule(seconds=st.sampled_from((1.0, 6.0, 25.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.workers)
    @rule()
    def leases_run_out(self) -> None:
        """Whoever had a lane may find that somebody else has it now."""
        self.clock.advance(LEASE + 1)
        self.lease(len(ACCOUNTS))

    def kept(self, delivery: Delivery) -> Kept:
        return next(kept for kept in self.lanes[delivery.account].kept if kept.id == delivery.message)

    def teardown(self) -> None:
        try:
            self.workers.clear()
            self.deliver_the_rest()
            for lane in self.lanes.values():
                for kept in lane.kept:
                    message = self.run(self.store.message(kept.id))
                    assert message is not None
                    assert message.deliveries[0].state == kept.state
                    assert kept.state != "pending"
        finally:
            self.run(self.world.leave(self.store))

    def deliver_the_rest(self) -> None:
        self.clock.advance(1000)
        while any(lane.ready(self.clock()) for lane in self.lanes.values()):
            self.lease(len(ACCOUNTS))
            for worker in self.workers:
                index = self.workers.index(worker)
                self.fetch(index)
                self.settle(index, [("delivered", 0.0)] * len(worker.hand), 0.0, 0.0)
            self.workers.clear()


@pytest.fixture
def world(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Empty stores of the engine, one after the other, on one clock."""
    with asyncio.Runner() as runner:
        if engine == "sqlite":
            yield SqliteWorld(runner, tmp_path)
            return
        server: Server = request.getfixturevalue("postgres_server")
        world = PostgresWorld(runner)
        runner.run(world.open(server))
        yield world
        runner.run(world.close())


class SqliteWorld:
    """A new file each time."""

    def __init__(self, runner: asyncio.Runner, directory: Path) -> None:
        self.runner = runner
        self.clock = VirtualClock()
        self._directory = directory
        self._count = 0

    async def empty_store(self) -> Store:
        self._count += 1
        return await open_store(f"sqlite:///{self._directory}/{self._count}.db", clock=self.clock)

    async def leave(self, store: Store) -> None:
        await store.close()


class PostgresWorld:
    """The same schema, emptied each time: connections are dear."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.clock = VirtualClock()

    async def open(self, server: Server) -> None:
        file = ClockFile(server)
        self.clock.show_to(file.show)
        self._schema = a_schema(server, file)
        url = await self._schema.__aenter__()
        self._store = await open_store(url, clock=self.clock)
        self._admin = await asyncpg.connect(url)

    async def close(self) -> None:
        await self._admin.close()
        await self._store.close()
        await self._schema.__aexit__(None, None, None)

    async def empty_store(self) -> Store:
        # Not truncate, which makes every table of each day anew.
        tables = ("pending", "dead", "bodies", "messages", "lanes", "lane_names")
        await self._admin.execute(";".join(f"delete from {table}" for table in tables))
        return self._store

    async def leave(self, store: Store) -> None:
        """It is emptied for the next."""


# The statements of both are the same for the most part; a step takes five times as long on PostgreSQL.
@pytest.mark.parametrize(("engine", "examples"), [("sqlite", 50), ("postgres", 30)], ids=ENGINES)
def test_whatever_happens_nothing_is_lost_and_each_lane_has_one_owner(world: World, examples: int) -> None:
    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
