"""The secret key: made once, read ever after, shown never."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fotahook.cli.shared.errors import Failure, UsageError
from fotahook.cli.shared.stores import VARIABLE, key_source, secret_key
from fotahook.contract.keys import generate_secret_key, parse_secret_key


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
    assert key_source(str(tmp_path / "s.db")) == VARIABLE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "short", "not base64 at all but long enough to be one!"])
def test_an_invalid_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.db.key").write_text(text)
    with pytest.raises(Failure, match=r"s\.db\.key") as refused:
        secret_key(str(tmp_path / "s.db"))
    assert not text or text not in str(refused.value)
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=VARIABLE):
        secret_key(str(tmp_path / "s.db"))
