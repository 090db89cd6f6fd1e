"""Loads SQL from the folder of each store: named statements in ``queries.sql``, numbered ``migrations/``."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_ROOT = files(__package__ or "")


class Migration(NamedTuple):
    """One step of the schema: its number, its name (`0001_initial`) and its SQL."""

    number: int
    name: str
    sql: str


def load_queries(engine: str) -> Mapping[str, str]:
    """The statements of ``<engine>/queries.sql`` by name, without comments (a driver would parse them every time)."""
    _, *parts = _NAME.split((_ROOT / engine / "queries.sql").read_text())
    return {name: _strip_comments(sql) for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def load_migrations(engine: str) -> tuple[Migration, ...]:
    """The steps of ``<engine>/migrations`` in order."""
    scripts = (_ROOT / engine / "migrations").iterdir()
    return tuple(
        sorted(
            Migration(int(script.name[:4]), script.name.removesuffix(".sql"), script.read_text())
            for script in scripts
            if script.name.endswith(".sql")
        )
    )


def _strip_comments(sql: str) -> str:
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")
