"""The proxy that injects faults in front of a receiver elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import urllib3
from anyio.from_thread import start_blocking_portal

from fotahook.testing import Sandbox
from fotahook.testing.sandbox.servers import FaultyProxy, faulty_proxy
from fotahook.testing.simulator.faults import Drop, Duplicate, ErrorResponse

from .receivers import receiving


@contextmanager
def running(upstream: str | None = None) -> Iterator[FaultyProxy]:
    proxy = faulty_proxy(upstream, lambda url: None)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxy) as started:
        yield started


def post(http: urllib3.PoolManager, url: str, attempt: str = "1") -> urllib3.BaseHTTPResponse:
    headers = {"webhook-id": "m1", "Fotahook-Attempt": attempt, "X-Mine": "a"}
    return http.request("POST", url, body=b"{}", headers=headers, retries=False)


def test_requests_are_forwarded_unless_a_fault_is_injected() -> None:
    with Sandbox() as sandbox, running(sandbox.receiver.url) as proxy, urllib3.PoolManager() as http:
        proxy.faults.add(ErrorResponse(status=503, retry_after=9))
        refused = post(http, proxy.url)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "9")
        assert post(http, proxy.url).status == 200
        proxy.faults.add(Duplicate())
        assert post(http, proxy.url).status == 200
        received = sandbox.receiver.received
        assert [one.id for one in received] == ["m1"] * 3
        assert received[0].headers["x-mine"] == "a"
        assert proxy.forwarded == 3


def test_a_dropped_attempt_is_dropped_again_when_it_is_repeated() -> None:
    with running() as proxy, urllib3.PoolManager() as http:
        proxy.faults.add(Drop())
        for _ in range(2):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                post(http, proxy.url)
        assert post(http, proxy.url, attempt="2").status == 200


def test_the_upstreams_status_is_passed_on() -> None:
    with receiving() as gone:
        url = gone.url
    with running(url) as proxy, urllib3.PoolManager() as http:
        assert post(http, proxy.url).status == 502
    with Sandbox() as sandbox, running(f"{sandbox.base_url}/nowhere") as proxy, urllib3.PoolManager() as http:
        assert post(http, proxy.url).status == 404


def test_its_untrusted_receiver_counts_connections() -> None:
    with running() as proxy, urllib3.PoolManager() as http:
        with pytest.raises(urllib3.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            post(http, proxy.untrusted.url)
        assert proxy.untrusted.connections == 1
