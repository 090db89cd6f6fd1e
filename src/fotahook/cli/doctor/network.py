"""Where `fotahook doctor` finds a receiver: its addresses, by the rule of deliveries, and whether they answer."""

import asyncio
import os
from collections.abc import Sequence
from typing import Final

from fotahook.contract.addresses import EVERYWHERE, refusal
from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.resolver import VettingResolver
from fotahook.delivery.sender import SenderSettings

from .findings import Check, Place, failed, passed, warned

MOST_ADDRESSES: Final = 8
"""Addresses of one name that are tried; a name could have hundreds."""


async def check_addresses(place: Place, settings: SenderSettings) -> tuple[list[str], Check]:
    """The addresses of a host, and whether all of them may be delivered to."""
    try:
        async with asyncio.timeout(settings.timeout):
            results = await VettingResolver(EVERYWHERE).resolve(place.host, place.port)
    except TimeoutError:
        return [], failed("addresses", f"{place.host}: no answer within {settings.timeout:g} s", FIXES["dns_error"])
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        return [], failed("addresses", f"{place.host} does not resolve: {said}", FIXES["dns_error"])
    addresses = list(dict.fromkeys(result["host"] for result in results))
    blocked = [why for address in addresses if (why := refusal(address, settings.allowed_networks)) is not None]
    if blocked:
        whole = "" if len(addresses) == 1 else f"; one such among {len(addresses)} addresses, and the name is refused"
        return addresses, failed("addresses", blocked[0] + whole, FIXES["blocked_address"])
    shown = _shown(addresses)
    if opened := [address for address in addresses if refusal(address) is not None]:
        fix = "Only a service of your own with --dev or --allow-network delivers there; ThingSpace needs a public one."
        return addresses, warned("addresses", f"{shown}: {opened[0]} is not globally reachable", fix)
    return addresses, passed("addresses", shown)


async def check_connection(place: Place, addresses: Sequence[str], timeout: float) -> tuple[str | None, Check]:
    """The first address that takes a connection; all of them should, since a sender may try any."""
    tried = addresses[:MOST_ADDRESSES]
    troubles = await asyncio.gather(*(_trouble(address, place.port, timeout) for address in tried))
    reachable = [address for address, trouble in zip(tried, troubles, strict=True) if trouble is None]
    broken = [(address, *trouble) for address, trouble in zip(tried, troubles, strict=True) if trouble is not None]
    if not broken:
        return reachable[0], passed("connection", f"port {place.port} of {_shown(tried)} takes connections")
    address, said, fix = broken[0]
    if not reachable:
        return None, failed("connection", f"{address}, port {place.port}: {said}", fix)
    return reachable[0], warned(
        "connection",
        f"{len(broken)} of {len(tried)} addresses cannot be reached from here: {address}: {said}",
        "A sender may try any of them: make each take connections, or take it out of the DNS.",
    )


async def _trouble(address: str, port: int, timeout: float) -> tuple[str, str] | None:
    """What is wrong with an address and what to do; None if it takes a connection."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"no answer within {timeout:g} s", FIXES["timeout_connect"]
    except ConnectionRefusedError:
        return "connection refused", FIXES["connection_refused"]
    except OSError as error:
        # asyncio puts its own words before the system's.
        said = os.strerror(error.errno) if error.errno is not None else str(error)
        return said.lower(), FIXES["connection_failed"]
    writer.transport.abort()
    return None


def _shown(addresses: Sequence[str]) -> str:
    more = len(addresses) - MOST_ADDRESSES
    return ", ".join(addresses[:MOST_ADDRESSES]) + (f" and {more} more" if more > 0 else "")
