"""OperatorClient and AsyncOperatorClient: our own API, with the OAuth token only."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

import fotahook
from fotahook.contract import operator

from .conftest import Chunks, Clock, Peer, Received, respond

ACCOUNT = {
    "account": "a/b",
    "callback": {"url": "https://x", "revision": 3, "registeredAt": "2026-01-02T03:04:05Z"},
    "lane": {"state": "waiting", "reason": "connect", "until": "2026-01-02T03:05:05Z", "inFlight": 1, "failures": 2},
    "backlog": {"pending": 4, "dead": 5, "oldestAcceptedAt": None},
    "limits": {"inFlight": 8, "perSecond": None},
}
MESSAGE = {
    "id": "m1",
    "account": "a/b",
    "type": "upgradeProgress",
    "orderingKey": None,
    "size": 2,
    "sha256": "00",
    "acceptedAt": "2026-01-02T03:04:05.678Z",
    "deliveries": [
        {
            "lane": "a/b",
            "state": "pending",
            "attempts": 1,
            "due": "2026-01-02T03:04:06Z",
            "expiresAt": "2026-01-05T03:04:05Z",
            "lastOutcome": "timeout",
        }
    ],
}
ATTEMPT = {
    "number": 1,
    "startedAt": "2026-01-02T03:04:05Z",
    "url": "https://x",
    "outcome": "delivered",
    "httpStatus": 200,
    "errorCode": None,
    "fix": None,
    "phases": {"dns": 0.1, "connect": 1, "tls": 2, "firstByte": 3, "total": 4.5},
    "excerpt": "ok",
}


class Operators:
    """Calls either operator client in the same way."""

    def __init__(self, kind: str, url: str, clock: Clock) -> None:
        form = fotahook.OperatorClient if kind == "sync" else fotahook.AsyncOperatorClient
        self.kind, self.client = kind, form._with_runtime(clock.runtime(), url, "an-id", "a-client-secret")

    async def __call__(self, name: str, *args: object, **kwargs: object) -> Any:
        method = getattr(self.client, name)
        return await (asyncio.to_thread(method, *args, **kwargs) if self.kind == "sync" else method(*args, **kwargs))

    async def __aenter__(self) -> "Operators":
        if isinstance(self.client, fotahook.AsyncOperatorClient):
            await self.client.__aenter__()
        else:
            self.client.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self.client, fotahook.AsyncOperatorClient):
            await self.client.__aexit__(None, None, None)
        else:
            self.client.__exit__(None, None, None)


@pytest.fixture
def operators(kind: str, peer: Peer, clock: Clock) -> Operators:
    return Operators(kind, peer.url, clock)


def published(peer: Peer) -> list[Received]:
    return [seen for seen in peer.seen if seen.target.startswith("/v1/")]


async def test_bytes_are_published_unchanged(peer: Peer, operators: Operators) -> None:
    peer.routes["/messages"] = lambda _: respond(202, {"id": "m1", "duplicate": False})
    async with operators:
        done = await operators("publish", "a/b", b'{ "type":1}', ordering_key="k", idempotency_key="i")
    assert done == fotahook.Published("m1", False)
    (seen,) = published(peer)
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/accounts/a%2Fb/messages", b'{ "type":1}')
    assert seen.headers["authorization"] == "Bearer token-1"
    assert "vz-m2m-token" not in seen.headers
    assert (seen.headers["ordering-key"], seen.headers["idempotency-key"]) == ("k", "i")


async def test_a_mapping_is_published_as_json(peer: Peer, operators: Operators) -> None:
    peer.routes["/messages"] = lambda _: respond(202, {"id": "m1", "duplicate": True})
    async with operators:
        assert (await operators("publish", "a", {"type": "ä"})).duplicate
    (seen,) = published(peer)
    assert seen.body == '{"type":"ä"}'.encode()
    assert "ordering-key" not in seen.headers


async def test_retries_share_a_generated_idempotency_key(peer: Peer, operators: Operators, clock: Clock) -> None:
    def route(_: Received) -> Chunks:
        return respond(503) if len(published(peer)) % 2 else respond(202, {"id": "m1", "duplicate": False})

    peer.routes["/messages"] = route
    async with operators:
        await operators("publish", "a", b"{}")
        await operators("publish", "a", b"{}")
    keys = [seen.headers["idempotency-key"] for seen in published(peer)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


async def test_account_message_and_attempts_are_read(peer: Peer, operators: Operators) -> None:
    peer.routes["/attempts"] = lambda _: respond(200, {"attempts": [ATTEMPT]})
    peer.routes["/v1/messages/m"] = lambda _: respond(200, MESSAGE)
    peer.routes["/v1/accounts/"] = lambda _: respond(200, ACCOUNT)
    async with operators:
        account = await operators("account", "a/b")
        message = await operators("message", "m1")
        attempts = await operators("attempts", "m1")
    assert account.callback == operator.RegisteredCallback("https://x", 3, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (account.lane.state, account.lane.in_flight, account.lane.until.minute) == ("waiting", 1, 5)
    assert account.backlog == operator.Backlog(4, 5)
    assert account.limits == operator.Limits(8)
    assert message.deliveries[0].last_outcome == "timeout"
    assert message.accepted_at.microsecond == 678_000
    assert attempts[0].phases.first_byte == 3
    assert attempts[0].http_status == 200
    assert [seen.target for seen in published(peer)] == [
        "/v1/accounts/a%2Fb",
        "/v1/messages/m1",
        "/v1/messages/m1/attempts",
    ]


async def test_an_account_without_callback_is_read(peer: Peer, operators: Operators) -> None:
    peer.routes["/v1/accounts/"] = lambda _: respond(200, {**ACCOUNT, "callback": None})
    async with operators:
        assert (await operators("account", "a")).callback is None


async def test_a_refusal_is_an_api_exception_of_its_status(peer: Peer, operators: Operators) -> None:
    statuses = iter([400, 404, 409, 403])
    peer.routes["/v1/"] = lambda _: respond(next(statuses), {"errorCode": "X", "errorMessage": "no"})
    async with operators:
        for kind in (fotahook.ApiException, fotahook.NotFound, fotahook.ApiException, fotahook.PermissionDenied):
            with pytest.raises(kind) as caught:
                await operators("message", "m1")
            assert type(caught.value) is kind


async def test_a_stale_token_is_renewed(peer: Peer, operators: Operators) -> None:
    def route(seen: Received) -> Chunks:
        good = seen.headers["authorization"] == "Bearer token-2"
        return respond(200, MESSAGE) if good else respond(401, {"errorCode": "UNAUTHORIZED", "errorMessage": "stale"})

    peer.routes["/v1/"] = route
    async with operators:
        assert (await operators("message", "m1")).id == "m1"
    assert peer.tokens == 2


async def test_invalid_arguments_send_nothing(peer: Peer, operators: Operators) -> None:
    async with operators:
        for account, message in ((5, b"{}"), ("a", "{}"), ("a", None), ("a", [1])):
            with pytest.raises(TypeError):
                await operators("publish", account, message)
        for key in ("", "a b", "ä", "x" * 129, "a\n"):
            with pytest.raises(ValueError, match="ordering_key must be 1 to 128"):
                await operators("publish", "a", b"{}", ordering_key=key)
        with pytest.raises(TypeError, match="idempotency_key must be a str"):
            await operators("publish", "a", b"{}", idempotency_key=5)
        with pytest.raises(ValueError, match="message_id"):
            await operators("attempts", "..")
    assert peer.seen == []


@pytest.mark.parametrize("form", [fotahook.OperatorClient, fotahook.AsyncOperatorClient])
def test_an_invalid_base_url_is_an_error(form: Any) -> None:
    for url in (
        "ftp://x",
        "http://",
        "http://u:p@x",
        "http://x?y",
        "http://x#y",
        "//x",
        "http://x:0",
        "http://x:y",
        "http://ä",
    ):
        with pytest.raises(ValueError, match="base_url"):
            form(url, "id", "secret")
    with pytest.raises(TypeError, match="base_url"):
        form(None, "id", "secret")
    with pytest.raises(ValueError, match="proxy"):
        form("http://x", "id", "secret", proxy="socks5://x")
