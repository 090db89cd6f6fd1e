"""Resolves host names without threads, vets every address, and remembers answers briefly.

The connection goes to what was vetted: there is no second look-up. One name has at most one query under way, so a name
server that never answers costs the accounts of that name their time, and nobody else's.
"""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Final, NamedTuple

import aiodns

from fotahook.contract.addresses import Network, refusal

MIN_TTL: Final = 1.0
MAX_TTL: Final = 60.0
"""Bounds of how long an answer is remembered; between them the name server's own time to live counts."""
FAILURE_TTL: Final = 5.0
QUERY_SECONDS: Final = 5.0
"""Deadline of one look-up, all of its name servers and tries included."""
CACHE_LIMIT: Final = 4096

Lookup = Callable[[str], Awaitable[tuple[Sequence[str], float]]]
"""Resolves a name: its addresses and their time to live in seconds. OSError if it does not resolve."""


class BlockedAddress(OSError):
    """An address that nothing may be sent to."""


class NameUnresolved(OSError):
    """A host name that does not resolve, or not in time."""


class _Entry(NamedTuple):
    addresses: Sequence[str]
    error: str
    expires: float


class Resolver:
    """Resolves and vets host names. A name with one forbidden address is refused whole: mixed answers are an attack."""

    def __init__(
        self,
        allowed: Sequence[Network],
        *,
        lookup: Lookup | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = tuple(allowed)
        self._lookup = lookup or SystemLookup()
        self._monotonic = monotonic
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._asking: dict[str, asyncio.Task[_Entry]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """The vetted addresses of a host, IPv6 and IPv4 in turn. BlockedAddress or NameUnresolved."""
        if is_literal(host):
            vet(host, self._allowed)
            return (host,)
        known = self._known.get(host)
        if known is None or self._monotonic() >= known.expires:
            if (task := self._asking.get(host)) is None:
                task = self._asking[host] = asyncio.create_task(self._query(host), name=f"resolve {host}")
                task.add_done_callback(lambda _: self._asking.pop(host, None))
            # Whoever waits may be cancelled; the query goes on for the others.
            known = await asyncio.shield(task)
        if known.error:
            raise NameUnresolved(known.error)
        for address in known.addresses:
            vet(address, self._allowed)
        return known.addresses

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()

    async def _query(self, host: str) -> _Entry:
        addresses: Sequence[str] = ()
        error, ttl = "", FAILURE_TTL
        try:
            async with asyncio.timeout(QUERY_SECONDS):
                found, ttl = await self._lookup(host)
            # The families in turn, that of the first one first (RFC 8305, section 4).
            of_first = [one for one in found if (":" in one) == (":" in found[0])]
            turns = zip_longest(of_first, [one for one in found if one not in of_first])
            addresses, ttl = tuple(filter(None, chain.from_iterable(turns))), min(max(ttl, MIN_TTL), MAX_TTL)
        except TimeoutError:
            error = f"{host}: no name server answered in {QUERY_SECONDS:g} s"
        except OSError as refused:
            error = str(refused)
        entry = self._known[host] = _Entry(addresses, error, self._monotonic() + ttl)
        self._known.move_to_end(host)
        if len(self._known) > CACHE_LIMIT:
            self._known.popitem(last=False)
        return entry


class SystemLookup:
    """A Lookup as the system is configured: /etc/hosts, then the name servers of /etc/resolv.conf."""

    _resolver: aiodns.DNSResolver | None = None

    async def __call__(self, host: str) -> tuple[Sequence[str], float]:
        if host.rstrip(".") == "localhost":
            # c-ares answers for it by itself, whatever the hosts file says; the system needs no name server for it.
            infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return tuple(str(info[4][0]) for info in infos), MAX_TTL
        self._resolver = self._resolver or aiodns.DNSResolver(timeout=2.0, tries=2)
        try:
            result = await self._resolver.getaddrinfo(host)
        except aiodns.error.DNSError as error:
            raise NameUnresolved(f"{host}: {error.args[-1]}") from error
        addresses = dict.fromkeys(node.addr[0].decode() for node in result.nodes)
        return tuple(addresses), min((node.ttl for node in result.nodes), default=0)


def vet(address: str, allowed: Sequence[Network]) -> None:
    """BlockedAddress, in the words of the registration's refusal, if nothing may be sent to an IP address."""
    if (why := refusal(address, allowed)) is not None:
        raise BlockedAddress(why)


def is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
