"""Credentials, and the rules of the OAuth token and the session token that every callback call needs.

The OAuth token is valid for an hour; within the hour the token endpoint returns the same token again. The session ends
after 20 idle minutes, and five refused logins in a row lock the account.
"""

import math
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import msgspec

from .calls import Call, read_json, read_nothing
from .errors import ApiException
from .servers import Server

# The documented lifetime, for a token without `expires_in`.
OAUTH_LIFETIME = 3600.0
# Tokens are renewed this long before they expire, so that none expires on the way.
OAUTH_MARGIN = 60.0
SESSION_IDLE = 20 * 60.0
SESSION_MARGIN = 30.0

# With or without a prefix such as `UnifiedWebService.`.
_SESSION_CODES = ("SessionToken.Expired", "SessionToken.Format", "SessionToken.Invalid")
# The gateway's faults about the OAuth token: 900901 invalid, 900902 missing credentials.
_BEARER_CODES = ("900901", "900902")

# A token is sent in a header: anything but visible ASCII could inject another one.
_TOKEN = re.compile(r"[\x21-\x7e]+")


class OauthToken(msgspec.Struct, frozen=True):
    """A response of the token endpoint. `expires_in` is in seconds; `expiry` is a Unix time, set by us if absent."""

    access_token: str
    token_type: str = "Bearer"
    expires_in: float | None = None
    scope: str | None = None
    expiry: float | None = None
    refresh_token: str | None = None

    def __post_init__(self) -> None:
        _require_token("access_token", self.access_token)
        for name in ("expires_in", "expiry"):
            if getattr(self, name) is not None:
                _require_number(name, getattr(self, name))

    def __repr__(self) -> str:
        return f"OauthToken(access_token='***', expiry={self.expiry})"


TokenProvider = Callable[[OauthToken | None], OauthToken | Awaitable[OauthToken]]
TokenHook = Callable[[OauthToken], Awaitable[None] | None]


