"""A dispatcher is lost while messages come in.

With TENANT_P99 set (`make faults`), the time is asserted in which lanes of a lost dispatcher are served again.
"""

import os
import time
from pathlib import Path

from fotahook.store import open_store

from .schedule import Fault
from .world import ACCOUNTS, LEASE_SECONDS, World, a_world, until


def first_after(world: World, moment: float) -> dict[str, float]:
    """When each account was first delivered to after a moment."""
    found: dict[str, float] = {}
    for at, message_id, _ in world.ledger.arrivals:
        if at > moment and message_id in world.ledger.promises:
            found.setdefault(world.ledger.promises[message_id].account, at)
    return found


async def test_the_lanes_of_a_lost_dispatcher_are_served_by_one_that_joined(tmp_path: Path) -> None:
    async with a_world("postgres", tmp_path, roles=("api",)) as world:
        async with world.publishing():
            await world.progressed(20)
            # Who only takes calls has leased nothing: a lease's token counts those before it.
            store = await open_store(world.store)
            assert {lease.token for lease in await store.lease(len(ACCOUNTS), 0)} == {1}
            await store.close()
            first = await world.join("dispatcher")
            await world.progressed(100)
            await world.join("dispatcher")
            world.nodes.remove(first)
            world.ledger.begin(Fault("dispatcher", "SIGKILL"), None, time.monotonic())
            await first.kill()
            killed = time.monotonic()
            await until(lambda: first_after(world, killed).keys() == set(ACCOUNTS))
        slowest = max(first_after(world, killed).values()) - killed
        print(f"all lanes are served again after {slowest:.1f} s; a lease lasts {LEASE_SECONDS:g} s")
        await world.settle()
        assert (await world.check()).holds
    if "TENANT_P99" in os.environ:
        assert slowest <= LEASE_SECONDS + 1
