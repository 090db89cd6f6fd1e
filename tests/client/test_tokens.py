"""The two tokens: fetched when needed, shared, renewed in time; a refused login is not retried."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, OAUTH, USER, Chunks, Clock, OpenSdk, Peer, Received, opened, respond

LIST = "list_registered_callbacks"
EXPIRED_BEARER = {"fault": {"code": "900901", "message": "Invalid Credentials", "description": "Access failure"}}
EXPIRED_SESSION = {
    "errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired",
    "errorMessage": "The session has expired",
}


def fetched(peer: Peer) -> tuple[int, int]:
    return peer.tokens, peer.sessions


async def test_nothing_is_sent_before_the_first_call_nor_by_closing(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk():
        pass
    assert peer.seen == []


async def test_tokens_are_fetched_once_and_kept(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        for _ in range(3):
            await sdk.call(LIST, ACCOUNT)
    assert fetched(peer) == (1, 1)


def gated(peer: Peer, part: str, callers: int) -> None:
    """Hold a response back until the request came and all callers have begun."""
    inner = peer.routes[part]
    ready = threading.Event()
    threading.Timer(0.1, ready.set).start()

    def route(seen: Received) -> Chunks:
        ready.wait(DEADLINE)
        return inner(seen)

    peer.routes[part] = route


@pytest.mark.parametrize("part", ["oauth2/token", "session/login"])
async def test_eight_cold_callers_make_one_token_call(peer: Peer, open_sdk: OpenSdk, part: str) -> None:
    gated(peer, part, 8)
    async with open_sdk() as sdk:
        await asyncio.gather(*(sdk.call(LIST, ACCOUNT) for _ in range(8)))
    assert fetched(peer) == (1, 1)
    assert len(peer.calls) == 8


async def test_the_oauth_token_is_renewed_before_it_expires(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        clock.time += 3600 - 61
        await sdk.call(LIST, ACCOUNT)
        assert peer.tokens == 1
        clock.time += 2
        await sdk.call(LIST, ACCOUNT)
        assert peer.tokens == 2


async def test_a_token_without_a_lifetime_lives_an_hour(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(body={"access_token": f"token-{len(peer.seen)}"})
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        clock.time += 3600 - 61
        await sdk.call(LIST, ACCOUNT)
        clock.time += 2
        await sdk.call(LIST, ACCOUNT)
    assert [seen.target.rpartition("/")[2] for seen in peer.seen].count("token") == 2


async def test_a_token_about_to_end_is_not_fetched_with_every_call(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    """Within the hour the service returns the same token with its remaining lifetime."""
    peer.routes["oauth2/token"] = lambda _: respond(body={"access_token": "the-same", "expires_in": 40})
    async with open_sdk() as sdk:
        for _ in range(3):
            await sdk.call(LIST, ACCOUNT)
    assert len(peer.seen) == 1 + 1 + 3


async def test_a_lifetime_may_be_written_as_text(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(body={"access_token": "a-token", "expires_in": "3600"})
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_clock_skew_renews_earlier(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    skewed = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", oauth_clock_skew=600)
    async with open_sdk(thingspace_oauth_credentials=skewed) as sdk:
        await sdk.call(LIST, ACCOUNT)
        clock.time += 3600 - 659
        await sdk.call(LIST, ACCOUNT)
    assert peer.tokens == 2


async def test_an_idle_session_is_begun_anew_without_asking(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        for _ in range(3):
            clock.time += 19 * 60
            await sdk.call(LIST, ACCOUNT)
        assert peer.sessions == 1
        clock.time += 20 * 60
        await sdk.call(LIST, ACCOUNT)
    assert peer.sessions == 2


def refusing_first(peer: Peer, status: int, body: object) -> None:
    """Refuse the first callback call only."""
    inner = peer.routes["callbacks/"]
    peer.routes["callbacks/"] = lambda seen: respond(status, body) if len(peer.calls) == 1 else inner(seen)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, EXPIRED_BEARER, (2, 1)),
        (401, EXPIRED_SESSION, (1, 2)),
        (400, EXPIRED_SESSION, (1, 2)),
        (401, b"", (2, 2)),
    ],
)
async def test_a_stale_token_is_renewed_once_and_the_call_repeated(
    peer: Peer, open_sdk: OpenSdk, status: int, body: object, expected: tuple[int, int]
) -> None:
    refusing_first(peer, status, body)
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert fetched(peer) == expected
    last = peer.calls[-1].headers
    assert (last["authorization"], last["vz-m2m-token"]) == (f"Bearer token-{expected[0]}", f"session-{expected[1]}")


async def test_a_refusal_that_stays_is_told_after_one_renewal(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["callbacks/"] = lambda _: respond(401, EXPIRED_BEARER)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.AuthenticationError, match="900901"):
            await sdk.call(LIST, ACCOUNT)
    assert len(peer.calls) == 2
    assert fetched(peer) == (2, 1)


async def test_eight_calls_with_a_stale_token_renew_it_once(peer: Peer, open_sdk: OpenSdk) -> None:
    def stale(seen: Received) -> Chunks:
        good = seen.headers["authorization"] == "Bearer token-2"
        return respond(200, {"url": "x"}) if good else respond(401, EXPIRED_BEARER)

    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        peer.routes["callbacks/"] = stale
        await asyncio.gather(*(sdk.call(LIST, ACCOUNT) for _ in range(8)))
    assert fetched(peer) == (2, 1)


async def test_a_static_session_token_is_used_as_it_is(peer: Peer, open_sdk: OpenSdk) -> None:
    given = fotahook.VZM2mTokenCredentials("from-elsewhere")
    async with open_sdk(vz_m2m_token_credentials=given) as sdk:
        await sdk.call(LIST, ACCOUNT)
        assert peer.calls[0].headers["vz-m2m-token"] == "from-elsewhere"
        peer.routes["callbacks/"] = lambda _: respond(401, EXPIRED_SESSION)
        with pytest.raises(fotahook.AuthenticationError):
            await sdk.call(LIST, ACCOUNT)
    assert len(peer.calls) == 2


async def test_a_given_oauth_token_is_used_until_it_expires(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    given = fotahook.OauthToken("given", expiry=clock.time + 100)
    credentials = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", given)
    async with open_sdk(thingspace_oauth_credentials=credentials) as sdk:
        await sdk.call(LIST, ACCOUNT)
        assert peer.calls[0].headers["authorization"] == "Bearer given"
        clock.time += 100
        await sdk.call(LIST, ACCOUNT)
    assert peer.calls[1].headers["authorization"] == "Bearer token-1"


async def test_a_provider_stands_in_for_the_token_endpoint(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    asked: list[object] = []
    told: list[object] = []

    def provide(last: fotahook.OauthToken | None) -> fotahook.OauthToken:
        asked.append(last and last.access_token)
        return fotahook.OauthToken(f"provided-{len(asked)}", expires_in=600)

    credentials = fotahook.ThingspaceOauthCredentials(
        "an-id",
        "a-secret",
        oauth_token_provider=provide,
        oauth_on_token_update=lambda token: told.append(token.access_token),
    )
    async with open_sdk(thingspace_oauth_credentials=credentials) as sdk:
        await sdk.call(LIST, ACCOUNT)
        clock.time += 600
        await sdk.call(LIST, ACCOUNT)
    assert asked == [None, "provided-1"]
    assert told == ["provided-1", "provided-2"]
    assert [call.headers["authorization"] for call in peer.calls] == ["Bearer provided-1", "Bearer provided-2"]
    assert peer.tokens == 0


async def test_an_update_hook_sees_each_fetched_token(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    told: list[fotahook.OauthToken] = []
    credentials = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", oauth_on_token_update=told.append)
    async with open_sdk(thingspace_oauth_credentials=credentials) as sdk:
        await sdk.call(LIST, ACCOUNT)
    assert [(token.access_token, token.expiry) for token in told] == [("token-1", clock.time + 3600)]


async def test_async_hooks_are_awaited(peer: Peer) -> None:
    told: list[str] = []

    async def provide(_: object) -> fotahook.OauthToken:
        return fotahook.OauthToken("provided")

    async def update(token: fotahook.OauthToken) -> None:
        told.append(token.access_token)

    credentials = fotahook.ThingspaceOauthCredentials(
        "an-id", "a-secret", oauth_token_provider=provide, oauth_on_token_update=update
    )
    async with opened("async", peer.url, None, thingspace_oauth_credentials=credentials) as sdk:
        await sdk.call(LIST, ACCOUNT)
    async with opened("sync", peer.url, None, thingspace_oauth_credentials=credentials) as sdk:
        with pytest.raises(TypeError, match="AsyncClient"):
            await sdk.call(LIST, ACCOUNT)
    assert told == ["provided"]


async def test_a_client_takes_no_awaitable_of_another_kind() -> None:
    class Odd:
        def __await__(self) -> Any: ...

    def provide(_: object) -> Awaitable[fotahook.OauthToken]:
        return Odd()

    credentials = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", oauth_token_provider=provide)
    async with opened("sync", "http://127.0.0.1:1", None, thingspace_oauth_credentials=credentials) as sdk:
        with pytest.raises(TypeError, match="AsyncClient"):
            await sdk.call(LIST, ACCOUNT)


async def test_a_provider_that_fails_harms_only_its_own_call(peer: Peer, open_sdk: OpenSdk) -> None:
    answers: list[object] = [RuntimeError("no vault"), TimeoutError("mine"), "a string", fotahook.OauthToken("good")]

    def provide(_: object) -> Any:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    credentials = fotahook.ThingspaceOauthCredentials("an-id", "a-secret", oauth_token_provider=provide)
    async with open_sdk(thingspace_oauth_credentials=credentials) as sdk:
        with pytest.raises(RuntimeError, match="no vault"):
            await sdk.call(LIST, ACCOUNT)
        with pytest.raises(TimeoutError, match="mine"):
            await sdk.call(LIST, ACCOUNT)
        with pytest.raises(TypeError, match="must return an OauthToken or None, not str"):
            await sdk.call(LIST, ACCOUNT)
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_refused_credentials_of_the_application_say_so(peer: Peer, open_sdk: OpenSdk) -> None:
    body = {"error": "invalid_client", "error_description": "Client Authentication failed."}
    peer.routes["oauth2/token"] = lambda _: respond(401, body)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.AuthenticationError, match="oauth2/token: invalid_client: Client Auth") as caught:
            await sdk.call(LIST, ACCOUNT)
    assert caught.value.error_code == "invalid_client"
    assert len(peer.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refused_login_is_never_tried_again_by_itself(peer: Peer, open_sdk: OpenSdk, status: int) -> None:
    body = {"errorCode": "REQUEST_FAILED.Credentials", "errorMessage": "Invalid username or password"}
    logins: list[Received] = []

    def refuse(seen: Received) -> Chunks:
        logins.append(seen)
        return respond(status, body)

    inner = peer.routes["session/login"]
    peer.routes["session/login"] = refuse
    async with open_sdk() as sdk:
        results = await asyncio.gather(*(sdk.call(LIST, ACCOUNT) for _ in range(8)), return_exceptions=True)
        with pytest.raises(fotahook.LoginRefused, match="five refused logins in a row lock the account") as caught:
            await sdk.call(LIST, ACCOUNT)
        assert caught.value.status_code == status
        assert isinstance(caught.value.__cause__, fotahook.ApiException)
        assert {type(result) for result in results} == {fotahook.LoginRefused}
        assert len(logins) == 1
        with pytest.raises(fotahook.LoginRefused):
            await sdk.do("login")
        assert len(logins) == 2
        peer.routes["session/login"] = inner
        await sdk.do("login")
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_a_login_with_a_stale_oauth_token_is_no_refused_login(peer: Peer, open_sdk: OpenSdk) -> None:
    inner = peer.routes["session/login"]

    def login(seen: Received) -> Chunks:
        return respond(401, EXPIRED_BEARER) if seen.headers["authorization"] == "Bearer token-1" else inner(seen)

    peer.routes["session/login"] = login
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert peer.calls[0].headers["authorization"] == "Bearer token-2"


async def test_a_login_that_the_service_could_not_serve_is_no_refused_login(peer: Peer, open_sdk: OpenSdk) -> None:
    inner = peer.routes["session/login"]
    peer.routes["session/login"] = lambda _: respond(404)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.NotFound):
            await sdk.call(LIST, ACCOUNT)
        peer.routes["session/login"] = inner
        assert (await sdk.call(LIST, ACCOUNT)).is_success


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"access_token": ""}', b'{"access_token": "a\\r\\nX: y"}', b'{"access_token": 5}', b"[" * 9999],
)
async def test_a_token_reply_that_holds_no_token_breaks_the_contract(
    peer: Peer, open_sdk: OpenSdk, body: bytes
) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(200, body)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError) as caught:
            await sdk.call(LIST, ACCOUNT)
    assert caught.value.raw_body == b"***"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"sessionToken": "a b"}', b'{"sessionToken": "\xc3\xa4"}'])
async def test_a_login_reply_that_holds_no_token_breaks_the_contract(
    peer: Peer, open_sdk: OpenSdk, body: bytes
) -> None:
    peer.routes["session/login"] = lambda _: respond(200, body)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError):
            await sdk.call(LIST, ACCOUNT)


async def test_logout_ends_the_session_and_a_later_call_begins_one(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.do("logout")
        assert peer.seen == []
        await sdk.call(LIST, ACCOUNT)
        await sdk.do("logout")
        last = peer.seen[-1]
        assert last.target == "/api/m2m/v1/session/logout"
        assert last.headers["vz-m2m-token"] == "session-1"
        await sdk.do("logout")
        assert peer.seen[-1] is last
        await sdk.call(LIST, ACCOUNT)
    assert peer.sessions == 2


async def test_a_session_that_idled_away_is_not_begun_anew_to_be_ended(
    peer: Peer, open_sdk: OpenSdk, clock: Clock
) -> None:
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        clock.time += 20 * 60
        await sdk.do("logout")
    assert len(peer.seen) == 3


@pytest.mark.parametrize("status", [400, 401])
async def test_a_session_that_the_service_has_ended_is_not_begun_anew_to_be_ended(
    peer: Peer, open_sdk: OpenSdk, status: int
) -> None:
    ended = {"errorCode": "REQUEST_FAILED.SessionToken.Expired", "errorMessage": "x"}
    peer.routes["session/logout"] = lambda _: respond(status, ended)
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        await sdk.do("logout")
        assert len(peer.seen) == 4
        await sdk.call(LIST, ACCOUNT)
    assert peer.sessions == 2


async def test_a_refused_logout_is_told_and_begins_no_session(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["session/logout"] = lambda _: respond(401)
    async with open_sdk() as sdk:
        await sdk.call(LIST, ACCOUNT)
        with pytest.raises(fotahook.AuthenticationError):
            await sdk.do("logout")
    # The OAuth token was renewed once, because the 401 may have meant it.
    assert fetched(peer) == (2, 1)


async def test_a_login_that_cannot_be_leaves_the_static_session_as_it_is(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk(vz_m2m_token_credentials=fotahook.VZM2mTokenCredentials("from-elsewhere")) as sdk:
        with pytest.raises(ValueError, match="hold one session token and cannot log in"):
            await sdk.do("login")
        await sdk.call(LIST, ACCOUNT)
    assert peer.calls[0].headers["vz-m2m-token"] == "from-elsewhere"


async def test_a_static_session_cannot_be_begun_again(peer: Peer, open_sdk: OpenSdk) -> None:
    given = fotahook.VZM2mTokenCredentials("from-elsewhere")
    async with open_sdk(vz_m2m_token_credentials=given) as sdk:
        await sdk.do("logout")
        with pytest.raises(ValueError, match="cannot log in"):
            await sdk.call(LIST, ACCOUNT)
        with pytest.raises(ValueError, match="cannot log in"):
            await sdk.do("login")


async def test_revoking_makes_a_later_call_fetch_a_new_token(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.do("revoke_token")
        assert peer.seen == []
        await sdk.call(LIST, ACCOUNT)
        await sdk.do("revoke_token")
        last = peer.seen[-1]
        assert last.target == "/api/ts/v1/oauth2/revoke"
        assert last.headers["authorization"].startswith("Basic ")
        assert last.body == b"grant_type=client_credentials&token=token-1"
        await sdk.call(LIST, ACCOUNT)
    assert peer.tokens == 2


async def test_login_before_the_first_call_is_that_calls_session(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        await sdk.do("login")
        await sdk.call(LIST, ACCOUNT)
    assert fetched(peer) == (1, 1)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("thingspace_oauth_credentials", "ThingspaceOauthCredentials"),
        ("vz_m2m_token_credentials", "SessionCredentials"),
    ],
)
async def test_missing_credentials_are_named_at_the_first_call(
    peer: Peer, open_sdk: OpenSdk, missing: str, named: str
) -> None:
    async with open_sdk(**{missing: None}) as sdk:
        with pytest.raises(ValueError, match=f"{missing}.*{named}"):
            await sdk.call(LIST, ACCOUNT)
    assert peer.seen == []


async def test_a_session_needs_credentials_to_begin_and_to_end(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk(vz_m2m_token_credentials=None) as sdk:
        for name in ("login", "logout"):
            with pytest.raises(ValueError, match="vz_m2m_token_credentials"):
                await sdk.do(name)
    assert peer.seen == []


def test_no_repr_shows_a_secret() -> None:
    token = fotahook.OauthToken("secret-token", refresh_token="secret-refresh")
    values = [
        token,
        fotahook.ThingspaceOauthCredentials("an-id", "secret-of-client", token),
        fotahook.VZM2mTokenCredentials("secret-session"),
        fotahook.SessionCredentials("a-user", "secret-password"),
        OAUTH,
        USER,
        fotahook.Client(proxy="http://a-user:secret-of-proxy@127.0.0.1:1")._pipeline.settings,
    ]
    assert "secret-" not in repr(values)


HOUR = 3600.0
ODD_TOKENS: list[tuple[dict[str, object], float]] = [
    ({"expires_in": "3600"}, HOUR),
    ({"expires_in": "3600.0"}, HOUR),
    ({"expires_in": 3599.5}, HOUR - 0.5),
    ({"expires_in": None}, HOUR),
    ({"expires_in": "null"}, HOUR),
    ({"expires_in": ""}, HOUR),
    ({"expires_in": 0}, HOUR),
    ({"expires_in": True}, HOUR),
    ({"expires_in": [1]}, HOUR),
    ({"expires_in": -1}, float("inf")),
    ({"expires_in": 9223372036854775807}, 1e18),
    ({"token_type": None}, HOUR),
    ({"token_type": 5}, HOUR),
    ({"scope": ["a", "b"]}, HOUR),
    ({"scope": None}, HOUR),
    ({"refresh_token": False}, HOUR),
    ({"expiry": "2026-12-01T00:00:00Z"}, HOUR),
    ({"x": {"y": [1]}}, HOUR),
]


@pytest.mark.parametrize(("members", "lifetime"), ODD_TOKENS, ids=lambda value: str(value)[:40])
async def test_what_the_sdk_does_not_need_cannot_refuse_a_token(
    peer: Peer, open_sdk: OpenSdk, clock: Clock, members: dict[str, object], lifetime: float
) -> None:
    def token(_: Received) -> Chunks:
        peer.tokens += 1
        return respond(body={"access_token": f"token-{peer.tokens}", **members})

    peer.routes["oauth2/token"] = token
    async with open_sdk() as sdk:
        for _ in range(3):
            assert (await sdk.call(LIST, ACCOUNT)).is_success
        assert peer.tokens == 1
        # Renewed a minute before its end, not earlier.
        clock.time += min(lifetime, 1e12) - 61
        await sdk.call(LIST, ACCOUNT)
        assert peer.tokens == 1
        clock.time += 2
        await sdk.call(LIST, ACCOUNT)
        assert peer.tokens == (1 if lifetime > 1e12 else 2)


async def test_a_number_that_no_float_holds_is_no_lifetime(peer: Peer, open_sdk: OpenSdk) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(body=b'\xef\xbb\xbf{"access_token": "t", "expires_in": 1e999}')
    async with open_sdk() as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success


async def test_a_provider_may_leave_fetching_to_the_client(peer: Peer, open_sdk: OpenSdk) -> None:
    asked: list[fotahook.OauthToken | None] = []
    credentials = fotahook.ThingspaceOauthCredentials("an-id", "a-client-secret", oauth_token_provider=asked.append)
    async with open_sdk(thingspace_oauth_credentials=credentials) as sdk:
        assert (await sdk.call(LIST, ACCOUNT)).is_success
    assert (asked, peer.tokens) == ([None], 1)
