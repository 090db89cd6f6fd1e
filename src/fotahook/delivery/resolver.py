"""Resolves host names once and vets every address; the connection goes to a vetted address without a second lookup."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from fotahook.contract.addresses import Network, refusal

from .timing import current


class BlockedAddress(OSError):
    """The address is not allowed."""


class VettingResolver(AbstractResolver):
    """The system's resolver. It refuses a name if any of its addresses is not allowed: mixed answers are an attack."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The vetted addresses of a host. BlockedAddress or gaierror if there are none."""
        exchange = current.get(None)
        if exchange is not None:
            exchange.mark("dns_start")
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results = []
        for info_family, _, protocol, _, address in infos:
            text = str(address[0])
            vet(text, self._allowed)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=text,
                    port=port,
                    family=info_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if exchange is not None:
            exchange.mark("dns_end")
        return results

    async def close(self) -> None:
        """There is nothing to close."""


def vet(address: str, allowed: Sequence[Network]) -> None:
    """BlockedAddress, with the text that registration uses, if an IP address is not allowed."""
    if (why := refusal(address, allowed)) is not None:
        raise BlockedAddress(why)


def vet_literal(host: str, allowed: Sequence[Network]) -> None:
    """The same for a host that is an IP literal, which never reaches a resolver. Names pass."""
    try:
        ip_address(host)
    except ValueError:
        return
    vet(host, allowed)
