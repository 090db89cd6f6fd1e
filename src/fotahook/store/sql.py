"""The SQL files of each engine: named statements in ``queries.sql``, numbered ``migrations/``; and schema versions."""

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from .records import Record, WrongSchema

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_TYPE = re.compile(r"::\w+( precision)?(\[\])?")
_IN = re.compile(r"\bin (:\w+(?:::\w+\[\])?)")
_ROOT = files(__package__ or "")


class Migration(NamedTuple):
    number: int
    name: str
    sql: str


class Migrated(Record, frozen=True, kw_only=True):
    """What a migration did: the schema version before (0 for a new store) and after, and what it applied, in order."""

    before: int
    after: int
    applied: tuple[str, ...]


def load_queries(engine: str) -> Mapping[str, str]:
    """The statements of an engine by name, shared or its own; without comments, which drivers parse every time."""
    shared = (_ROOT / "queries.sql").read_text()
    if engine == "sqlite":
        shared = _IN.sub(r"in (select value from json_each(\1))", _TYPE.sub("", shared))
    else:
        shared = _IN.sub(r"= any(\1)", shared.replace(":now", "store_now()"))
    _, *parts = _NAME.split(f"{shared}\n{(_ROOT / engine / 'queries.sql').read_text()}")
    statements = (_COMMENT.sub("", sql).strip().removesuffix(";") for sql in parts[1::2])
    return dict(zip(parts[::2], statements, strict=True))


def load_migrations(engine: str) -> tuple[Migration, ...]:
    """The migrations of ``<engine>/migrations`` in order."""
    scripts = ((script.name.partition("."), script) for script in (_ROOT / engine / "migrations").iterdir())
    found = [Migration(int(name[:4]), name, file.read_text()) for (name, _, kind), file in scripts if kind == "sql"]
    return tuple(sorted(found))


def next_migrations(version: int, migrations: Sequence[Migration]) -> Sequence[Migration]:
    """What one transaction applies: all migrations to a new store, one to any other."""
    missing = [migration for migration in migrations if migration.number > version]
    return missing if version == 0 else missing[:1]


def check_version(version: int, migrations: Sequence[Migration], url: str) -> int:
    """The version; WrongSchema, saying what to do, unless it is that of the schema that these migrations make."""
    wanted = migrations[-1].number
    if version == wanted:
        return version
    advice = f" and this fotahook works with {wanted}: run fotahook admin migrate --store {shlex.quote(url)}"
    if version > wanted:
        advice = f", of a newer fotahook, and this one works with {wanted}: install the newer fotahook"
    raise WrongSchema(f"the store {url} has schema {version}{advice}")
