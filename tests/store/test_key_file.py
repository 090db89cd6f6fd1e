"""The secret key of a store: a missing or another one is refused."""

from pathlib import Path

import pytest

from fotahook.store import SqliteStore
from fotahook.store.key_file import check_key, check_key_exists, key_file, read_or_make_key, readable_by_others

ONE, OTHER = b"1" * 32, b"2" * 32


async def test_a_missing_key_is_refused_beside_a_store_that_was_used(tmp_path: Path) -> None:
    file = str(tmp_path / "store.db")
    store = await SqliteStore.open(file)
    try:
        await check_key_exists(store, file)
        await check_key(store, ONE)
        with pytest.raises(ValueError, match="restore it from the backup"):
            await check_key_exists(store, file)
        key_file(file).write_text("x")
        await check_key_exists(store, file)
    finally:
        await store.close()


def test_what_is_no_key_is_refused_by_its_file_and_not_shown(tmp_path: Path) -> None:
    file = str(tmp_path / "store.db")
    assert read_or_make_key(file) == read_or_make_key(file)
    key_file(file).write_text("secret-and-no-key")
    with pytest.raises(ValueError, match=r"store\.db\.key: ") as refused:
        read_or_make_key(file)
    assert "secret-and" not in str(refused.value)


async def test_another_key_is_refused_unless_the_previous_one_is_given(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    try:
        await check_key(store, ONE)
        await check_key(store, ONE)
        with pytest.raises(ValueError, match="not the one that the store was used with"):
            await check_key(store, OTHER)
        await check_key(store, OTHER, ONE)
        await check_key(store, OTHER)
    finally:
        await store.close()


def test_files_that_others_may_read_are_found(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.touch(0o600)
    assert readable_by_others(str(file)) == []
    key_file(str(file)).touch()
    key_file(str(file)).chmod(0o640)
    assert readable_by_others(str(file)) == [key_file(str(file))]
