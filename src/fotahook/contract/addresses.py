"""Which addresses callbacks may be delivered to; checked at registration and at every connect.

By default only globally reachable unicast addresses, also if another notation hides the address. The ranges are IANA's
special-purpose registries (RFC 6890 and its updates): ``ipaddress.is_global`` differs between Python releases.
ThingSpace says only that its data centres must reach the URL; the rule is ours.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: Final[Mapping[Network, str]] = {
    ip_network(network): what
    for what, networks in {
        "this network": ["0.0.0.0/8"],
        "a private network": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        "shared address space": ["100.64.0.0/10"],
        "loopback": ["127.0.0.0/8"],
        "Azure's services for its virtual machines": ["168.63.129.16/32"],
        "link-local": ["169.254.0.0/16"],
        "protocol assignments": ["192.0.0.0/24", "2001::/23"],
        "documentation": ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"],
        "the former 6to4 relays": ["192.88.99.0/24"],
        "benchmarking": ["198.18.0.0/15"],
        "multicast": ["224.0.0.0/4"],
        "reserved": ["240.0.0.0/4"],
    }.items()
    for network in networks
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
# The middle of an interface id that ends with an IPv4 address (RFC 5214, section 6.1).
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of ``--allow-network``; ValueError quotes a text that is not one."""
    text = ""
    try:
        return tuple([ip_network(text := each) for each in texts])
    except ValueError as error:
        raise ValueError(f"not a network in CIDR notation: {text!r} ({error})") from error


def parse_address(text: str) -> Address | None:
    """The address of a peer, in the notations that servers and proxies use; None if it is none."""
    # No address is as long, with its port and zone.
    return _parse_address(text) if len(text) <= 100 else None


# A peer sends many requests.
@lru_cache(1024)
def _parse_address(text: str) -> Address | None:
    host = text.strip()
    # Some proxies add the port.
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 peers as mapped IPv6 addresses.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def sender_address(peer: str | None, forwarded: str, trusted: Iterable[Network]) -> Address | None:
    """The sender's address, None if it cannot be parsed.

    Each proxy appends its peer's address to X-Forwarded-For. So the header is read from its end, for as long as the
    author of an entry is trusted; everything before that may be forged.
    """
    address = parse_address(peer or "")
    for entry in reversed(forwarded.split(",") if forwarded else ()):
        if address is None or not is_within(address, trusted):
            break
        address = parse_address(entry)
    return address


def address_key(text: str | None) -> str:
    """What a client's address is counted by: for IPv6 its /64 network, all of which is one client's to use."""
    address = parse_address(text or "")
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address or "")


def refusal(address: Address | str, allowed: Iterable[Network] = ()) -> str | None:
    """Why an address, or one that it stands for, is not allowed; None if it is. ValueError if it is no IP address."""
    address = ip_address(address)
    what = _special(address, tuple(allowed))
    return None if what is None else f"{address} is not globally reachable ({what}); --allow-network can open it"


def _special(address: Address, allowed: tuple[Network, ...]) -> str | None:
    # Range checks ignore a scope id (fe80::1%eth0).
    if any(address in network for network in allowed):
        return None
    if isinstance(address, IPv6Address):
        for hidden in _hidden_v4(address):
            if (what := _special(hidden, allowed)) is not None:
                return f"it stands for {hidden}: {what}"
        if address in _MAPPED or address in _NAT64:
            return None  # just another notation of the IPv4 address
        if address not in _GLOBAL_UNICAST:
            return "outside global unicast"
    return next((what for network, what in _SPECIAL.items() if address in network), None)


def _hidden_v4(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that packets to this IPv6 address are sent to, for each notation in use."""
    number = int(address)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address in _MAPPED or address in _NAT64 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield IPv4Address(number & 0xFFFF_FFFF)
