"""The next version of fotahook, as far as a store is concerned: one migration more than this one."""

from typing import Final

import pytest

from fotahook.store.postgres import connection as postgres_schema
from fotahook.store.sql import Migration
from fotahook.store.sqlite import connection as sqlite_schema

_SCHEMAS: Final = {"sqlite": sqlite_schema, "postgres": postgres_schema}


def add_migration(monkeypatch: pytest.MonkeyPatch, sql: str = "create table extra (id integer primary key);") -> None:
    """Both stores want a migration `extra` too from now on."""
    for engine, schema in _SCHEMAS.items():
        known: tuple[Migration, ...] = schema.load_migrations(engine)
        number = known[-1].number + 1
        more = (*known, Migration(number, f"{number:04}_extra", sql))
        monkeypatch.setattr(schema, "load_migrations", lambda engine, more=more: more)
