"""`fotahook admin migrate` and `prune`: the upkeep of a store."""

import json
from asyncio import run as run_async
from asyncio import to_thread
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from fotahook.store import open_store
from fotahook.store.records import Attempt, Health, LaneVerdict, NewMessage, Settlement
from fotahook.store.sql import load_migrations
from tests.migrations import add_migration

from .conftest import Run, is_one_line
from .processes import fotahook, running

ACCOUNT = "0000123456-00001"
SCHEMA = load_migrations("sqlite")[-1].number


def test_migrate_reports_what_it_did(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("admin", "migrate").out == f"sqlite:///fotahook.db was made, with schema {SCHEMA}\n"
    assert "nothing to do" in run("admin", "migrate").out
    add_migration(monkeypatch)
    result = run("admin", "migrate", "--json")
    name = f"{SCHEMA + 1:04}_extra"
    assert json.loads(result.out) == {"before": SCHEMA, "after": SCHEMA + 1, "applied": [name]}
    add_migration(monkeypatch, "create table more (id integer primary key);")
    result = run("admin", "migrate", "--store", "sqlite:///fotahook.db")
    assert result.out.startswith(f"sqlite:///fotahook.db went from schema {SCHEMA + 1} to {SCHEMA + 2}: ")


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("admin", "user", "create", "ops"), ("admin", "prune")])
def test_an_older_store_is_refused_with_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    run("admin", "migrate")
    add_migration(monkeypatch)
    result = run(*command)
    assert result.code == 1
    assert is_one_line(result.err)
    advice = f"has schema {SCHEMA} and this fotahook works with {SCHEMA + 1}: "
    assert f"{advice}run fotahook admin migrate --store sqlite:///fotahook.db" in result.err


def test_a_newer_store_is_refused_with_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as next_version:
        add_migration(next_version)
        run("admin", "migrate")
    for command in (("serve", "--port", "0"), ("admin", "migrate")):
        result = run(*command)
        assert result.code == 1
        assert is_one_line(result.err)
        assert "install the newer fotahook" in result.err


def test_a_store_that_cannot_be_opened_is_named(run: Run) -> None:
    result = run("admin", "migrate", "--store", "sqlite:///absent/store.db")
    assert result.code == 1
    assert is_one_line(result.err)
    assert "absent/store.db" in result.err


async def settle_some(count: int) -> None:
    """Accept so many messages and deliver each but the last."""
    store = await open_store("sqlite:///fotahook.db")
    try:
        await store.register(ACCOUNT, "https://receiver.example/", actor="test")
        await store.accept([NewMessage(account=ACCOUNT, body=b"{}") for _ in range(count)])
        (lease,) = await store.lease(1, 30)
        attempt = Attempt(started_at=1.0, url=None, outcome="delivered")
        done = [
            Settlement(delivery=delivery, state="delivered", attempts=1, strikes=0, attempt=attempt)
            for delivery in await store.fetch(lease, count - 1)
        ]
        await store.settle(lease, done, LaneVerdict(health=Health()), keep=0)
    finally:
        await store.close()


async def test_pruning_tells_how_much_went(run: Run) -> None:
    await settle_some(451)
    assert json.loads((await to_thread(run, "admin", "prune", "--json")).out) == {"bodies": 0, "bytes": 0}
    result = await to_thread(run, "admin", "prune", "--keep-days", "0")
    assert result.out == "sqlite:///fotahook.db: removed the bytes of 450 messages, 900 in all\n"
    assert json.loads((await to_thread(run, "admin", "prune", "--keep-bytes", "0", "--json")).out)["bodies"] == 0


@pytest.mark.parametrize(
    "flags",
    [("--keep-days", "-1"), ("--keep-days", "4000"), ("--keep-bytes", "-1"), ("--store", "mysql://x")],
    ids=" ".join,
)
def test_invalid_arguments_are_refused(run: Run, flags: tuple[str, ...]) -> None:
    result = run("admin", "prune", *flags)
    assert result.code == 2
    assert is_one_line(result.err)
    assert flags[0] in result.err


def test_pruning_goes_on_beside_a_running_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_async(settle_some(451))
    # The store has data, and no service that made a key file ran on it.
    key = urlsafe_b64encode(bytes(32)).decode()
    with running("serve", "--port", "0", cwd=tmp_path, FOTAHOOK_SECRET_KEY=key):
        done = fotahook("admin", "prune", "--keep-days", "0", "--json", cwd=tmp_path)
        assert json.loads(done.stdout) == {"bodies": 450, "bytes": 900}
