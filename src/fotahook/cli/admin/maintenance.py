"""`fotahook admin migrate` and `prune`: maintenance of a store, whether the service runs or not."""

import asyncio
from typing import Annotated, Final

from cyclopts import Parameter

from fotahook.contract.urls import without_password
from fotahook.delivery.policy import DAY
from fotahook.store import migrate_store, open_store
from fotahook.store.records import Retention

from ..shared.configuration import PREFIX
from ..shared.progress import counting
from ..shared.stores import DEFAULT_STORE, KeepBytes, KeepDays, StoreFlags, check_exists, store_file
from ..shared.tables import print_json

PAUSE_SECONDS: Final = 0.01
"""Pause between two steps of pruning, in which a service on the same file gets its turn."""


def migrate(*, flags: StoreFlags = DEFAULT_STORE) -> None:
    """Bring a store that an older fotahook made to this one's schema.

    Stop the service and back its store up first. Each migration is one transaction, so running this twice, or in two
    places at once, does no harm. A store that does not exist is made.

    Example: fotahook admin migrate --store sqlite:///fotahook.db
    """
    store_file("--store", flags.store)
    done = asyncio.run(migrate_store(flags.store))
    url = without_password(flags.store)
    if flags.as_json:
        print_json({"before": done.before, "after": done.after, "applied": done.applied})
    elif not done.applied:
        print(f"{url} has schema {done.after}, as it should: nothing to do")
    elif done.before == 0:
        print(f"{url} was made, with schema {done.after}")
    else:
        print(f"{url} went from schema {done.before} to {done.after}: {', '.join(done.applied)}")


def prune(
    *,
    keep_days: Annotated[KeepDays, Parameter(env_var=f"{PREFIX}KEEP_DAYS")] = 30.0,
    keep_bytes: Annotated[KeepBytes, Parameter(env_var=f"{PREFIX}KEEP_BYTES")] = None,
    flags: StoreFlags = DEFAULT_STORE,
) -> None:
    """Remove now what a service removes gradually: the bytes of old messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Ids stay, so that duplicates are still recognized.

    Example: fotahook admin prune --keep-days 7
    """
    check_exists("--store", flags.store)
    bodies, size = asyncio.run(_prune(flags.store, Retention(seconds=keep_days * DAY, bytes=keep_bytes)))
    if flags.as_json:
        print_json({"bodies": bodies, "bytes": size})
    else:
        print(f"{without_password(flags.store)}: removed the bytes of {bodies} messages, {size} in all")


async def _prune(url: str, retention: Retention) -> tuple[int, int]:
    """Number and size of the removed bodies."""
    bodies = size = 0
    store = await open_store(url)
    try:
        with counting(None, "pruned") as count:
            while (step := await store.prune(retention)).more:
                bodies, size = bodies + step.bodies, size + step.bytes
                count(bodies)
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await store.close()
    return bodies, size
