"""`fotahook admin`: clients and users, straight into the store."""

import json
from asyncio import to_thread
from pathlib import Path

import pytest

from fotahook.contract.keys import fingerprint
from fotahook.store import open_store
from fotahook.store.base import Credential

from .conftest import Run, is_one_line


async def stored(kind: str, name: str, file: str = "fotahook.db") -> Credential | None:
    store = await open_store(f"sqlite:///{file}")
    try:
        return await store.credential(kind, name)
    finally:
        await store.close()


async def test_a_client_gets_a_secret_that_is_kept_as_a_hash_alone(run: Run, tmp_path: Path) -> None:
    flags = ("--account", "1", "--account", "2", "--scope", "publish", "--json")
    said = await to_thread(run, "admin", "client", "create", "campaigns", *flags)
    shown = json.loads(said.out)
    found = await stored("client", "campaigns")
    assert found is not None
    assert found.secret_hash == fingerprint(shown["clientSecret"])
    assert (found.accounts, found.scopes) == (("1", "2"), ("publish",))


async def test_a_user_may_do_everything_unless_told_otherwise(run: Run) -> None:
    shown = json.loads((await to_thread(run, "admin", "user", "create", "ops", "--json")).out)
    found = await stored("user", "ops")
    assert found is not None
    assert found.secret_hash == fingerprint(shown["password"])
    assert (found.accounts, found.scopes) == (None, ("callbacks", "publish", "operate"))


@pytest.mark.parametrize(
    "arguments",
    [("a:b",), ("x", "--scope", "everything"), ("x", "--account", "a/b"), ("x", "--store", "mysql://x")],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    said = run("admin", "client", "create", *arguments)
    assert said.code == 2
    assert is_one_line(said.err)


def test_a_name_is_given_once(run: Run) -> None:
    assert run("admin", "user", "create", "ops").code == 0
    said = run("admin", "user", "create", "ops")
    assert said.code == 2
    assert "already" in said.err


def test_a_file_that_is_no_store_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("something else entirely")
    said = run("admin", "user", "create", "ops", "--store", "sqlite:///s.db")
    assert said.code == 1
    assert is_one_line(said.err)
    assert "s.db" in said.err


def test_the_store_may_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOTAHOOK_STORE", "sqlite:///elsewhere.db")
    assert run("admin", "user", "create", "ops").code == 0
    assert (tmp_path / "elsewhere.db").exists()
