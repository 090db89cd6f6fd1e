"""Versions of a store's schema: the number of the last migration that it had."""

import shlex
from collections.abc import Sequence

from .queries import Migration
from .records import Record, WrongSchema


class Migrated(Record, frozen=True, kw_only=True):
    """What `fotahook admin migrate` did: the schema before (0 for a store that was not there) and after."""

    before: int
    after: int
    applied: tuple[str, ...]
    """Names of the migrations, in order."""


def check_version(version: int, wanted: int, url: str) -> None:
    """WrongSchema, with what to do, if a store's schema is not the one this version of fotahook works with."""
    if version > wanted:
        raise WrongSchema(
            f"the store {url} has schema {version}, of a newer fotahook, and this one works with {wanted}: "
            "install the newer fotahook"
        )
    if version < wanted:
        raise WrongSchema(
            f"the store {url} has schema {version} and this fotahook works with {wanted}: "
            f"run fotahook admin migrate --store {shlex.quote(url)}"
        )


def next_steps(version: int, migrations: Sequence[Migration]) -> Sequence[Migration]:
    """What one transaction applies: a store that is not there yet is made whole, any other gets one step."""
    if version == 0:
        return migrations
    return [migration for migration in migrations if migration.number > version][:1]
