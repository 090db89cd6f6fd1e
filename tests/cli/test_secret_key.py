"""The secret key: made once, read ever after, shown never."""

import asyncio
import json
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

import pytest
import urllib3

from fotahook.cli.shared.errors import UsageError
from fotahook.cli.shared.sources import PREVIOUS, VARIABLE, secret_key
from fotahook.contract.keys import generate_secret_key, parse_secret_key
from fotahook.contract.signing import parse_public_key, verify
from fotahook.store import SqliteStore
from tests.testing.receivers import receiving

from .conftest import Run
from .processes import Running, fotahook, running
from .test_listen import wait_until


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_key_is_made_once_beside_the_store_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    key = secret_key(store)
    assert len(key) == 32
    assert secret_key(store) == key
    assert [file.name for file in tmp_path.iterdir()] == ["s.db.key"]
    assert stat.S_IMODE((tmp_path / "s.db.key").stat().st_mode) == 0o600


def test_processes_that_begin_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(secret_key, [str(tmp_path / "s.db")] * 32))
    assert len(keys) == 1


def test_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = generate_secret_key()
    monkeypatch.setenv(VARIABLE, text)
    assert secret_key(str(tmp_path / "s.db")) == parse_secret_key(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "short", "not base64 at all but long enough to be one!"])
def test_an_invalid_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.db.key").write_text(text)
    with pytest.raises(ValueError, match=r"s\.db\.key") as refused:
        secret_key(str(tmp_path / "s.db"))
    assert not text or text not in str(refused.value)
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=VARIABLE):
        secret_key(str(tmp_path / "s.db"))


@pytest.mark.parametrize("variable", [VARIABLE, PREVIOUS])
def test_no_store_is_made_with_an_invalid_key(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "short")
    result = run("serve", "--port", "0")
    assert result.code == 2
    assert variable in result.err
    assert list(tmp_path.iterdir()) == []


# The store knows its key


STORE = "fotahook.db"


def serve(folder: Path, **variables: str) -> AbstractContextManager[Running]:
    return running("serve", "--dev", "--port", "0", cwd=folder, **variables)


def refused(folder: Path, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    done = fotahook("serve", "--port", "0", cwd=folder, stdin=b"", **variables)
    assert done.returncode == 1
    return done.stderr


def public_key(service: Running) -> str:
    answer = urllib3.request("GET", f"{service.url}/v1/accounts/a/signing-key", retries=False)
    key: str = answer.json()["public"]
    return key


def test_a_missing_key_is_not_replaced_beside_a_store_that_was_used(tmp_path: Path) -> None:
    with serve(tmp_path) as service:
        before = public_key(service)
    key = tmp_path / f"{STORE}.key"
    kept = key.read_text()
    key.unlink()
    said = refused(tmp_path)
    assert "fotahook.db.key is missing" in said
    assert "restore it from the backup" in said
    assert not key.exists()
    key.write_text(kept)
    with serve(tmp_path) as service:
        assert public_key(service) == before
        assert service.stop() == 0
        # It can be read by others, unlike the one that was made.
        assert f"{key.name} can be read by other users: chmod 600" in service.log.read_text()
    key.unlink()
    assert fotahook("admin", "reset-key", cwd=tmp_path).returncode == 0
    with serve(tmp_path) as service:
        assert public_key(service) != before
        assert service.stop() == 0
        # As before, and not again.
        assert service.log.read_text().count("can be read by other users") == 1
    actions = fotahook("admin", "audit", "--json", cwd=tmp_path).stdout
    assert json.loads(actions.splitlines()[0])["action"] == "secret_key.change"


async def test_a_missing_key_is_not_replaced_beside_an_older_store_with_data(tmp_path: Path) -> None:
    """One of a version that did not mark keys."""
    store = await SqliteStore.open(tmp_path / STORE)
    await store.pause("a")
    await store.close()
    assert "is missing" in await asyncio.to_thread(refused, tmp_path)


def test_another_key_is_refused_and_a_key_is_changed_with_an_overlap(tmp_path: Path) -> None:
    first, second = generate_secret_key(), generate_secret_key()
    with serve(tmp_path, FOTAHOOK_SECRET_KEY=first) as service:
        before = public_key(service)
    for variables in ({}, {"FOTAHOOK_SECRET_KEY": second}, {PREVIOUS: second, VARIABLE: second}):
        said = refused(tmp_path, variables)
        assert "is missing" in said or "not the one that the store was used with" in said
        assert first not in said
    with receiving() as receiver:
        variables = {"FOTAHOOK_SECRET_KEY": second, PREVIOUS: first}
        with serve(tmp_path, **variables) as service:
            after = public_key(service)
            for command in (("callbacks", "register", "a", receiver.url), ("publish", "a", "-")):
                flags = ("--local", "--base-url", service.url)
                assert fotahook(*command, *flags, cwd=tmp_path, stdin=b"{}").returncode == 0
            wait_until(lambda: bool(receiver.bodies))
        for key in (before, after):
            verify(receiver.headers[0], b"{}", public_keys=[parse_public_key(key)], now=time.time())
    assert before != after
    # Once it is changed, the former key alone is refused.
    assert "not the one" in refused(tmp_path, {VARIABLE: first})
    with serve(tmp_path, FOTAHOOK_SECRET_KEY=second) as service:
        assert public_key(service) == after
