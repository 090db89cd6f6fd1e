"""The rules for what is registered: account names and callback URLs.

ThingSpace's own words are few: the account is "usually numeric", leading zeros included, and the URL must be HTTPS and
reachable from its data centres (docs/thingspace.md, The four calls). The limits and the exact syntax are ours.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .addresses import Network, refusal

URL_LIMIT: Final = 2048
ACCOUNT_LIMIT: Final = 64

_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\<>\"`{}|^]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def account_refusal(account: str) -> str | None:
    """Why a text is not an account name; None if it is one."""
    if not account or account in (".", ".."):
        return "an account name is missing"
    if len(account) > ACCOUNT_LIMIT:
        return f"an account name has at most {ACCOUNT_LIMIT} characters"
    if "/" in account or _CONTROL.search(account):
        return "an account name has no slash and no control characters"
    return None


def url_refusal(url: object, *, allow_http: bool, allowed: Iterable[Network]) -> str | None:
    """Why a value cannot be registered as the callback URL; None if it can.

    `allow_http` and `allowed` loosen the rule for a development service. An IP literal is judged by the rule that
    guards every connect, in the same words; a name is judged when it is resolved, at delivery.
    """
    if not isinstance(url, str):
        return "url must be a string"
    if len(url) > URL_LIMIT:
        return f"url has more than {URL_LIMIT} characters"
    if _FORBIDDEN_IN_URL.search(url):
        return "url has a character that must be percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"url cannot be parsed: {error}"
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        return "url must begin with https://"
    if port == 0:
        return "url has no usable port"
    return _parts_refusal(parts) or _host_refusal(parts.hostname or "", allowed)


def _parts_refusal(parts: SplitResult) -> str | None:
    if "@" in parts.netloc:
        return "url must not carry credentials"
    if parts.fragment:
        return "url must not have a fragment"
    return None


def _host_refusal(host: str, allowed: Iterable[Network]) -> str | None:
    if not host:
        return "url has no host"
    try:
        address = ip_address(host)
    except ValueError:
        return _name_refusal(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "url must not name a network interface"
    return refusal(address, allowed)


def _name_refusal(host: str) -> str | None:
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:
        return "url has an invalid host name"
    labels = ascii_host.removesuffix(".").split(".")
    # 0177.0.0.1, 127.1 and 2130706433 reach 127.0.0.1 through the C library: only plain dotted quads are numbers.
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        return "url has a host that looks like a number but is not an IPv4 address in plain notation"
    if len(ascii_host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "url has an invalid host name"
    return None