class ThingspaceOauthCredentials(msgspec.Struct, frozen=True):
    """The client id and secret of an application, for OAuth client credentials.

    Args:
        oauth_client_id: The application's key.
        oauth_client_secret: The application's secret.
        oauth_token: A first token; renewed like any other.
        oauth_clock_skew: Renew this many seconds earlier, if the clock runs behind the service's.
        oauth_token_provider: Called with the last token, or None, to get a new one; replaces the token endpoint. With
            `AsyncClient` it may be a coroutine function.
        oauth_on_token_update: Called with each new token, for instance to save it for the next process.
    """

    oauth_client_id: str
    oauth_client_secret: str
    oauth_token: OauthToken | None = None
    oauth_clock_skew: float = 0
    oauth_token_provider: TokenProvider | None = None
    oauth_on_token_update: TokenHook | None = None

    def __post_init__(self) -> None:
        _require_text("oauth_client_id", self.oauth_client_id)
        _require_text("oauth_client_secret", self.oauth_client_secret)
        if not isinstance(self.oauth_token, OauthToken | None):
            raise TypeError(f"oauth_token must be an OauthToken, not {type(self.oauth_token).__name__}")
        _require_number("oauth_clock_skew", self.oauth_clock_skew)
        for name in ("oauth_token_provider", "oauth_on_token_update"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable")

    def __repr__(self) -> str:
        return f"ThingspaceOauthCredentials(oauth_client_id={self.oauth_client_id!r}, oauth_client_secret='***')"

    @property
    def basic(self) -> str:
        """The `Authorization` header of the token and revoke calls."""
        pair = f"{self.oauth_client_id}:{self.oauth_client_secret}"
        return "Basic " + b64encode(pair.encode()).decode()


class VZM2mTokenCredentials(msgspec.Struct, frozen=True):
    """A session token from elsewhere. It cannot be renewed; SessionCredentials can."""

    vz_m2m_token: str

    def __post_init__(self) -> None:
        _require_token("vz_m2m_token", self.vz_m2m_token)

    def __repr__(self) -> str:
        return "VZM2mTokenCredentials(vz_m2m_token='***')"


class SessionCredentials(msgspec.Struct, frozen=True):
    """User name and password for the session login, at the first call and again after 20 idle minutes."""

    username: str
    password: str

    def __post_init__(self) -> None:
        _require_text("username", self.username)
        _require_text("password", self.password)

    def __repr__(self) -> str:
        return f"SessionCredentials(username={self.username!r}, password='***')"


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite")


def _require_token(name: str, value: object) -> None:
    _require_text(name, value)
    if not _TOKEN.fullmatch(str(value)):
        raise ValueError(f"{name} must be visible ASCII without spaces")


class _SessionToken(msgspec.Struct, frozen=True, rename="camel"):
    session_token: str

    def __post_init__(self) -> None:
        _require_token("sessionToken", self.session_token)


_FORM = "application/x-www-form-urlencoded"


def token_call(credentials: ThingspaceOauthCredentials) -> Call[OauthToken]:
    """Fetch the OAuth token; needs `Authorization: Basic`."""
    # Not strict: some token services write `"expires_in": "3600"`.
    read = read_json(OauthToken, strict=False)
    body, secrets = b"grant_type=client_credentials", (credentials.oauth_client_secret,)
    return Call("POST", Server.OAUTH_SERVER, "/oauth2/token", read, body, _FORM, secret=True, secrets=secrets)


def revoke_call(token: str) -> Call[None]:
    """Revoke an OAuth token, so that the next token call returns a new one; needs `Authorization: Basic`."""
    path, secrets = "/oauth2/revoke", (token,)
    body = urlencode({"grant_type": "client_credentials", "token": token}).encode()
    return Call("POST", Server.OAUTH_SERVER, path, read_nothing, body, _FORM, secret=True, secrets=secrets)


def login_call(username: str, password: str) -> Call[str]:
    """Begin a session; returns its token. Needs the OAuth token only."""
    path, secrets = "/m2m/v1/session/login", (password,)
    body = msgspec.json.encode({"username": username, "password": password})
    return Call("POST", Server.THINGSPACE, path, _session_token, body, secret=True, secrets=secrets, is_login=True)


def logout_call() -> Call[None]:
    """End the session. Callback messages keep coming."""
    path = "/m2m/v1/session/logout"
    return Call("POST", Server.THINGSPACE, path, read_nothing, secret=True, session=True, ends_session=True)


def _session_token(body: bytes) -> str:
    return read_json(_SessionToken)(body).session_token


def with_expiry(token: OauthToken, now: float) -> OauthToken:
    """The token with its `expiry`, computed from `expires_in` if absent."""
    if token.expiry is not None:
        return token
    lifetime = OAUTH_LIFETIME if token.expires_in is None else token.expires_in
    return msgspec.structs.replace(token, expiry=now + lifetime)


def renewal_time(token: OauthToken, now: float, skew: float = 0) -> float:
    """When to fetch the next token, a Unix time.

    Never before half of the remaining lifetime: until it expires, the service returns the same token, so fetching it
    with every call would be useless.
    """
    left = max((with_expiry(token, now).expiry or now) - now, 0.0)
    return now + left - min(OAUTH_MARGIN + skew, left / 2)


def session_is_idle(last_used: float, now: float) -> bool:
    """Whether a session has probably ended by its idle timeout."""
    return now - last_used >= SESSION_IDLE - SESSION_MARGIN


def stale_tokens(error: ApiException, call: Call[object]) -> tuple[bool, bool]:
    """Whether an error means that the OAuth token is stale, and whether it means that the session token is.

    A 401 that names neither means both, except at a login, where it means the password. The error of a callback call
    for a stale session is not published; the codes here are those of the session calls.
    """
    code = error.error_code or ""
    if code.endswith(_SESSION_CODES):
        return False, True
    if error.status_code != 401:
        return False, False
    if code in _BEARER_CODES:
        return True, False
    return not call.is_login, not call.is_login


def is_refused_login(error: ApiException) -> bool:
    """Whether an error of the login call counts as a failed login; five of them lock the account."""
    return error.status_code in (400, 401, 403) and (error.error_code or "") not in _BEARER_CODES
