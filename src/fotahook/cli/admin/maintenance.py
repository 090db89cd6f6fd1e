"""`fotahook admin migrate` and `prune`: what keeps a store in order, beside a running service or without one."""

import asyncio
from typing import Annotated, Final

from cyclopts import Parameter

from fotahook.contract.urls import without_password
from fotahook.delivery.policy import DAY
from fotahook.store import Migrated, migrate_store, open_store
from fotahook.store.records import Retention

from ..shared.configuration import PREFIX
from ..shared.progress import counting
from ..shared.store_flags import check_retention, check_there, store_file
from ..shared.tables import print_json

StoreUrl = Annotated[str, Parameter(help="The service's store, or a listener's inbox.", env_var=f"{PREFIX}STORE")]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON.")]

PAUSE_SECONDS: Final = 0.01
"""Between two steps of pruning, so that a service on the same file gets its turn."""


def migrate(*, store: StoreUrl = "sqlite:///fotahook.db", as_json: Json = False) -> None:
    """Bring a store that an older fotahook made to this one's schema.

    Stop the service and back its store up first. Each migration is one transaction, so running this twice, or in two
    places at once, does no harm. A store that is not there yet is made.

    Example: fotahook admin migrate --store sqlite:///fotahook.db
    """
    store_file("--store", store)
    done = asyncio.run(migrate_store(store))
    if as_json:
        print_json({"before": done.before, "after": done.after, "applied": done.applied})
    else:
        print(_told(done, without_password(store)))


def _told(done: Migrated, url: str) -> str:
    if not done.applied:
        return f"{url} has schema {done.after}, as it should: nothing to do"
    if done.before == 0:
        return f"{url} was made, with schema {done.after}"
    return f"{url} went from schema {done.before} to {done.after}: {', '.join(done.applied)}"


def prune(
    *,
    store: StoreUrl = "sqlite:///fotahook.db",
    keep_days: Annotated[
        float,
        Parameter(help="Days that bytes of delivered and dead messages are kept.", env_var=f"{PREFIX}KEEP_DAYS"),
    ] = 30.0,
    keep_bytes: Annotated[
        int | None,
        Parameter(help="Size of the store beyond which the oldest go earlier.", env_var=f"{PREFIX}KEEP_BYTES"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove now what a service would remove by and by: the bytes of old messages that are delivered or dead.

    It works in small steps, whether the service runs or not. Ids stay, so that duplicates are known for what they are.

    Example: fotahook admin prune --keep-days 7
    """
    check_retention(keep_days, keep_bytes)
    check_there("--store", store)
    bodies, size = asyncio.run(_prune(store, Retention(seconds=keep_days * DAY, bytes=keep_bytes)))
    if as_json:
        print_json({"bodies": bodies, "bytes": size})
    else:
        print(f"{without_password(store)}: removed the bytes of {bodies} messages, {size} in all")


async def _prune(url: str, retention: Retention) -> tuple[int, int]:
    """How many bodies went, and of how many bytes."""
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
