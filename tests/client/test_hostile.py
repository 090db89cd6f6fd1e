"""Any bytes from a server give a response or a documented error, the same from both clients."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, BODY, OAUTH, USER, Peer, respond

DOCUMENTED = (fotahook.ApiException, fotahook.ResponseError, fotahook.TransportError, fotahook.LoginRefused)
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(["url", "success", "errorCode", "errorMessage", "fault", "code", "message", "error"])
objects = st.dictionaries(fields, json_values | st.dictionaries(fields, json_values, max_size=3), max_size=4)
xml = st.builds(
    "<am:fault xmlns:am='x'><am:code>{}</am:code><am:message>{}</am:message></am:fault>".format, st.text(), st.text()
)
bodies = (
    objects.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=200)
    | xml.map(lambda text: text.encode("utf-8", "replace"))
    | objects.map(lambda value: json.dumps(value).encode()[:-1])
)
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
statuses = st.integers(200, 599) | st.sampled_from([200, 204, 400, 401, 429, 500])
headers = st.dictionaries(
    st.sampled_from(["Location", "Retry-After", "Content-Type", "X-Any", "Set-Cookie", "Content-Encoding"]), visible
)


class Both:
    """Both clients, in an event loop of their own, against one peer."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {
            "thingspace_oauth_credentials": OAUTH,
            "vz_m2m_token_credentials": USER,
            "base_url": url,
            "max_retries": 0,
            "timeout": DEADLINE,
        }
        self.sync = fotahook.Client(**options)
        self.asynchronous = fotahook.AsyncClient(**options)
        self.loop = asyncio.Runner()

    def outcomes(self, name: str, *args: object) -> list[object]:
        """The result of each client."""
        first = self._outcome(lambda: getattr(self.sync.software_management_callbacks_v2, name)(*args))
        controller = self.asynchronous.software_management_callbacks_v2
        second = self._outcome(lambda: self.loop.run(getattr(controller, name)(*args)))
        return [first, second]

    def close(self) -> None:
        self.sync.close()
        self.loop.run(self.asynchronous.aclose())
        self.loop.close()

    def _outcome(self, call: Any) -> object:
        try:
            response = call()
        except DOCUMENTED as error:
            line = str(error)
            assert line
            assert line.isprintable()
            assert "token-1" not in line
            code = getattr(error, "error_code", None), getattr(error, "error_message", None)
            return type(error), getattr(error, "status_code", None), code, getattr(error, "raw_body", None)
        return response.status_code, response.data, response.raw_body, dict(response.headers)


@pytest.fixture(scope="module")
def peer() -> Any:
    one = Peer()
    yield one
    one.close()


@pytest.fixture(scope="module")
def both(peer: Peer) -> Any:
    clients = Both(peer.url)
    yield clients
    clients.close()


CALLS: list[tuple[Any, ...]] = [
    ("list_registered_callbacks", ACCOUNT),
    ("register_callback", ACCOUNT, BODY),
    ("deregister_callback", ACCOUNT),
]


@QUICK
@given(status=statuses, body=bodies, extra=headers, reason=visible, call=st.sampled_from(CALLS))
def test_both_clients_read_any_response_alike(
    peer: Peer, both: Both, status: int, body: bytes, extra: dict[str, str], reason: str, call: Any
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
    sent = b"" if status in (204, 304) else body
    peer.routes["callbacks/"] = lambda _: respond(status, sent, lines, reason)
    first, second = both.outcomes(*call)
    assert first == second


@QUICK
@given(
    raw=st.binary(max_size=300)
    | st.builds(
        lambda status, lines, body: b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body,
        st.sampled_from([b"200 OK", b"200", b"99 x", b"1000 x", b"200 \xff", b"2x0 OK", b"101 Switch"]),
        st.lists(
            st.sampled_from(
                [
                    b"Content-Length: 2",
                    b"Content-Length: 99",
                    b"Content-Length: -1",
                    b"Content-Length: 99999999999999999999999999",
                    b"Transfer-Encoding: chunked",
                    b"Transfer-Encoding: gzip",
                    b"Connection: close",
                    b"X: \x00",
                    b"X: \xff",
                    b" folded",
                    b"no colon",
                    b": no name",
                ]
            ),
            max_size=4,
        ),
        st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}\r\n", b"ffffffffffffffffffff\r\n"]),
    )
)
def test_any_bytes_give_a_response_or_a_documented_error(peer: Peer, both: Both, raw: bytes) -> None:
    peer.routes["callbacks/"] = lambda _: [raw, None]
    both.outcomes("list_registered_callbacks", ACCOUNT)


@QUICK
@given(status=statuses, body=bodies, part=st.sampled_from(["oauth2/token", "session/login"]))
def test_any_token_response_gives_a_documented_error(peer: Peer, status: int, body: bytes, part: str) -> None:
    inner = peer.routes[part]
    peer.routes[part] = lambda _: respond(status, b"" if status in (204, 304) else body)
    fresh = Both(peer.url)
    try:
        first, second = fresh.outcomes("list_registered_callbacks", ACCOUNT)
        assert first == second
    finally:
        peer.routes[part] = inner
        fresh.close()
