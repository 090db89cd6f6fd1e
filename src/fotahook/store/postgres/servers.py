"""The servers that a PostgreSQL URL names, in libpq's two spellings, and the one among them that accepts writes."""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakKeyDictionary

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Db: TypeAlias = "Connection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

CONNECT_SECONDS: Final = 5.0
STAGGER_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 1.0
PROMOTION_SECONDS: Final = 0.5

_DEFAULT_PORT: Final = 5432
_ADDRESS: Final = re.compile(r"^(\[[^\]]*\]|[^:@]*)(?::(\d+))?$")
_FORM: Final = (
    "not the URL of a PostgreSQL server; use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with the password "
    "percent-encoded (an @ as %40), and several servers as HOST:PORT,HOST:PORT"
)


class NotPrimary(OSError):
    """A server answers, and accepts no writes."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Server(NamedTuple):
    """The run of a server that a connection leads to: its start, and the timeline of its history. A promotion begins a
    new timeline, so a former primary that comes back has an older one than its successor."""

    started_at: object
    timeline: int


def addresses_of(url: str) -> Sequence[Address]:
    """The addresses in a URL: ``//a:1,b:2/db`` or ``//?host=a,b&port=1,2``. ValueError (no secrets) for none."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        # As the driver does, which takes a second @ for a part of the host.
        if listed := parts.netloc.split("@", 1)[-1]:
            # What is no address stays in one part.
            found = [_ADDRESS.sub(r"\1 \2", one).split(" ") for one in listed.split(",")]
            given = [(unquote(host.strip("[]")), int(port or _DEFAULT_PORT)) for host, port in found]
        else:
            hosts = ",".join(query.get("host", ())).split(",")
            ports = ",".join(query.get("port", [str(_DEFAULT_PORT)])).split(",")
            given = list(zip(hosts, map(int, ports * (len(hosts) if len(ports) == 1 else 1)), strict=True))
        if parts.scheme != "postgresql" or not all(0 < port < 65536 for _, port in given):
            raise ValueError(_FORM)
        return [Address(host, port) for host, port in given if host]
    except ValueError:
        # The error of urlsplit or of int() may quote a part of the password.
        raise ValueError(_FORM) from None


class Servers:
    """Connects to the server that accepts writes, wherever it is. Several are asked beside each other, so that one that
    hangs delays nothing, and a standby is asked until it is promoted. One whose timeline is older than one that was
    seen is a former primary, which would lose what it accepts: it is left out."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.addresses = addresses_of(url)
        self.looked_at = 0.0
        self._timeline = 0
        self._servers: WeakKeyDictionary[Connection, Server | None] = WeakKeyDictionary()

    async def connect(self, dsn: object = None, /, **options: Any) -> Connection:  # any argument of asyncpg.connect
        """A new connection; OSError or a PostgresError if no server accepts writes within CONNECT_SECONDS."""
        async with asyncio.timeout(CONNECT_SECONDS):
            return await (self._first(options) if len(self.addresses) > 1 else self._connect(None, options))

    async def look(self, connection: "Connection | None" = None) -> bool:
        """Ask all servers for their timelines, beside each other; whether one has a newer one than this connection's: a
        primary is left that was not away for long enough to be missed while another was promoted."""
        self.looked_at = time.monotonic()
        if len(self.addresses) > 1:
            looks = [asyncio.wait_for(self._connect(address, {}), LOOK_SECONDS) for address in self.addresses]
            for found in await asyncio.gather(*looks, return_exceptions=True):
                if not isinstance(found, BaseException):
                    found.terminate()
        server = None if connection is None else self._servers[connection]
        return server is not None and server.timeline < self._timeline

    def end_others(self, connection: Connection) -> bool:
        """End the open connections to another server than that of this one; whether there were any."""
        server = self._servers[connection]
        known = {} if server is None else self._servers
        others = [other for other, its in known.items() if its != server and not other.is_closed()]
        for other in others:
            other.terminate()
        return bool(others)

    async def _first(self, options: Mapping[str, Any]) -> Connection:
        searches = [
            asyncio.create_task(self._search(address, STAGGER_SECONDS * number, options))
            for number, address in enumerate(self.addresses)
        ]
        found, pending = None, set(searches)
        try:
            while pending and found is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                found = next((search for search in done if search.exception() is None), None)
        finally:
            await discard([search for search in searches if search is not found])
        return (found or searches[0]).result()

    async def _search(self, address: Address, delay: float, options: Mapping[str, Any]) -> Connection:
        """A connection to the server at an address, once it accepts writes."""
        await asyncio.sleep(delay)
        while True:
            with contextlib.suppress(NotPrimary):
                return await self._connect(address, options)
            await asyncio.sleep(PROMOTION_SECONDS)

    async def _connect(self, address: Address | None, options: Mapping[str, Any]) -> Connection:
        """A connection to one of several servers, which must accept writes; to the only one if no address is given."""
        host, port = address or (None, None)
        connection: Connection = await asyncpg.connect(self._url, host=host, port=port, **options)
        try:
            server = await _server_of(connection)
            if address is not None:
                if server is None or server.timeline < self._timeline:
                    raise NotPrimary(f"{address} accepts no writes")
                self._timeline = server.timeline
        except BaseException:
            connection.terminate()
            raise
        self._servers[connection] = server
        return connection


async def discard(searches: Sequence[asyncio.Task[Connection]]) -> None:
    """End searches that are no longer needed, with the connections that they found."""
    for search in searches:
        search.cancel()
    for result in await asyncio.gather(*searches, return_exceptions=True):
        if not isinstance(result, BaseException):
            result.terminate()


async def _server_of(connection: Connection) -> Server | None:
    """The server that a connection leads to; None if it accepts no writes."""
    found = await connection.fetchrow(
        "select pg_postmaster_start_time() as started_at, case when pg_is_in_recovery() "
        "or current_setting('default_transaction_read_only') = 'on' then null "
        "else pg_walfile_name(pg_current_wal_lsn()) end as file"
    )
    if found is None or found["file"] is None:
        return None
    # The name of a file of the log begins with its timeline, in eight hexadecimal digits.
    return Server(found["started_at"], int(found["file"][:8], 16))
