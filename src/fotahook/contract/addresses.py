"""Which accounts, URLs and addresses callbacks may be registered for; addresses are checked at every connect too.

By default only globally reachable unicast addresses, also if another notation hides the address. The ranges are IANA's
special-purpose registries (RFC 6890 and its updates): ``ipaddress.is_global`` differs between Python releases.
ThingSpace says little of all this (docs/thingspace.md, The four calls); the rules are ours.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from stringprep import in_table_a1
from typing import Final
from urllib.parse import urlsplit

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
URL_LIMIT: Final = 2048
ACCOUNT_LIMIT: Final = 64
THINGSPACE_PORTS: Final = frozenset({80, 443, *range(9001, 9007), *range(50551, 50560), *range(28200, 28221)})
"""The ports documented for ThingSpace's Connectivity API. For this API it documents none, so no port is refused."""
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff\\<>\"`{}|^]|%(?![0-9A-Fa-f]{2})")
# Stricter than urllib.parse, which finds a host in "x[::1]y" too: a client must connect to what was checked.
_AUTHORITY = re.compile(r"(\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(:(?P<port>[0-9]{1,5}))?")
# All before the last @, but PostgreSQL's user alone: a password that is not percent-encoded may have any character.
_USERINFO = re.compile(r"(?is)\A(\s*+(?:[a-z][\w+.-]*+://)?+)(?!(?<=sql://)[\w.-]*+@[^@]*+\Z)(?=[^/?#]*([:@]|%3a)).*@")
_SECRET_NAME = "passw|pwd|secret|token|key|%"  # A letter may be percent-encoded.
# In a query, to the next &; in libpq's form "host=… password='…'", to the quote or a space that no backslash precedes.
_SECRET = re.compile(
    rf"(?is)((?<=[?&#])(?=[^=?&#]*(?:{_SECRET_NAME}))[^=?&#]++=)[^&]*|"
    rf"((?<![^\s;])(?=[^=?&#\s;]*(?:{_SECRET_NAME}))[^=?&#\s;]++\s*+=\s*+)(?:'(?:\\.|[^'\\])*+'?|(?:\\.|\S)*+)"
)
_TYPICAL_ACCOUNT = re.compile(r"[0-9]{10}-[0-9]{5}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
# Cherokee, whose lower-case letters were added later, and invisible letters.
_AMBIGUOUS = re.compile(r"[\u13a0-\u13f4\u115f\u1160\u17b4\u17b5]")
_PORTS: Final = {"https": 443, "http": 80}
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


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


def account_refusal(account: str) -> str | None:
    """Why a text is not a valid account name; None if it is."""
    if not account:
        return "an account name is missing"
    if account in (".", ".."):
        return "an account name is not . or .., which would change the path"
    if len(account) > ACCOUNT_LIMIT:
        return f"an account name has at most {ACCOUNT_LIMIT} characters"
    if "/" in account or _CONTROL.search(account):
        return "an account name has no slash and no control characters"
    return None


def url_refusal(url: object, *, allow_http: bool, allowed: Iterable[Network]) -> str | None:
    """Why a value cannot be registered as a callback URL; None if it can. A host name's addresses are checked later."""
    if not isinstance(url, str):
        return "url must be a string"
    if len(url) > URL_LIMIT:
        return f"url has more than {URL_LIMIT} characters"
    if _FORBIDDEN_IN_URL.search(url):
        return "url has a character that must be percent-encoded"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"url cannot be parsed: {without_password(str(error))}"
    if parts.scheme == "http" and not allow_http:
        return "url must begin with https:// (only --dev takes http://)"
    if parts.scheme not in ("https", "http"):
        return "url must begin with https:// or http://" if allow_http else "url must begin with https://"
    if "#" in url:
        return "url must not have a fragment"
    if not (parts.path + parts.query).isascii():
        return "url has a character that must be percent-encoded"
    if "@" in parts.netloc:
        return "url must not carry credentials"
    found = _AUTHORITY.fullmatch(parts.netloc)
    if found is None:
        return "url has an invalid host or port"
    if found["port"] and not 1 <= int(found["port"]) <= 65535:
        return "url has no usable port"
    host = found["host"]
    if host == "":
        return "url has no host"
    try:
        address = ip_address(host) if host else IPv6Address(found["v6"])
    except ValueError:
        return "url has an invalid IPv6 address" if host is None else _name_refusal(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "url must not name a network interface"
    return refusal(address, allowed)


def port_warning(url: str) -> str | None:
    """A warning if ThingSpace may not deliver to the port of a valid URL; otherwise None."""
    port = url_parts(url)["port"]
    documented = "for its Connectivity API only: 80, 443, 9001-9006, 50551-50559 and 28200-28220"
    return None if port in THINGSPACE_PORTS else f"port {port} is none of those that ThingSpace documents, {documented}"


def account_warning(account: str) -> str | None:
    """A warning if an account name is unlike those in ThingSpace's documents; otherwise None."""
    usual = "ThingSpace's accounts are usually ten digits, a dash and five digits"
    return None if _TYPICAL_ACCOUNT.fullmatch(account) else f"{usual}; check this one, leading zeros included"


def without_password(url: str) -> str:
    """A URL that a user gave, or what was meant as one, to be shown: rather too much is masked than too little."""
    # In libpq's form, an @ is part of a value.
    masked = _SECRET.sub(r"\1\2***", url) if re.match(r"[\w\s.]+=", url) else url
    return _SECRET.sub(r"\1\2***", _USERINFO.sub(r"\1***@", masked))


def origin(url: str) -> str:
    """Scheme, host and port of a URL, for logs: the rest may contain secrets."""
    try:
        scheme, netloc = urlsplit(url)[:2]
    except ValueError:
        scheme = netloc = ""
    host = netloc.rpartition("@")[2]
    return f"{scheme}://{host}" if host else "a URL without a host"


def _name_refusal(host: str) -> str | None:
    try:
        ascii_host = host.encode("idna").decode("ascii")
        # Decoding reveals characters that change the name: a ⒛ is 20 and a dot, which begins another label. A name that
        # came as xn--… is not decoded: it may follow today's rules (RFC 5891), which this codec does not know.
        plain_host = host.lower() if host.isascii() else ascii_host.encode().decode("idna")
    except UnicodeError:
        return "url has an invalid host name"
    labels = ascii_host.removesuffix(".").split(".")
    # The C library resolves 0177.0.0.1, 127.1 and 2130706433 to 127.0.0.1: only dotted quads are accepted.
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        return "url has a host that looks like a number but is not an IPv4 address in plain notation"
    if len(ascii_host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "url has an invalid host name"
    if any(map(in_table_a1, host)) or _AMBIGUOUS.search(host) or plain_host != host.lower():
        # Clients convert some characters differently, so they would connect to different hosts: those unknown to
        # IDNA 2003 (RFC 3490), those changed since, and such as a soft hyphen or ß.
        return "url has a host name that is not in its plain form: write it as xn--…"
    return None


def url_parts(url: str) -> dict[str, str | int | None]:
    """The parts in which two URLs can differ, normalized; empty for an invalid URL, which may be registered too."""
    try:
        parts = urlsplit(url)
        return {
            "scheme": parts.scheme,
            "user": parts.netloc.rpartition("@")[0],
            "host": parts.hostname,
            "port": parts.port or _PORTS.get(parts.scheme),
            "path": parts.path or "/",
            "query": parts.query,
        }
    except ValueError:
        return {}


def same_url(one: str | None, other: str | None) -> bool:
    """Whether two URLs are the same, in any spelling; an invalid one equals only itself, and None nothing."""
    if one is None or other is None:
        return False
    return one == other or (bool(parts := url_parts(one)) and parts == url_parts(other))
