"""What `fotahook doctor` looks at, each thing only after those that it rests on."""

from collections.abc import AsyncIterator

from yarl import URL

from fotahook.contract.urls import THINGSPACE_PORTS, THINGSPACE_PORTS_TEXT, url_refusal

from .findings import Check, Clock, Examination, Place, failed, passed, warned
from .messages import check_messages
from .network import check_addresses, check_connection
from .tls import check_tls


async def examine(examination: Examination, *, clock: Clock, monotonic: Clock) -> AsyncIterator[Check]:
    """Each check as soon as it is made. After one that failed, those that rest on it are not made."""
    settings = examination.sender
    checked = check_url(examination)
    yield checked
    if checked.result == "fail":
        return
    place = Place.of(examination.url)
    yield check_port(place)
    addresses, checked = await check_addresses(place, settings)
    yield checked
    if checked.result == "fail":
        return
    reachable, checked = await check_connection(place, addresses, settings.connect_timeout)
    yield checked
    if reachable is None:
        return
    if place.tls:
        checks = await check_tls(place, reachable, settings, now=clock())
        for checked in checks:
            yield checked
        if any(checked.result == "fail" for checked in checks):
            return
    async for checked in check_messages(examination, clock=clock, monotonic=monotonic):
        yield checked


def check_url(examination: Examination) -> Check:
    """By the rules of registration."""
    url, allowed = examination.url, examination.sender.allowed_networks
    if (why := url_refusal(url, allow_http=examination.allow_http, allowed=allowed)) is not None:
        return failed("url", f"{url}: {why}", "Register a URL that keeps to this rule.")
    if URL(url).scheme == "http":
        fix = "ThingSpace takes https:// alone, and so does fotahook serve without --dev: put TLS before the receiver."
        return warned("url", f"{url}: nothing is encrypted", fix)
    return passed("url", url)


def check_port(place: Place) -> Check:
    """Against ThingSpace's list, which it documents for another API."""
    if place.port in THINGSPACE_PORTS:
        return passed("port", str(place.port))
    return warned(
        "port",
        f"{place.port} is not among the ports that ThingSpace documents",
        f"It lists {THINGSPACE_PORTS_TEXT}, for its Connectivity API alone. To be sure, choose one of them.",
    )
