"""The embedded store: one SQLite file in WAL mode, every commit synced, one dispatcher per file."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from .base import (
    Accepted,
    Attempt,
    Callback,
    Clock,
    Credential,
    Delivery,
    Health,
    Lane,
    LaneState,
    LaneVerdict,
    Lease,
    Message,
    NewMessage,
    Placement,
    Settlement,
    StoreUnavailable,
)
from .ids import MessageIds
from .queries import load_migrations, load_queries
from .writer import Reader, Writer

_BUSY_SECONDS: Final = 2.0
"""How long a write waits for another process that holds the file."""

Q: Final = load_queries("sqlite")


class SqliteStore:
    """A Store in one file. Make one with ``open``; several processes may read and accept, one may dispatch."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._ids = MessageIds(clock)
        self._work = asyncio.Event()
        self._dispatcher_lock: int | None = None
        writing, reading = _connect(path), _connect(path)
        self._writer = Writer(writing)
        self._reader = Reader(reading)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock = time.time) -> "SqliteStore":
        """The store in this file, made and migrated as needed. StoreUnavailable says what is wrong with the file."""
        path = Path(path)
        try:
            # It holds message bodies, which may echo a password: nobody else's business.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            store = cls(path, clock=clock)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot open the store {path}: {error}") from error
        try:
            await store._writer.run(_migrate)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._reader.close)
        if self._dispatcher_lock is not None:
            os.close(self._dispatcher_lock)
            self._dispatcher_lock = None

    # Callbacks

    async def register(self, account: str, url: str, *, actor: str) -> Callback:
        def job(db: sqlite3.Connection) -> Callback:
            now = self._clock()
            revision = _next_revision(db, account)
            change = {"account": account, "url": url, "revision": revision, "actor": actor, "now": now}
            db.execute(Q["put_callback"], change)
            db.execute(Q["add_history"], change)
            db.execute(Q["open_callback_lane"], change)
            return Callback(account=account, url=url, revision=revision, registered_at=now)

        callback = await self._writer.run(job)
        self._work.set()
        return callback

    async def deregister(self, account: str, *, actor: str) -> bool:
        def job(db: sqlite3.Connection) -> bool:
            if db.execute(Q["drop_callback"], {"account": account}).rowcount == 0:
                return False
            change = {"account": account, "url": None, "actor": actor, "now": self._clock()}
            db.execute(Q["add_history"], change | {"revision": _next_revision(db, account)})
            db.execute(Q["hold_callback_lane"], change)
            return True

        return await self._writer.run(job)

    async def callback(self, account: str) -> Callback | None:
        def job(db: sqlite3.Connection) -> Callback | None:
            row = db.execute(Q["callback"], {"account": account}).fetchone()
            return Callback(**row) if row else None

        return await self._reader.run(job)

    # Messages

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted]:
        digests = [hashlib.sha256(message.body).digest() for message in messages]

        def job(db: sqlite3.Connection) -> list[Accepted]:
            lanes: dict[tuple[str, str], dict[str, Any]] = {}
            answers = [
                self._accept(db, message, digest, lanes) for message, digest in zip(messages, digests, strict=True)
            ]
            for lane in lanes.values():
                db.execute(Q["recompute_due"], {"lane": lane["id"]})
            return answers

        accepted = await self._writer.run(job)
        self._work.set()
        return accepted

    def _accept(
        self,
        db: sqlite3.Connection,
        message: NewMessage,
        digest: bytes,
        lanes: dict[tuple[str, str], dict[str, Any]],
    ) -> Accepted:
        now = self._clock()
        if message.idempotency_key is not None:
            query = {"account": message.account, "idempotency_key": message.idempotency_key}
            known = db.execute(Q["known_message"], query).fetchone()
            if known is not None:
                db.execute(Q["count_duplicate"], {"seq": known["seq"]})
                return Accepted(id=known["id"], duplicate=True, conflict=known["sha256"] != digest)
        values = msgspec.structs.asdict(message) | {"id": self._ids.next(), "sha256": digest, "now": now}
        del values["consumers"]
        seq = db.execute(Q["add_message"], values).lastrowid
        for consumer in message.consumers:
            lane = lanes.get((message.account, consumer))
            if lane is None:
                lane = lanes[message.account, consumer] = _lane(db, message.account, consumer, now)
            delivery = {"lane": lane["id"], "seq": seq, "key": message.ordering_key, "clock": lane["clock"]}
            db.execute(Q["add_delivery"], delivery | {"now": now})
        return Accepted(id=values["id"])

    async def message(self, message_id: str) -> Message | None:
        def job(db: sqlite3.Connection) -> Message | None:
            row = db.execute(Q["message"], {"id": message_id}).fetchone()
            if row is None:
                return None
            seq = row.pop("seq")
            placements = tuple(_placement(found) for found in db.execute(Q["placements"], {"seq": seq}))
            return Message(**row, placements=placements)

        return await self._reader.run(job)

    async def attempts(self, message_id: str) -> list[Attempt]:
        def job(db: sqlite3.Connection) -> list[Attempt]:
            rows = db.execute(Q["attempts"], {"id": message_id})
            return [Attempt(**row | {"phases": msgspec.json.decode(row["phases"])}) for row in rows]

        return await self._reader.run(job)

    async def lanes(self, account: str) -> list[Lane]:
        def job(db: sqlite3.Connection) -> list[Lane]:
            now = self._clock()
            return [_lane_state(row, now) for row in db.execute(Q["lanes"], {"account": account})]

        return await self._reader.run(job)

    # Dispatching

    async def lease(self, limit: int, seconds: float) -> list[Lease]:
        if self._dispatcher_lock is None:
            self._dispatcher_lock = _lock_file(self._path)
            # Leases found now belong to a process that is gone.
            await self._writer.run(lambda db: db.execute(Q["forget_leases"]))

        def job(db: sqlite3.Connection) -> list[Lease]:
            now = self._clock()
            taken = db.execute(Q["lease"], {"now": now, "seconds": seconds, "limit": limit}).fetchall()
            return [_lease(db, row["id"], now) for row in taken]

        return await self._writer.run(job)

    async def fetch(self, lease: Lease, limit: int) -> list[Delivery]:
        def job(db: sqlite3.Connection) -> list[Delivery]:
            rows = db.execute(Q["fetch"], {"lane": lease.lane, "now": self._clock(), "limit": limit})
            return [_delivery(row) for row in rows]

        return await self._reader.run(job)

    async def settle(
        self, lease: Lease, settlements: Sequence[Settlement], verdict: LaneVerdict, *, keep: float
    ) -> Lease | None:
        def job(db: sqlite3.Connection) -> Lease | None:
            fence = db.execute(Q["fence"], {"lane": lease.lane, "token": lease.token}).fetchone()
            if fence is None:
                return None
            now = self._clock()
            for settlement in settlements:
                _settle(db, settlement, now)
            lane = {"lane": lease.lane, "now": now}
            if fence["revision"] == lease.revision:
                health = msgspec.structs.asdict(verdict.health)
                db.execute(Q["judge_lane"], lane | health | {"wait": verdict.wait, "pause": verdict.pause})
            db.execute(Q["keep_lane"], lane | {"keep": keep})
            return _lease(db, lease.lane, now) if keep > 0 else None

        kept = await self._writer.run(job)
        if kept is None:
            self._work.set()
        return kept

    async def due_in(self) -> float | None:
        def job(db: sqlite3.Connection) -> float | None:
            due = db.execute(Q["next_due"]).fetchone()["next"]
            return None if due is None else max(0.0, due - self._clock())

        return await self._reader.run(job)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()
        self._work.clear()

    # Credentials

    async def save_credential(self, credential: Credential) -> None:
        values = msgspec.structs.asdict(credential)
        values["accounts"] = None if credential.accounts is None else msgspec.json.encode(credential.accounts).decode()
        values["scopes"] = " ".join(credential.scopes)

        def job(db: sqlite3.Connection) -> None:
            db.execute(Q["drop_expired_credentials"], {"kind": credential.kind, "now": self._clock()})
            db.execute(Q["save_credential"], values)

        await self._writer.run(job)

    async def credential(self, kind: str, credential_id: str) -> Credential | None:
        def job(db: sqlite3.Connection) -> Credential | None:
            query = {"kind": kind, "id": credential_id, "now": self._clock()}
            row = db.execute(Q["credential"], query).fetchone()
            return _credential(row) if row else None

        return await self._reader.run(job)

    async def credentials(self, kind: str, owner: str) -> list[Credential]:
        def job(db: sqlite3.Connection) -> list[Credential]:
            query = {"kind": kind, "owner": owner, "now": self._clock()}
            return [_credential(row) for row in db.execute(Q["credentials"], query)]

        return await self._reader.run(job)

    async def drop_credentials(self, kind: str, ids: Collection[str]) -> None:
        def job(db: sqlite3.Connection) -> None:
            db.executemany(Q["drop_credential"], [{"kind": kind, "id": one} for one in ids])

        await self._writer.run(job)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.row_factory = _as_dict
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return connection


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _migrate(db: sqlite3.Connection) -> None:
    """Apply the migrations that this file has not had; the schema's version is the number of the last."""
    version = db.execute("pragma user_version").fetchone()["user_version"]
    migrations = load_migrations("sqlite")
    if version > migrations[-1].number:
        raise StoreUnavailable(
            f"the store was written by a newer fotahook (schema {version}, this one knows {migrations[-1].number})"
        )
    for migration in migrations:
        if migration.number > version:
            # Not executescript, which would commit: the whole step belongs to the writer's transaction.
            for statement in _statements(migration.sql):
                db.execute(statement)
            db.execute(f"pragma user_version = {migration.number}")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _lock_file(path: Path) -> int:
    """The dispatcher lock of a store's file; it goes with the process, however that ends."""
    lock = os.open(f"{path}.dispatcher", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreUnavailable(f"another process dispatches from {path}; stop it first") from error
    return lock


def _next_revision(db: sqlite3.Connection, account: str) -> int:
    last: int = db.execute(Q["last_revision"], {"account": account}).fetchone()["revision"]
    return last + 1


def _lane(db: sqlite3.Connection, account: str, consumer: str, now: float) -> dict[str, Any]:
    query = {"account": account, "consumer": consumer, "now": now}
    db.execute(Q["add_lane"], query)
    row: dict[str, Any] = db.execute(Q["lane"], query).fetchone()
    return row


def _lease(db: sqlite3.Connection, lane: int, now: float) -> Lease:
    row = db.execute(Q["leased_lane"], {"lane": lane, "now": now}).fetchone()
    keys = tuple((row.pop("signing_keys") or "").split())
    open_now = bool(row.pop("open"))
    return Lease(lane=row.pop("id"), open=open_now, signing_keys=keys, health=_health(row), **row)


def _health(row: dict[str, Any]) -> Health:
    return Health(**{name: row.pop(name) for name in ("failures", "window", "refused", "reason")})


def _delivery(row: dict[str, Any]) -> Delivery:
    return Delivery(message=row.pop("id"), **row)


def _settle(db: sqlite3.Connection, settlement: Settlement, now: float) -> None:
    delivery, attempt = settlement.delivery, settlement.attempt
    place: dict[str, Any] = {"lane": delivery.lane, "seq": delivery.seq, "now": now}
    change = place | {
        "state": "ready" if settlement.state == "pending" else settlement.state,
        "delay": settlement.delay,
        "attempts": settlement.attempts,
        "strikes": settlement.strikes,
        "outcome": attempt.outcome,
    }
    db.execute(Q["settle_delivery"], change)
    details = msgspec.structs.asdict(attempt) | {"phases": msgspec.json.encode(attempt.phases).decode()}
    db.execute(Q["add_attempt"], place | details)
    if delivery.ordering_key is not None and settlement.state != "pending":
        db.execute(Q["promote"], place | {"key": delivery.ordering_key})


def _placement(row: dict[str, Any]) -> Placement:
    state = "pending" if row["state"] in ("ready", "behind") else row["state"]
    return Placement(**row | {"state": state})


def _lane_state(row: dict[str, Any], now: float) -> Lane:
    paused, held, until = row.pop("paused"), row.pop("held"), row.pop("wait_until")
    state: LaneState = "paused" if paused else "held" if held else "waiting" if until > now else "open"
    return Lane(state=state, until=until if state == "waiting" else None, health=_health(row), **row)


def _credential(row: dict[str, Any]) -> Credential:
    accounts = None if row["accounts"] is None else tuple(msgspec.json.decode(row["accounts"]))
    return Credential(**row | {"accounts": accounts, "scopes": tuple(row["scopes"].split())})
