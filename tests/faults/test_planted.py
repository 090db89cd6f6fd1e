"""The harness is no good unless it finds bugs: each that is planted makes the ledger report what it breaks."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from fotahook.store import open_store
from tests.deadlines import DEADLINE

from .schedule import Engine, Fault, Step
from .world import GRACE_SECONDS, LEASE_SECONDS, World, a_world

KILLED: Final = Step(pause=1, faults=(Fault("all", "SIGKILL"),), number=0, length=0)
PATIENCE: Final = 5.0
"""Seconds without an arrival after which what is missing is lost."""


async def settled_some(world: World) -> None:
    store = await open_store(world.store)
    try:
        async with asyncio.timeout(DEADLINE):
            while (await store.backlog()).pending >= len(world.ledger.promises):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
    finally:
        await store.close()


async def test_answers_before_the_commit_are_found(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, plant="accepted_before_committed") as world:
        async with world.publishing():
            await world.progressed(50)
            await world.run([KILLED])
        await world.settle(PATIENCE)
        assert (await world.check()).lost


async def test_settling_before_sending_is_found(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, plant="settled_before_sent") as world:
        async with world.publishing():
            await world.progressed(50)
            await settled_some(world)
            await world.run([KILLED])
        await world.settle(PATIENCE)
        assert (await world.check()).lost


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_a_promotion_that_is_skipped_is_found(engine: Engine, tmp_path: Path) -> None:
    async with a_world(engine, tmp_path, plant="promotion_skipped") as world:
        # The next message of a key is accepted while the one before it is delivered, and must be promoted.
        world.receivers.seconds = 0.1
        async with world.publishing():
            await world.progressed(50)
        await world.settle(PATIENCE)
        verdict = await world.check()
        assert verdict.lost
        assert all(world.ledger.promises[message_id].key is not None for message_id in verdict.lost)


async def test_settling_without_the_lease_is_found(tmp_path: Path) -> None:
    async with a_world("postgres", tmp_path, roles=("dispatcher", "api"), plant="fencing_removed") as world:
        # Each key always has a next message, so that whoever serves a lane goes on.
        world.receivers.seconds = 0.1
        async with world.publishing():
            await world.progressed(100)
            # The first one has all lanes, and loses them to the second one.
            await world.join("dispatcher")
            async with world.suffering(Fault("link to PostgreSQL", "black hole"), number=0):
                await asyncio.sleep(LEASE_SECONDS + 1)
            # Until what the fault explains is over.
            await asyncio.sleep(GRACE_SECONDS)
            await world.progressed(500)
        await world.settle(PATIENCE)
        assert (await world.check()).unexplained
