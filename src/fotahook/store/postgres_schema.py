"""The schema of a PostgreSQL store: whatever schema the connection's search path names, brought up to date."""

from typing import Final

from .base import StoreUnavailable
from .postgres_link import Db
from .queries import load_migrations

MIGRATION_SECONDS: Final = 600.0
"""How long the steps may take, or another process that is at them is waited for."""


async def migrate(db: Db) -> None:
    """Apply the migrations that the schema has not had, one process at a time."""
    migrations = load_migrations("postgres")
    version = await _version(db)
    if version < migrations[-1].number:
        async with db.transaction():
            await db.execute(f"set local lock_timeout = '{MIGRATION_SECONDS}s'", timeout=MIGRATION_SECONDS)
            await db.execute(f"set local statement_timeout = '{MIGRATION_SECONDS}s'")
            lock = "select pg_advisory_xact_lock(hashtext('fotahook'), hashtext(current_schema()))"
            await db.execute(lock, timeout=MIGRATION_SECONDS)
            await db.execute("create table if not exists fotahook_migrations (number integer primary key)")
            # Another process may have been here meanwhile.
            version = await _version(db)
            for migration in migrations:
                if migration.number > version:
                    await db.execute(migration.sql, timeout=MIGRATION_SECONDS)
                    await db.execute("insert into fotahook_migrations (number) values ($1)", migration.number)
    if version > migrations[-1].number:
        raise StoreUnavailable(
            f"the store was written by a newer fotahook (schema {version}, this one knows {migrations[-1].number})"
        )


async def _version(db: Db) -> int:
    if await db.fetchval("select to_regclass('fotahook_migrations') is null"):
        return 0
    version: int = await db.fetchval("select coalesce(max(number), 0) from fotahook_migrations")
    return version
