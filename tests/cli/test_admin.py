"""`fotahook admin`: clients and users, straight into the store."""

import json
from asyncio import to_thread
from pathlib import Path

import pytest

from fotahook.cli.admin.credentials import format_age
from fotahook.contract.keys import fingerprint
from fotahook.store import open_store
from fotahook.store.records import Credential

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
    assert found.secret_hash.startswith(b"$argon2id$")
    assert shown["password"].encode() not in found.secret_hash
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


@pytest.mark.parametrize(
    "arguments",
    [("client", "list"), ("user", "revoke", "ops"), ("client", "grant", "x", "--all-accounts"), ("prune",)],
    ids=" ".join,
)
def test_a_path_misspelt_makes_no_store(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    said = run("admin", *arguments, "--store", "sqlite:///misspelt.db")
    assert (said.code, said.out) == (2, "")
    assert said.err == "fotahook: --store sqlite:///misspelt.db: there is no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_the_store_may_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOTAHOOK_STORE", "sqlite:///elsewhere.db")
    assert run("admin", "user", "create", "ops").code == 0
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("kind", ["client", "user"])
def test_what_is_granted_is_listed_changed_and_revoked(run: Run, kind: str) -> None:
    run("admin", kind, "create", "first", "--account", "1", "--account", "2", "--scope", "publish")
    run("admin", kind, "create", "second")
    columns, first, second = run("admin", kind, "list").out.splitlines()
    assert columns.split("\t") == ["name", "accounts", "scopes", "created", "age"]
    assert first.split("\t")[:3] == ["first", "1 2", "publish"]
    assert second.split("\t")[:3] == ["second", "(all)", "callbacks publish operate"]
    granted = json.loads(run("admin", kind, "grant", "first", "--all-accounts", "--json").out)
    assert (granted["accounts"], granted["scopes"]) == (None, ["publish"])
    granted = json.loads(run("admin", kind, "grant", "first", "--account", "3", "--scope", "operate", "--json").out)
    assert (granted["accounts"], granted["scopes"]) == (["3"], ["operate"])
    assert run("admin", kind, "revoke", "second").out == "name\trevoked\nsecond\tyes\n"
    listed = json.loads(run("admin", kind, "list", "--json").out)
    assert {name: listed[name] for name in ("name", "accounts", "scopes")} == {
        "name": "first",
        "accounts": ["3"],
        "scopes": ["operate"],
    }
    assert listed["ageSeconds"] >= 0
    assert listed["createdAt"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("grant", "app"), "give --account, --all-accounts or --scope"),
        (("grant", "app", "--account", "1", "--all-accounts"), "give one of them"),
        (("grant", "app", "--scope", "everything"), "no such scope"),
        (("grant", "absent", "--scope", "publish"), "no client 'absent'"),
        (("revoke", "absent"), "no client 'absent'"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...], told: str) -> None:
    run("admin", "client", "create", "app")
    said = run("admin", "client", *arguments)
    assert said.code == 2
    assert is_one_line(said.err)
    assert told in said.err


@pytest.mark.parametrize(("seconds", "age"), [(-5, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (90_000, "1d")])
def test_an_age_is_shown_in_its_largest_unit(seconds: int, age: str) -> None:
    assert format_age(seconds) == age
