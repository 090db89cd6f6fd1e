"""The application's record of its devices."""

import sqlite3
from pathlib import Path


class Ledger:
    """One row per device. A message can arrive twice, so writing a row again changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as db:
            db.execute("create table if not exists devices (imei text primary key, upgraded integer, reason text)")

    def note(self, imei: str, *, upgraded: bool, reason: str) -> None:
        """Record the result of a device's upgrade."""
        with self._open() as db:
            db.execute("insert or replace into devices values (?, ?, ?)", (imei, upgraded, reason))

    def upgraded(self) -> set[str]:
        """The devices whose upgrade succeeded."""
        return {imei for imei, upgraded, _ in self._rows() if upgraded}

    def failed(self) -> dict[str, str]:
        """The devices whose upgrade failed, with the reason."""
        return {imei: reason for imei, upgraded, reason in self._rows() if not upgraded}

    def _rows(self) -> list[tuple[str, bool, str]]:
        with self._open() as db:
            return db.execute("select imei, upgraded, reason from devices").fetchall()

    def _open(self) -> "_Closing":
        return _Closing(self._path)


class _Closing:
    """A connection for one block, committed and closed at its end."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.commit()
        self._db.close()
