"""A backup taken while the service runs holds everything that was accepted before, and a service runs on it again."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from fotahook.client import OperatorClient
from fotahook.contract.operator import BatchMessage
from fotahook.service.credentials import DEV_CLIENT
from tests.faults.machines import SECRETS
from tests.postgres import Server, binaries

from ..cli.processes import running

ACCOUNT = "0000123456-00001"
PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


def publish(client: OperatorClient, count: int) -> list[str]:
    answers = client.publish_batch([BatchMessage(ACCOUNT, {"n": number}) for number in range(count)])
    return [answer.id for answer in answers if hasattr(answer, "id")]


def holds(client: OperatorClient, ids: Sequence[str]) -> bool:
    return all(client.message(message_id).size for message_id in ids)


def documented(beginning: str) -> str:
    """The block of docs/operating.md that begins like this."""
    (block,) = [text for text in re.findall(r"```(?:sh|text)\n(.*?)```", PAGE, re.DOTALL) if text.startswith(beginning)]
    return str(block)


def test_a_sqlite_store_is_backed_up_while_it_is_served(tmp_path: Path) -> None:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path) as service:
        with OperatorClient(service.url, *DEV_CLIENT, proxy="") as client:
            before = publish(client, 200)
            subprocess.run(["sh", "-ec", documented("python3 -c")], cwd=tmp_path, check=True, umask=0o022)
            # Whoever reads the copy reads the messages, and with the key signs as the service.
            for name in ("backup.db", "backup.db.key"):
                assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
            publish(client, 10)
        assert service.stop() == 0
    (tmp_path / "restored").mkdir()
    for name in ("fotahook.db", "fotahook.db.key"):
        shutil.copy(tmp_path / name.replace("fotahook", "backup"), tmp_path / "restored" / name)
    with (
        running("serve", "--dev", "--port", "0", cwd=tmp_path / "restored") as service,
        OperatorClient(service.url, *DEV_CLIENT, proxy="") as client,
    ):
        assert len(before) == 200
        assert holds(client, before)
        # The key is the same one: what signed before signs now.
        assert (tmp_path / "restored" / "fotahook.db.key").read_text() == (tmp_path / "fotahook.db.key").read_text()


@pytest.fixture
def databases(postgres_server: Server) -> Iterator[tuple[str, str]]:
    """The URLs of two empty databases."""
    names = [f"backup_{uuid4().hex}" for _ in range(2)]
    asyncio.run(execute(postgres_server.url, *(f"create database {name}" for name in names)))
    parts = urlsplit(postgres_server.url)
    first, second = (urlunsplit(parts._replace(path=f"/{name}")) for name in names)
    yield first, second
    asyncio.run(execute(postgres_server.url, *(f"drop database {name} with (force)" for name in names)))


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def test_a_postgres_store_is_dumped_while_it_is_served(databases: tuple[str, str], tmp_path: Path) -> None:
    source, target = databases
    flags = ("--dev", "--port", "0", "--store")
    dump, _, restore = documented("pg_dump").splitlines()
    with running("serve", *flags, source, cwd=tmp_path, **SECRETS) as service:
        with OperatorClient(service.url, *DEV_CLIENT, proxy="") as client:
            before = publish(client, 200)
            run_with(dump, source, tmp_path)
            publish(client, 10)
        assert service.stop() == 0
    run_with(restore, target, tmp_path)
    with (
        running("serve", *flags, target, cwd=tmp_path, **SECRETS) as service,
        OperatorClient(service.url, *DEV_CLIENT, proxy="") as client,
    ):
        assert len(before) == 200
        assert holds(client, before)


def run_with(command: str, url: str, folder: Path) -> None:
    """A documented command of PostgreSQL's, for this database."""
    program, *arguments = re.sub(r"postgresql://\S+", url, command).split()
    subprocess.run([binaries() / program, *arguments], cwd=folder, check=True, capture_output=True)
