"""SIGKILL at every step boundary: nothing accepted is lost, and nothing is sent twice but what was in hand.

tests/faults has kills at any moment, among other faults.

FAULT_ROUNDS=20 adds so many random seeds, told in the tests' names; FAULT_SEEDS="7 8" repeats some.
"""

import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest

from fotahook.cli import main
from fotahook.store import open_store
from tests.postgres import Server, a_schema

from .crashes import Service, World, a_world

MANY: Final = tuple(f"0000123456-{number:05}" for number in range(1, 13))
SHORT_LEASE: Final = ("--timeout", "1", "--connect-timeout", "1", "--lease", "6")
"""On PostgreSQL a lane is in dead hands until its lease has ended: the shortest that attempts of a second allow."""


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


async def live_through(world: World, *faults: str) -> None:
    """One service after the other, each killed at its fault point, and a last one that lives."""
    service = await world.start(faults[0])
    async with world.publishing():
        for following in (*faults[1:], None):
            await world.killed(service)
            service = await world.start(following)


# The numbers let each process get well under way before it dies.
async def test_a_kill_around_accept(store_url: str, tmp_path: Path) -> None:
    async with a_world(store_url, tmp_path) as world:
        await live_through(world, "accept.before:20", "accept.after:20")
        # Committed, but not answered: the publisher asks again and learns that it was accepted.
        assert world.repeated >= 1
        await world.check()


async def test_a_kill_around_lease(store_url: str, tmp_path: Path) -> None:
    # Lanes are kept while there is more in them: few are leased twice.
    async with a_world(store_url, tmp_path, accounts=MANY) as world:
        await live_through(world, "lease.before:2", "lease.after:1")
        await world.check()


async def test_a_kill_around_the_handing_over_of_new_messages(store_url: str, tmp_path: Path) -> None:
    async with a_world(store_url, tmp_path, accounts=MANY) as world:
        await live_through(world, "hand.before:10", "hand.after:10")
        await world.check()


async def test_a_kill_around_fetch(store_url: str, tmp_path: Path) -> None:
    async with a_world(store_url, tmp_path) as world:
        await live_through(world, "fetch.before:8", "fetch.after:8")
        await world.check()


async def test_a_kill_around_an_attempt(store_url: str, tmp_path: Path) -> None:
    async with a_world(store_url, tmp_path) as world:
        await live_through(world, "deliver.before:15", "deliver.after:15")
        # Sent, but not settled: at least that one comes again.
        assert max(world.received.values()) >= 2
        await world.check()


async def test_a_kill_around_settle(store_url: str, tmp_path: Path) -> None:
    async with a_world(store_url, tmp_path) as world:
        await live_through(world, "settle.before:10", "settle.after:10")
        assert max(world.received.values()) >= 2
        await world.check()


def seeds(default: Sequence[int] = (1, 2, 3)) -> Sequence[int]:
    rounds = int(os.environ.get("FAULT_ROUNDS", "0"))
    chosen = [random.SystemRandom().randrange(10**9) for _ in range(rounds)]
    return [int(seed) for seed in os.environ.get("FAULT_SEEDS", "").split()] or chosen or default


# Two services on one PostgreSQL: who is killed leaves its lanes to the other, when the leases have ended.


async def take_turns_dying(world: World, faults: Iterable[str], chance: random.Random) -> None:
    """One service after the other dies at its fault point, and one beside them now and then at any moment."""
    first, *others = faults
    steady, doomed = await world.start(), await world.start(first)
    async with world.publishing():
        for number, following in enumerate((*others, None)):
            if number % 4 == 2:
                world.receiver.after(chance.randint(1, 60), steady.kill)
                await world.killed(steady)
                steady = await world.start()
            await world.killed(doomed)
            if following is not None:
                doomed = await world.start(following)


@pytest.mark.parametrize("seed", seeds(default=(1,)))
async def test_a_kill_at_every_point_and_at_random_beside_another_service(
    seed: int, postgres_server: Server, tmp_path: Path
) -> None:
    numbers = {"accept": 20, "lease": 1, "fetch": 2, "deliver": 5, "settle": 2}
    faults = [f"{verb}.{side}:{times}" for verb, times in numbers.items() for side in ("before", "after")]
    async with a_schema(postgres_server) as url, a_world(url, tmp_path, *SHORT_LEASE, accounts=MANY) as world:
        await take_turns_dying(world, faults, random.Random(seed))
        await world.check()


async def first_tokens(world: World, service: Service) -> list[int]:
    """Publish to every account, and lease its lane for a moment: the lease's token counts who did so before."""
    assert service.client is not None
    for account in world.accounts:
        answer = await service.client.publish(account, b'{"n": 0}')
        world.accepted[answer.id] = b'{"n": 0}'
    store = await open_store(world.store)
    try:
        return [lease.token for lease in await store.lease(len(world.accounts), 0)]
    finally:
        await store.close()


async def test_one_takes_calls_and_two_deliver_of_whom_one_is_killed(postgres_server: Server, tmp_path: Path) -> None:
    async with a_schema(postgres_server) as url, a_world(url, tmp_path, *SHORT_LEASE, accounts=MANY) as world:
        api = await world.start(role="api")
        assert await first_tokens(world, api) == [1] * len(MANY)
        doomed, _ = await world.start(role="dispatcher"), await world.start(role="dispatcher")
        async with world.publishing():
            world.receiver.after(200, doomed.kill)
            await world.killed(doomed)
            world.going.set()
        await world.check()


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
