"""PgBouncer in front of PostgreSQL: session mode works, transaction mode is refused in words; TLS is verified.

The test server has no TLS of its own, so PgBouncer ends it here.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest
import trustme

from fotahook.store import open_store
from fotahook.store.records import NewMessage, StoreUnavailable
from tests.deadlines import DEADLINE
from tests.ports import unused_port
from tests.postgres import Server

from .conftest import ACCOUNT, URL, hint, lease_one

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
Pooler = Callable[..., AbstractContextManager[str]]


@pytest.fixture
async def database(postgres_server: Server) -> AsyncIterator[str]:
    """A database of its own: PgBouncer lets no search path through."""
    name = f"pooled_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute(f"create database {name}")
    yield name
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the user of PgBouncer may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="fotahook-pgbouncer-") as name:
        yield Path(name)


@pytest.fixture
def pooler(postgres_server: Server, database: str, folder: Path) -> Pooler:
    @contextmanager
    def run(mode: str, *settings: str) -> Iterator[str]:
        port = unused_port()
        config, users = folder / "pgbouncer.ini", folder / "users"
        users.write_text('"postgres" ""\n')
        config.write_text(
            "\n".join(
                [
                    "[databases]",
                    f"* = host=127.0.0.1 port={postgres_server.port} user=postgres",
                    "[pgbouncer]",
                    f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
                    f"auth_type = any\nauth_file = {users}\npool_mode = {mode}",
                    *settings,
                ]
            )
        )
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        with (folder / "log").open("wb") as log:
            # It refuses to run as root.
            user = "nobody" if os.getuid() == 0 else None
            if PGBOUNCER is None:
                raise FileNotFoundError("these tests need PgBouncer: apt-get install pgbouncer")
            process = subprocess.Popen([PGBOUNCER, str(config)], stdout=log, stderr=log, user=user)
        try:
            until = time.monotonic() + DEADLINE
            while not listens(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.01)
            yield f"postgresql://postgres@127.0.0.1:{port}/{database}"
        finally:
            process.kill()
            process.wait(DEADLINE)

    return run


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_store_works_behind_a_pooler_of_sessions(pooler: Pooler) -> None:
    with pooler("session") as url:
        store, other = await open_store(url), await open_store(url)
        try:
            await store.register(ACCOUNT, URL, actor="test")
            await store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
            # Through the pooler too, notifications arrive.
            await hint(other)
            lease = await lease_one(other)
            assert [each.body for each in await other.fetch(lease, 9)] == [b"{}"]
            await store.check()
        finally:
            await store.close()
            await other.close()


async def test_a_pooler_of_transactions_is_refused_in_words(pooler: Pooler) -> None:
    with pooler("transaction") as url, pytest.raises(StoreUnavailable, match="pool_mode = session"):
        await open_store(url)


async def test_the_servers_certificate_is_verified(pooler: Pooler, folder: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.crt")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    stranger.cert_pem.write_to_path(folder / "other.crt")
    files = f"client_tls_key_file = {folder}/server.key", f"client_tls_cert_file = {folder}/server.crt"
    tls = "client_tls_sslmode = require", *files
    with pooler("session", *tls) as url:
        verified = f"{url}?sslmode=verify-full&sslrootcert={quote(str(folder))}%2F"
        store = await open_store(f"{verified}ca.crt")
        await store.check()
        await store.close()
        for refused in (f"{verified}other.crt", f"{verified}ca.crt".replace("127.0.0.1", "localhost", 1)):
            with pytest.raises(StoreUnavailable, match=r"certificate|CERTIFICATE"):
                await open_store(refused)
        with pytest.raises(StoreUnavailable):
            await open_store(f"{url}?sslmode=disable")
