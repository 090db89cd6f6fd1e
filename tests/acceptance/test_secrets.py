"""No secret in clear: a whole service is run with known secrets, and everything that it leaves is searched for them."""

import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import urllib3

from fotahook.contract.keys import generate_secret_key
from fotahook.service.credentials import SCOPES
from tests.cli.processes import Running, fotahook, running
from tests.deadlines import DEADLINE
from tests.postgres import Server, a_schema
from tests.testing.receivers import receiving

ACCOUNT = "0000123456-00001"
WRONG = "a-wrong-secret-that-somebody-tried"
STORE_PASSWORD = "a-password-of-the-store"


@dataclass
class Run:
    """A service at work, what must stay secret, and what was answered where no secret belongs."""

    service: Running
    http: urllib3.PoolManager
    secrets: set[str] = field(default_factory=set)
    answers: list[bytes] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return self.http.request(method, self.service.url + path, body=body, headers=headers)

    def show(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        """The status of an answer in which no secret belongs."""
        answer = self.ask(method, path, body, headers)
        self.answers += [answer.data, *(f"{name}: {value}".encode() for name, value in answer.headers.items())]
        return answer.status

    def tell(self, member: str, answer: urllib3.BaseHTTPResponse) -> str:
        """A secret that an answer shows this once."""
        secret: str = answer.json()[member]
        self.secrets.add(secret)
        return secret


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def by(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization}


def spellings(secret: str) -> Iterable[bytes]:
    """A secret as it is, within base64, and decoded where it is base64 itself."""
    plain = secret.encode()
    yield plain
    # Where it begins in a group of three decides how it reads; the ends depend on what is beside it.
    yield from (base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3))
    with contextlib.suppress(ValueError):
        decoded = base64.b64decode(secret.removeprefix("whsec_").encode() + b"==", altchars=b"-_")
        if len(decoded) >= 16:
            yield from (decoded, decoded.hex().encode())


def found(secrets: Iterable[str], where: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (place, secret)
        for secret in secrets
        for place, content in where.items()
        if any(spelling in content for spelling in spellings(secret))
    ]


def create(kind: str, store: str, folder: Path, key: str) -> str:
    granted = ("--all-accounts", "--scope", ",".join(SCOPES), "--store", store, "--json")
    done = fotahook("admin", kind, "create", "known", *granted, cwd=folder, FOTAHOOK_SECRET_KEY=key)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told["clientSecret" if kind == "client" else "password"]


def live(run: Run, client_secret: str, password: str, receiver: str) -> None:
    """All that has to do with secrets, well and badly."""
    ours = basic("known", client_secret)
    token_path, grant = "/api/ts/v1/oauth2/token", b"grant_type=client_credentials"
    first = run.tell("access_token", run.ask("POST", token_path, grant, by(ours)))
    revoke = f"grant_type=client_credentials&token={first}".encode()
    assert run.ask("POST", "/api/ts/v1/oauth2/revoke", revoke, by(ours)).status == 200
    assert run.show("POST", token_path, grant, by(basic("known", WRONG))) == 401
    assert run.show("POST", token_path, grant, by(basic(WRONG, client_secret))) == 401
    bearer = "Bearer " + run.tell("access_token", run.ask("POST", token_path, grant, by(ours)))
    assert run.show("GET", "/v1/accounts", b"", by(f"Bearer {first}")) == 401

    session_path = "/api/m2m/v1/session"
    wrong = json.dumps({"username": "known", "password": WRONG}).encode()
    assert run.show("POST", f"{session_path}/login", wrong, by(bearer)) == 400
    swapped = json.dumps({"username": password, "password": "known"}).encode()
    assert run.show("POST", f"{session_path}/login", swapped, by(bearer)) == 400
    right = json.dumps({"username": "known", "password": password}).encode()
    session = run.tell("sessionToken", run.ask("POST", f"{session_path}/login", right, by(bearer)))
    both = {**by(bearer), "VZ-M2M-Token": session}
    reset = json.dumps({"oldPassword": password}).encode()
    run.tell("newPassword", run.ask("PUT", f"{session_path}/password/actions/reset", reset, both))
    dev = b'{"username": "dev", "password": "dev-password"}'
    ended = run.tell("sessionToken", run.ask("POST", f"{session_path}/login", dev, by(bearer)))
    assert run.ask("POST", f"{session_path}/logout", b"", {**both, "VZ-M2M-Token": ended}).status == 200

    keys = f"/v1/accounts/{ACCOUNT}/signing-keys"
    run.tell("secret", run.ask("POST", keys, b"", both))
    callback = f"/api/fota/v2/callbacks/{ACCOUNT}"
    assert run.show("PUT", callback, json.dumps({"url": receiver}).encode(), both) == 200
    for method, path, body in (
        ("GET", callback, b""),
        ("PUT", callback, json.dumps({"url": f"https://user:{WRONG}@example.com/"}).encode()),
        ("PUT", callback, f"{{{WRONG}".encode()),
        ("GET", f"/v1/accounts/{ACCOUNT}?token={WRONG}", b""),
        ("GET", keys, b""),
        ("GET", "/v1/signing-key", b""),
        ("GET", f"/v1/accounts/{ACCOUNT}/signing-key", b""),
        ("GET", "/v1/audit", b""),
        ("POST", f"/v1/accounts/{ACCOUNT}/messages", b"{}"),
        ("POST", f"/v1/accounts/{ACCOUNT}/messages", b"[]"),
        ("GET", f"/v1/accounts/{ACCOUNT}/messages", b""),
        ("GET", f"/v1/accounts/{ACCOUNT}/callbacks", b""),
        ("POST", f"/v1/accounts/{ACCOUNT}/redeliver", b'{"state": "delivered", "since": "2020-01-01T00:00:00Z"}'),
        ("GET", "/metrics", b""),
        ("GET", "/v1/stats", b""),
        ("GET", "/openapi.json", b""),
        ("GET", "/readyz", b""),
        ("GET", "/nothing", b""),
    ):
        assert run.show(method, path, body, both) < 500
    run.answers.append(events(run.service.url, bearer))


