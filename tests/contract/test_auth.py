"""Credentials and the rules of the two tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract.auth import (
    OAUTH_LIFETIME,
    OauthToken,
    SessionCredentials,
    ThingspaceOauthCredentials,
    VZM2mTokenCredentials,
    is_refused_login,
    login_call,
    logout_call,
    renewal,
    revoke_call,
    stale_tokens,
    token_call,
)
from fotahook.contract.calls import callback_call, read_summary
from fotahook.contract.errors import ApiException
from fotahook.contract.exchange import Headers, Reply

CALL, LOGIN = callback_call("GET", "a", read_summary), login_call("u", "p")


def refused(status: int, code: str | None = None) -> ApiException:
    error = ApiException("x", reply=Reply(status, "", Headers(), b""))
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("status", "code", "stale"),
    [
        (401, "900901", (True, False)),
        (401, "900902", (True, False)),
        (401, None, (True, True)),
        (401, "INVALID_ACCESS", (True, True)),
        (401, "REQUEST_FAILED.SessionToken.Expired", (False, True)),
        (400, "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", (False, True)),
        (400, "INPUT_INVALID.SessionToken.Invalid", (False, True)),
        (403, "REQUEST_FAILED.SessionToken.Format", (False, True)),
        (400, "INVALID_PARAMETER", (False, False)),
        (403, "900901", (False, False)),
        (500, None, (False, False)),
    ],
)
def test_an_error_names_the_stale_token(status: int, code: str | None, stale: tuple[bool, bool]) -> None:
    assert stale_tokens(refused(status, code), CALL) == stale


def test_an_ambiguous_401_of_a_login_means_the_password() -> None:
    assert stale_tokens(refused(401), LOGIN) == (False, False)
    assert stale_tokens(refused(401, "900901"), LOGIN) == (True, False)


@pytest.mark.parametrize(
    ("status", "code", "counts"),
    [
        (400, None, True),
        (401, "X", True),
        (403, None, True),
        (401, "900901", False),
        (404, None, False),
        (500, None, False),
    ],
)
def test_a_refused_login_differs_from_other_failures(status: int, code: str | None, counts: bool) -> None:
    assert is_refused_login(refused(status, code)) is counts


@given(lifetime=st.floats(0, 1e9), now=st.floats(0, 4e9), skew=st.floats(0, 1e6))
def test_a_token_is_renewed_before_it_expires_but_not_at_once(lifetime: float, now: float, skew: float) -> None:
    token, renewed = renewal(OauthToken("t", expires_in=lifetime), now, skew)
    assert token.expiry is not None
    assert now + (token.expiry - now) / 2 - 1e-3 <= renewed <= token.expiry


def test_an_expiry_takes_precedence_over_expires_in() -> None:
    assert renewal(OauthToken("t"), 1000)[0].expiry == 1000 + OAUTH_LIFETIME
    assert renewal(OauthToken("t", expires_in=10), 1000)[0].expiry == 1010
    assert renewal(OauthToken("t", expires_in=10, expiry=5), 1000)[0].expiry == 5
    assert renewal(OauthToken("t", expiry=5), 1000)[1] == 1000
    assert renewal(OauthToken("t", expires_in=-10), 1000)[1] == math.inf
    assert renewal(OauthToken("t", expires_in=0), 0)[1] == 3540
    assert renewal(OauthToken("t", expires_in=3600), 0)[1] == 3540


def test_token_calls_are_secret() -> None:
    credentials = ThingspaceOauthCredentials("i", "a-secret")
    for call in (token_call(credentials), revoke_call("a b&c"), LOGIN, logout_call()):
        assert call.secret
        assert call.method == "POST"
    assert revoke_call("a b&c").body == b"grant_type=client_credentials&token=a+b%26c"
    assert LOGIN.is_login
    assert logout_call().session
    assert logout_call().ends_session
    assert "a-secret" not in repr(token_call(credentials))
    # Wherever an exchange is shown, these words are masked.
    assert token_call(credentials).secrets == ("a-secret",)
    assert revoke_call("a-token").secrets == ("a-token",)
    assert login_call("u", "a-password").secrets == ("a-password",)
    assert credentials.basic == "Basic aTphLXNlY3JldA=="


@given(st.binary())
def test_any_token_response_gives_a_token_or_a_value_error(body: bytes) -> None:
    for call in (token_call(ThingspaceOauthCredentials("i", "s")), LOGIN):
        try:
            token: object = call.read(body)
        except ValueError:
            continue
        assert isinstance(token, OauthToken | str)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ThingspaceOauthCredentials("", "s"), ValueError),
        (lambda: ThingspaceOauthCredentials("i", ""), ValueError),
        (lambda: ThingspaceOauthCredentials("i", None), TypeError),  # type: ignore[arg-type]
        (lambda: ThingspaceOauthCredentials("i", "s", OauthToken("a b")), ValueError),
        (lambda: ThingspaceOauthCredentials("i", "s", "a token"), TypeError),  # type: ignore[arg-type]
        (lambda: ThingspaceOauthCredentials("i", "s", oauth_clock_skew="1"), TypeError),  # type: ignore[arg-type]
        (lambda: ThingspaceOauthCredentials("i", "s", oauth_clock_skew=math.nan), ValueError),
        (lambda: ThingspaceOauthCredentials("i", "s", oauth_token_provider=5), TypeError),  # type: ignore[arg-type]
        (lambda: ThingspaceOauthCredentials("i", "s", oauth_on_token_update=5), TypeError),  # type: ignore[arg-type]
        (lambda: OauthToken("a\r\nX: y"), ValueError),
        (lambda: OauthToken("t", expires_in=math.nan), ValueError),
        (lambda: OauthToken("t", expiry=math.inf), ValueError),
        (lambda: OauthToken("t", expires_in="1"), TypeError),  # type: ignore[arg-type]
        (lambda: SessionCredentials("\udc80", "p"), ValueError),
        (lambda: VZM2mTokenCredentials(None), TypeError),  # type: ignore[arg-type]
        (lambda: VZM2mTokenCredentials("a\r\nX: y"), ValueError),
        (lambda: VZM2mTokenCredentials("ä"), ValueError),
        (lambda: SessionCredentials("", "p"), ValueError),
        (lambda: SessionCredentials("u", 5), TypeError),  # type: ignore[arg-type]
    ],
)
def test_invalid_credentials_are_errors(make: object, error: type[Exception]) -> None:
    assert callable(make)
    with pytest.raises(error):
        make()
