"""`fotahook admin`: clients and users, straight into the store."""

import getpass
import json
from asyncio import to_thread
from pathlib import Path

import pytest

from fotahook.contract.keys import fingerprint
from fotahook.store import open_store
from fotahook.store.records import Credential
from tests.deadlines import DEADLINE

from .conftest import Run, is_one_line


async def stored(kind: str, name: str, file: str = "fotahook.db") -> Credential | None:
    store = await open_store(f"sqlite:///{file}")
    try:
        return await store.credential(kind, name)
    finally:
        await store.close()


async def test_only_the_hash_of_a_clients_secret_is_stored(run: Run, tmp_path: Path) -> None:
    flags = ("--account", "1", "--account", "2", "--scope", "publish", "--json")
    result = await to_thread(run, "admin", "client", "create", "campaigns", *flags)
    shown = json.loads(result.out)
    found = await stored("client", "campaigns")
    assert found is not None
    assert found.secret_hash == fingerprint(shown["clientSecret"])
    assert (found.accounts, found.scopes) == (("1", "2"), ("publish",))


async def test_nothing_is_granted_unless_said(run: Run) -> None:
    result = await to_thread(run, "admin", "user", "create", "ops", "--json")
    found = await stored("user", "ops")
    assert found is not None
    assert found.secret_hash.startswith(b"$argon2id$")
    assert json.loads(result.out)["password"].encode() not in found.secret_hash
    assert (found.accounts, found.scopes, found.networks, found.expires_at) == ((), (), (), None)
    assert "ops may do nothing yet: grant --scope, and --account or --all-accounts" in result.err
    flags = (
        "--all-accounts",
        "--scope",
        "read,bodies",
        "--network",
        "192.0.2.0/24,2001:db8::/32",
        "--expires-days",
        "2",
    )
    assert "may do nothing" not in (await to_thread(run, "admin", "client", "create", "app", *flags)).err
    found = await stored("client", "app")
    assert found is not None
    assert found.expires_at is not None
    assert (found.accounts, found.scopes) == (None, ("read", "bodies"))
    assert found.networks == ("192.0.2.0/24", "2001:db8::/32")
    assert abs(found.expires_at - found.created_at - 2 * 86_400) < DEADLINE
    rows = (await to_thread(run, "admin", "client", "list")).out.splitlines()
    assert rows[0].split("\t")[-2:] == ["networks", "expires"]
    await to_thread(run, "admin", "client", "grant", "app", "--expires-days", "0")
    found = await stored("client", "app")
    assert found is not None
    assert found.expires_at is None


async def test_a_secret_is_rotated_with_an_overlap(run: Run) -> None:
    before = json.loads((await to_thread(run, "admin", "client", "create", "app", "--json")).out)["clientSecret"]
    result = await to_thread(run, "admin", "client", "rotate", "app", "--overlap-hours", "1", "--json")
    after = json.loads(result.out)["clientSecret"]
    found = await stored("client", "app")
    assert found is not None
    assert found.secret_hash == fingerprint(after) != fingerprint(before)
    assert "no client 'absent'" in (await to_thread(run, "admin", "client", "rotate", "absent")).err


def test_the_audit_log_is_printed_newest_first(run: Run) -> None:
    run("admin", "client", "create", "app", "--account", "1")
    secret = json.loads(run("admin", "client", "rotate", "app", "--json").out)["clientSecret"]
    run("admin", "client", "revoke", "app")
    lines = run("admin", "audit").out.splitlines()
    assert lines[0].split("\t") == ["at", "actor", "from", "action", "account", "subject", "detail"]
    assert [line.split("\t")[3] for line in lines[1:]] == ["client.revoke", "client.rotate", "client.create"]
    exported = run("admin", "audit", "--limit", "0", "--json").out
    entries = [json.loads(line) for line in exported.splitlines()]
    assert {entry["actor"] for entry in entries} == {f"admin {getpass.getuser()}"}
    assert secret not in exported
    assert entries[-1]["detail"] == "accounts=1 scopes=none"
    assert len(run("admin", "audit", "--limit", "2").out.splitlines()) == 3
    assert len(run("admin", "audit", "--account", "1").out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("a:b",), ("x", "--scope", "everything"), ("x", "--account", "a/b"), ("x", "--store", "mysql://x")],
    ids=" ".join,
)
def test_invalid_arguments_are_refused(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("admin", "client", "create", *arguments)
    assert result.code == 2
    assert is_one_line(result.err)


def test_a_name_is_given_once(run: Run) -> None:
    assert run("admin", "user", "create", "ops").code == 0
    result = run("admin", "user", "create", "ops")
    assert result.code == 2
    assert "already" in result.err


def test_a_file_that_is_no_store_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("something else entirely")
    result = run("admin", "user", "create", "ops", "--store", "sqlite:///s.db")
    assert result.code == 1
    assert is_one_line(result.err)
    assert "s.db" in result.err


@pytest.mark.parametrize(
    "arguments",
    [("client", "list"), ("user", "revoke", "ops"), ("client", "grant", "x", "--all-accounts"), ("prune",)],
    ids=" ".join,
)
def test_a_path_misspelt_makes_no_store(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run("admin", *arguments, "--store", "sqlite:///misspelt.db")
    assert (result.code, result.out) == (2, "")
    assert result.err == "fotahook: --store sqlite:///misspelt.db: there is no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_the_store_may_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOTAHOOK_STORE", "sqlite:///elsewhere.db")
    assert run("admin", "user", "create", "ops").code == 0
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("kind", ["client", "user"])
def test_credentials_are_listed_changed_and_revoked(run: Run, kind: str) -> None:
    run("admin", kind, "create", "first", "--account", "1", "--account", "2", "--scope", "publish")
    run("admin", kind, "create", "second", "--all-accounts", "--scope", "callbacks,publish")
    columns, first, second = run("admin", kind, "list").out.splitlines()
    assert columns.split("\t") == ["name", "accounts", "scopes", "created"]
    assert first.split("\t")[:3] == ["first", "1 2", "publish"]
    assert second.split("\t")[:3] == ["second", "(all)", "callbacks publish"]
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
    assert listed["createdAt"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("grant", "app"), "give --account, --all-accounts or --scope"),
        (("grant", "app", "--account", "1", "--all-accounts"), "give one of them"),
        (("grant", "app", "--scope", "everything"), "no such scope"),
        (("grant", "absent", "--scope", "publish"), "no client 'absent'"),
        (("revoke", "absent"), "no client 'absent'"),
    ],
)
def test_an_invalid_change_is_refused(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    run("admin", "client", "create", "app")
    result = run("admin", "client", *arguments)
    assert result.code == 2
    assert is_one_line(result.err)
    assert complaint in result.err
