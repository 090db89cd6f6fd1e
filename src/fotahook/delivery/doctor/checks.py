"""Results of checks, and the checks of a URL, its port, its addresses and their connections."""

import asyncio
from collections.abc import Sequence
from typing import Final

from fotahook.contract.addresses import EVERYWHERE, THINGSPACE_PORTS, THINGSPACE_PORTS_TEXT, refusal, url_refusal
from fotahook.contract.errors import one_line
from fotahook.contract.exchange import Masked
from fotahook.contract.operator import Check
from fotahook.delivery.connecting import Origin, connect_socket, target_of
from fotahook.delivery.outcomes import FIXES
from fotahook.delivery.resolver import Resolver
from fotahook.delivery.sender import SenderSettings

MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried; a name can have hundreds."""


def passed(check: str, found: str) -> Check:
    return Check(check, "pass", one_line(found))


def warned(check: str, found: str, fix: str) -> Check:
    """Messages arrive, but not from every sender or not for long."""
    return Check(check, "warn", one_line(found), fix)


def failed(check: str, found: str, fix: str) -> Check:
    return Check(check, "fail", one_line(found), fix)


class Target(Masked, frozen=True, kw_only=True):
    """A callback URL and the settings to check it with. `run_id` is part of every test message's id."""

    shown = ("url", "account", "run_id")

    url: str
    run_id: str
    account: str
    secret: bytes | None = None
    """Signs test messages in addition to the sender's key."""
    allow_http: bool = False
    sender: SenderSettings

    @property
    def origin(self) -> Origin:
        return target_of(self.url, EVERYWHERE).origin

    @property
    def host(self) -> str:
        return self.origin.host.rstrip(".")


def check_url(target: Target) -> Check:
    url, allowed = target.url, target.sender.allowed_networks
    if (why := url_refusal(url, allow_http=target.allow_http, allowed=allowed)) is not None:
        return failed("url", f"{url}: {why}", "Register a URL that follows this rule.")
    if target.origin.tls:
        return passed("url", url)
    fix = "ThingSpace, and fotahook serve without --dev, accept https:// only: put TLS in front of the receiver."
    return warned("url", f"{url}: nothing is encrypted", fix)


def check_port(target: Target) -> Check:
    """Against ThingSpace's list, which it documents for another API."""
    if target.origin.port in THINGSPACE_PORTS:
        return passed("port", str(target.origin.port))
    if target.host in ("localhost", "::1") or target.host.startswith("127."):
        return passed("port", f"{target.origin.port}; ThingSpace's ports do not matter on this machine")
    found = f"{target.origin.port} is not among the ports that ThingSpace documents"
    fix = f"It lists {THINGSPACE_PORTS_TEXT}, but only for its Connectivity API. To be sure, choose one of them."
    return warned("port", found, fix)


async def check_addresses(target: Target) -> tuple[list[str], Check]:
    """The addresses of the host, and whether all of them may be delivered to."""
    host, allowed, timeout = target.host, target.sender.allowed_networks, target.sender.timeout
    try:
        async with asyncio.timeout(timeout):
            addresses = list(await Resolver(EVERYWHERE).resolve(host))
    except TimeoutError:
        return [], failed("addresses", f"{host}: no answer within {timeout:g} s", FIXES["dns_error"])
    except OSError as error:
        return [], failed("addresses", f"{host} does not resolve: {error}", FIXES["dns_error"])
    if blocked := [why for address in addresses if (why := refusal(address, allowed)) is not None]:
        among = "" if len(addresses) == 1 else f"; one such among {len(addresses)} addresses blocks the whole name"
        return addresses, failed("addresses", blocked[0] + among, FIXES["blocked_address"])
    listed = _listed(addresses)
    if private := [address for address in addresses if refusal(address) is not None]:
        fix = "Only your own service, with --dev or --allow-network, delivers there; ThingSpace needs a public address."
        return addresses, warned("addresses", f"{listed}: {private[0]} is not globally reachable", fix)
    return addresses, passed("addresses", listed)


async def check_connection(target: Target, addresses: Sequence[str]) -> tuple[str, Check]:
    """The first address, of those that accept a connection if any does; all should, since a sender may use any."""
    tried, port = addresses[:MAX_ADDRESSES], target.origin.port
    found = dict(zip(tried, await asyncio.gather(*(_connect(address, target) for address in tried)), strict=True))
    broken = [(address, *problem) for address, problem in found.items() if problem is not None]
    if not broken:
        return tried[0], passed("connection", f"port {port} of {_listed(tried)} accepts connections")
    address, reason, fix = broken[0]
    if len(broken) == len(found):
        return address, failed("connection", f"{address}, port {port}: {reason}", fix)
    what = f"{len(broken)} of {len(tried)} addresses cannot be reached from here: {address}: {reason}"
    fix = "A sender may use any of them: make each accept connections, or remove it from the DNS."
    return next(one for one in tried if found[one] is None), warned("connection", what, fix)


async def _connect(address: str, target: Target) -> tuple[str, str] | None:
    """Why an address accepts no connection, and what to do about it; None if it does."""
    timeout = target.sender.connect_timeout
    try:
        async with asyncio.timeout(timeout):
            (await connect_socket(address, target.origin.port)).close()
    except TimeoutError:
        return f"no answer within {timeout:g} s", FIXES["timeout_connect"]
    except ConnectionRefusedError:
        return "connection refused", FIXES["connection_refused"]
    except OSError as error:
        return str(error.strerror or error).lower(), FIXES["connection_failed"]
    return None


def _listed(addresses: Sequence[str]) -> str:
    more = len(addresses) - MAX_ADDRESSES
    return ", ".join(addresses[:MAX_ADDRESSES]) + (f" and {more} more" if more > 0 else "")
