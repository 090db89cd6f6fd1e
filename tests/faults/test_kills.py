"""SIGKILL at every step boundary: nothing accepted is lost, and nothing is sent twice but what was in hand.

FAULT_ROUNDS=20 adds so many random seeds, told in the tests' names; FAULT_SEEDS="7 8" repeats some.
"""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from fotahook.cli import main
from fotahook.store import open_store

from .ledger import Verdict
from .schedule import Fault, Step, seeds
from .world import World, a_world

MANY: Final = tuple(f"0000123456-{number:05}" for number in range(1, 13))
STEADY_KILLED: Final = Fault("all", "SIGKILL")


async def live_through(world: World, *points: str) -> Verdict:
    """A service that is killed at one fault point after the other, and then lives."""
    service = await world.add("all")
    async with world.publishing():
        for point in points:
            await service.start(point)
            await world.died(service)
        await service.start()
    await world.settle()
    return await checked(world)


async def checked(world: World) -> Verdict:
    verdict = await world.check()
    assert verdict.holds, verdict
    assert await sent_after_settled(world) == []
    return verdict


async def sent_after_settled(world: World) -> list[str]:
    """What was not in hand at a kill, since it was settled, and came again."""
    came = Counter(message_id for _, message_id, _ in world.ledger.arrivals)
    last = {message_id: at for at, message_id, _ in world.ledger.arrivals if came[message_id] > 1}
    since = time.time() - time.monotonic()
    store = await open_store(world.store)
    try:
        found = [await store.message(message_id) for message_id in last]
    finally:
        await store.close()
    settled = {one.id: one.deliveries[0].settled_at for one in found if one is not None}
    return [message_id for message_id, at in last.items() if at + since > (settled[message_id] or 0.0)]


# The numbers let each process get well under way before it dies.
async def test_a_kill_around_accept(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, roles=()) as world:
        await live_through(world, "accept.before:20", "accept.after:20")
        # Committed, but not answered: the publisher asks again and learns that it was accepted.
        assert world.repeated >= 1


async def test_a_kill_around_lease(tmp_path: Path) -> None:
    # Lanes are kept while there is more in them: few are leased twice.
    async with a_world("sqlite", tmp_path, roles=(), accounts=MANY) as world:
        await live_through(world, "lease.before:2", "lease.after:1")


async def test_a_kill_around_the_handing_over_of_new_messages(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, roles=(), accounts=MANY) as world:
        await live_through(world, "hand.before:10", "hand.after:10")


async def test_a_kill_around_fetch(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, roles=()) as world:
        await live_through(world, "fetch.before:8", "fetch.after:8")


async def test_a_kill_around_an_attempt(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, roles=()) as world:
        # Sent, but not settled: at least that one comes again.
        assert (await live_through(world, "deliver.before:15", "deliver.after:15")).duplicates


async def test_a_kill_around_settle(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, roles=()) as world:
        assert (await live_through(world, "settle.before:10", "settle.after:10")).duplicates


@pytest.mark.parametrize("seed", seeds(default=(1,)))
async def test_a_kill_after_every_step_and_at_random_beside_another_service(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    numbers = {"accept": 20, "lease": 1, "fetch": 2, "deliver": 5, "settle": 2}
    async with a_world("postgres", tmp_path, roles=("all",), accounts=MANY) as world:
        async with world.publishing():
            # Who is killed leaves its lanes to the others, when the leases have ended.
            async with asyncio.TaskGroup() as deaths:
                for verb, times in numbers.items():
                    service = await world.add("all")
                    # What is before a step is after another one.
                    await service.start(f"{verb}.after:{times}")
                    deaths.create_task(world.died(service))
                await world.run([Step(chance.randint(1, 200), (STEADY_KILLED,), number=0, length=0)])
            del world.nodes[1:]
        await world.settle()
        await checked(world)


# The variable


@pytest.mark.parametrize(
    ("flags", "fault", "says"),
    [(["--dev"], "accept.afterwards", "one of accept.before, accept.after"), ([], "accept.after", "need --dev")],
)
def test_a_fault_point_that_cannot_be_meant_is_a_usage_error(
    flags: list[str],
    fault: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FOTAHOOK_FAULT", fault)
    assert main(["serve", "--store", f"sqlite:///{tmp_path}/store.db", *flags]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
