"""Names are resolved once, every answer is vetted, and the connection goes to what was vetted: no second look-up."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from fotahook.contract.addresses import Network, refusal


class BlockedAddress(OSError):
    """An address that nothing may be sent to."""


class VettingResolver(AbstractResolver):
    """Resolves through the system. A name with one forbidden address is refused whole: mixed answers are an attack."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The vetted addresses of a host; BlockedAddress or gaierror."""
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
        return results

    async def close(self) -> None:
        """Nothing is kept between look-ups."""


def vet(address: str, allowed: Sequence[Network]) -> None:
    """BlockedAddress, in the words of the registration's refusal, if nothing may be sent to an IP address."""
    if (why := refusal(address, allowed)) is not None:
        raise BlockedAddress(why)


def vet_literal(host: str, allowed: Sequence[Network]) -> None:
    """The same for a URL's host where it is an IP literal: those never reach a resolver. Names pass."""
    try:
        ip_address(host)
    except ValueError:
        return
    vet(host, allowed)