def events(url: str, bearer: str) -> bytes:
    """What a stream of events begins with."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as peer:
        peer.sendall(f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\r\n".encode())
        return peer.recv(65536)


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server: Server = request.getfixturevalue("postgres_server")
    async with a_schema(server) as url:
        # The server believes everybody, so any password is a good one.
        yield url.replace("postgres@", f"postgres:{STORE_PASSWORD}@", 1)


async def columns(store: str, folder: Path) -> dict[str, bytes]:
    """Everything that the store keeps, by the file or the column."""
    if store.startswith("sqlite"):
        return {file.name: file.read_bytes() for file in folder.glob("store.db*")}
    kept: dict[str, bytes] = {}
    connection = await asyncpg.connect(store)
    try:
        for table in await connection.fetch("select tablename from pg_tables where schemaname = current_schema()"):
            for row in await connection.fetch(f'select * from "{table["tablename"]}"'):
                for column, value in row.items():
                    place = f"{table['tablename']}.{column}"
                    kept[place] = kept.get(place, b"") + b"\n" + as_bytes(value)
    finally:
        await connection.close()
    return kept


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def test_no_secret_is_left_in_clear_anywhere(store: str, tmp_path: Path) -> None:
    key = generate_secret_key()
    # The store's first service makes it.
    with running("serve", "--port", "0", "--store", store, cwd=tmp_path, FOTAHOOK_SECRET_KEY=key) as service:
        service.stop()
    client_secret, password = (create(kind, store, tmp_path, key) for kind in ("client", "user"))
    flags = ("--dev", "--port", "0", "--store", store, "--log-requests")
    with (
        receiving() as receiver,
        running("serve", *flags, cwd=tmp_path, FOTAHOOK_SECRET_KEY=key) as service,
        urllib3.PoolManager(retries=False) as http,
    ):
        run = Run(service, http, {key, client_secret, password, WRONG, STORE_PASSWORD, "dev-secret", "dev-password"})
        live(run, client_secret, password, receiver.url)
        rotate = ("admin", "client", "rotate", "known", "--store", store, "--json")
        run.secrets.add(json.loads(fotahook(*rotate, cwd=tmp_path).stdout)["clientSecret"])
        service.stop()
        ready = service.ready.encode()
        audit = fotahook("admin", "audit", "--limit", "0", "--json", "--store", store, cwd=tmp_path).stdout.encode()
    kept = await columns(store, tmp_path)
    log = service.log.read_bytes()
    # So that nothing was searched for in vain.
    assert len(run.secrets) == 14
    assert len(audit.splitlines()) > 6
    assert log.count(b"\n") > 20
    assert any(b"127.0.0.1" in content for content in kept.values())
    assert found(["127.0.0.1"], {"log": log})
    answers = {f"answer {number}": answer for number, answer in enumerate(run.answers)}
    assert found(run.secrets, {**kept, "log": log, "ready line": ready, "audit log": audit, **answers}) == []
