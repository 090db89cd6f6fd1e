"""The schema of a PostgreSQL store: whatever schema the search path names; a table counts the migrations."""

from collections.abc import Sequence
from typing import Final

from ..queries import Migration, load_migrations
from ..schema import Migrated, check_version, next_steps
from .connection import Db, Link

MIGRATION_SECONDS: Final = 600.0
"""How long a step may take, or another process that is at one is waited for."""


async def make_or_check(db: Db, url: str) -> None:
    """Make the store if the schema has none; WrongSchema if it is another version's."""
    if await _version(db) == 0:
        await _step(db, load_migrations("postgres"), up_to=1)
    await check_schema(db, url)


async def check_schema(db: Db, url: str) -> None:
    """WrongSchema if the store is another version's."""
    check_version(await _version(db), load_migrations("postgres")[-1].number, url)


async def migrate(db: Db, url: str) -> Migrated:
    """Apply the migrations that the schema has not had, each in a transaction of its own."""
    migrations = load_migrations("postgres")
    before = after = await _version(db)
    applied: list[str] = []
    while after < migrations[-1].number:
        applied += await _step(db, migrations, up_to=migrations[-1].number)
        after = await _version(db)
    check_version(after, migrations[-1].number, url)
    return Migrated(before=before, after=after, applied=tuple(applied))


async def migrate_at(url: str) -> Migrated:
    """`migrate` over a connection of its own."""
    link = Link(url)
    await link.open()
    try:
        async with link.connection() as db:
            return await migrate(db, link.shown)
    finally:
        await link.close()


async def _step(db: Db, migrations: Sequence[Migration], *, up_to: int) -> list[str]:
    """One transaction, one process at a time; what it applied, which is nothing where the store is at `up_to`."""
    async with db.transaction():
        await db.execute(f"set local lock_timeout = '{MIGRATION_SECONDS}s'", timeout=MIGRATION_SECONDS)
        await db.execute(f"set local statement_timeout = '{MIGRATION_SECONDS}s'")
        lock = "select pg_advisory_xact_lock(hashtext('fotahook'), hashtext(current_schema()))"
        await db.execute(lock, timeout=MIGRATION_SECONDS)
        await db.execute("create table if not exists fotahook_migrations (number integer primary key)")
        # Another process may have been here meanwhile.
        version = await _version(db)
        todo = next_steps(version, migrations) if version < up_to else ()
        for migration in todo:
            await db.execute(migration.sql, timeout=MIGRATION_SECONDS)
            await db.execute("insert into fotahook_migrations (number) values ($1)", migration.number)
    return [migration.name for migration in todo]


async def _version(db: Db) -> int:
    if await db.fetchval("select to_regclass('fotahook_migrations') is null"):
        return 0
    version: int = await db.fetchval("select coalesce(max(number), 0) from fotahook_migrations")
    return version
