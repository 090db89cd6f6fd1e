"""The schema of a PostgreSQL store, in whatever schema the search path names; a table counts the migrations."""

from collections.abc import Sequence
from typing import Final

from ..sql import Migrated, Migration, check_version, load_migrations, next_migrations
from .connection import ConnectionPool
from .servers import Db

MIGRATION_SECONDS: Final = 600.0
"""How long a migration waits for another process that migrates, or for locks."""
LONGEST_SECONDS: Final = 86400.0
"""How long a statement of a migration may take: some write all rows of a table anew."""


async def create_or_check(db: Db, url: str) -> None:
    """Create the store if the schema has none; WrongSchema if it is another version's."""
    if await _version(db) == 0:
        await _step(db, load_migrations("postgres"), up_to=1)
    await check_schema(db, url)


async def check_schema(db: Db, url: str) -> None:
    """WrongSchema if the store is another version's."""
    check_version(await _version(db), load_migrations("postgres"), url)


async def migrate(db: Db, url: str) -> Migrated:
    """Apply the missing migrations, each in a transaction of its own."""
    migrations = load_migrations("postgres")
    before = after = await _version(db)
    applied: list[str] = []
    while after < migrations[-1].number:
        applied += await _step(db, migrations, up_to=migrations[-1].number)
        after = await _version(db)
    check_version(after, migrations, url)
    return Migrated(before=before, after=after, applied=tuple(applied))


async def migrate_url(url: str) -> Migrated:
    """`migrate` over a connection of its own."""
    pool = ConnectionPool(url)
    await pool.open()
    try:
        async with pool.connection() as db:
            return await migrate(db, pool.public_url)
    finally:
        await pool.close()


async def _step(db: Db, migrations: Sequence[Migration], *, up_to: int) -> list[str]:
    """One transaction, one process at a time; the names of what it applied, none if the store is at `up_to`."""
    async with db.transaction():
        await db.execute(f"set local lock_timeout = '{MIGRATION_SECONDS}s'", timeout=MIGRATION_SECONDS)
        await db.execute(f"set local statement_timeout = '{LONGEST_SECONDS}s'")
        lock = "select pg_advisory_xact_lock(hashtext('fotahook'), hashtext(current_schema()))"
        await db.execute(lock, timeout=MIGRATION_SECONDS)
        await db.execute("create table if not exists fotahook_migrations (number integer primary key)")
        # Another process may have been here meanwhile.
        version = await _version(db)
        todo = next_migrations(version, migrations) if version < up_to else ()
        for migration in todo:
            await db.execute(migration.sql, timeout=LONGEST_SECONDS)
            await db.execute("insert into fotahook_migrations (number) values ($1)", migration.number)
    return [migration.name for migration in todo]


async def _version(db: Db) -> int:
    if await db.fetchval("select to_regclass('fotahook_migrations') is null"):
        return 0
    return int(await db.fetchval("select coalesce(max(number), 0) from fotahook_migrations"))
