"""The harness is no good unless it finds bugs: each that is planted makes the ledger report what it breaks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from fotahook.store import open_store
from tests.deadlines import DEADLINE

from .ledger import Verdict
from .planted import LATE_SECONDS
from .schedule import Fault, Step
from .world import ACCOUNTS, GRACE_SECONDS, KEYS, World, a_world, until

KILLED: Final = Step(pause=1, faults=(Fault("all", "SIGKILL"),), number=0, length=0)
PATIENCE: Final = 2 * LATE_SECONDS
"""Seconds without an arrival after which what is missing is lost."""


async def found(
    world: World, provoke: Callable[[World], Awaitable[None]], what: Callable[[Verdict], Sequence[str]]
) -> Sequence[str]:
    """Provoke a bug while messages come in, again and again until the ledger reports it."""
    began = time.monotonic()
    while True:
        async with world.publishing():
            await world.progressed(50)
            await provoke(world)
        await world.settle(PATIENCE)
        verdict = await world.verdict()
        print(verdict)
        if what(verdict) or time.monotonic() > began + DEADLINE:
            return what(verdict)


async def kill(world: World) -> None:
    await world.run([KILLED])


async def settle_and_kill(world: World) -> None:
    store = await open_store(world.store)
    try:
        async with asyncio.timeout(DEADLINE):
            while (await store.backlog()).pending >= len(world.ledger.promises):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
    finally:
        await store.close()
    await kill(world)


async def deliver_while_the_next_of_each_key_waits(world: World) -> None:
    world.receivers.answering.clear()
    promised = len(world.ledger.promises)
    names = {(account, key) for account in ACCOUNTS for key in KEYS}

    def each_key_has_two() -> bool:
        fresh = [(one.account, one.key) for one in list(world.ledger.promises.values())[promised:]]
        return all(fresh.count(name) >= 2 for name in names)

    await until(each_key_has_two)
    world.receivers.answering.set()


async def lose_all_leases(world: World) -> None:
    # Each key always has a next message, so that whoever serves a lane goes on.
    world.receivers.seconds = 0.5
    # The store's clock says that all leases are over, and they are taken again; who had them goes on until it settles.
    async with world.suffering(Fault("clock", "40 days ahead")):
        await asyncio.sleep(2)
    # Until what the fault explains is over.
    await asyncio.sleep(GRACE_SECONDS)
    await world.progressed(200)


async def test_answers_before_the_commit_are_found(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, plant="accepted_before_committed") as world:
        assert await found(world, kill, lambda verdict: verdict.lost)


async def test_settling_before_sending_is_found(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, plant="settled_before_sent") as world:
        assert await found(world, settle_and_kill, lambda verdict: verdict.lost)


async def test_a_promotion_that_is_skipped_is_found(tmp_path: Path) -> None:
    async with a_world("sqlite", tmp_path, plant="promotion_skipped") as world:
        assert await found(world, deliver_while_the_next_of_each_key_waits, lambda verdict: verdict.lost)
        # What has no key arrives nevertheless.
        await until(lambda: all(world.ledger.promises[each].key is not None for each in world.ledger.missing))
        assert world.ledger.verdict().lost


async def test_settling_without_the_lease_is_found(tmp_path: Path) -> None:
    async with a_world("postgres", tmp_path, roles=("all", "dispatcher"), plant="fencing_removed") as world:
        assert await found(world, lose_all_leases, lambda verdict: verdict.unexplained)
