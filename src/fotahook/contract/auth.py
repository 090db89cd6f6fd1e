"""Credentials, and the rules of the OAuth token and the session token that every callback call needs.

The OAuth token is valid for an hour, in which the token endpoint returns it again. The session ends after 20 idle
minutes, and five refused logins in a row lock the account.
"""

import math
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any
from urllib.parse import urlencode

import msgspec

from .calls import Call, read_json, read_nothing
from .errors import ApiException
from .exchange import Hidden, Secret, require
from .servers import Server

# The documented lifetime, for a token without `expires_in`.
OAUTH_LIFETIME = 3600.0
# Tokens are renewed this long before they expire, so that none expires on the way.
OAUTH_MARGIN = 60.0
SESSION_IDLE = 20 * 60.0
SESSION_MARGIN = 30.0
_FORM = "application/x-www-form-urlencoded"
# With or without a prefix such as `UnifiedWebService.`.
_SESSION_CODES = ("SessionToken.Expired", "SessionToken.Format", "SessionToken.Invalid")
# The gateway's faults about the OAuth token: 900901 invalid, 900902 missing credentials.
_BEARER_CODES = ("900901", "900902")
# A token is sent in a header: anything but visible ASCII could inject another one.
_TOKEN = re.compile(r"[\x21-\x7e]+")


class OauthToken(Hidden):
    """A response of the token endpoint: `expires_in` is in seconds (below zero: never), `expiry` a Unix time."""

    __slots__ = ("_access_token", "_refresh_token", "expires_in", "expiry", "scope", "token_type")
    access_token: str
    refresh_token: str | None
    """A token that this SDK never uses: client credentials get a new one."""

    def __init__(
        self,
        access_token: str,
        token_type: str = "Bearer",
        expires_in: float | None = None,
        scope: str | None = None,
        expiry: float | None = None,
        refresh_token: str | None = None,
    ) -> None:
        self._access_token, self._refresh_token = _require_token("access_token", access_token), refresh_token
        for name, value in (("expires_in", expires_in), ("expiry", expiry)):
            if value is not None:
                _require_number(name, value)
        self.token_type, self.expires_in, self.scope, self.expiry = token_type, expires_in, scope, expiry

    def to_dict(self) -> dict[str, object]:
        """All of it, the token included, to be stored; `OauthToken(**stored)` is the same again."""
        values = {name.lstrip("_"): getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value not in (None, math.inf)}


TokenProvider = Callable[[OauthToken | None], OauthToken | Awaitable[OauthToken | None] | None]
TokenHook = Callable[[OauthToken], Awaitable[None] | None]


class ThingspaceOauthCredentials(Hidden):
    """The client id and secret of an application, for OAuth client credentials.

    Args:
        oauth_client_id: The application's key.
        oauth_client_secret: The application's secret.
        oauth_token: A first token; renewed like any other.
        oauth_clock_skew: Renew this many seconds earlier, if the clock runs behind the service's.
        oauth_token_provider: Called with the last token, or None, to get a new one. If it returns None, the token
            endpoint is asked as usual. With `AsyncClient` it may be a coroutine function.
        oauth_on_token_update: Called with each new token, for instance to save it for the next process.
    """

    __slots__ = (
        "_oauth_client_secret",
        "oauth_client_id",
        "oauth_clock_skew",
        "oauth_on_token_update",
        "oauth_token",
        "oauth_token_provider",
    )
    oauth_client_secret: str

    def __init__(
        self,
        oauth_client_id: str,
        oauth_client_secret: str,
        oauth_token: OauthToken | None = None,
        oauth_clock_skew: float = 0,
        oauth_token_provider: TokenProvider | None = None,
        oauth_on_token_update: TokenHook | None = None,
    ) -> None:
        self.oauth_client_id = _require_text("oauth_client_id", oauth_client_id)
        self._oauth_client_secret = _require_text("oauth_client_secret", oauth_client_secret)
        require("oauth_token", oauth_token, OauthToken | None, "an OauthToken")
        _require_number("oauth_clock_skew", oauth_clock_skew)
        self.oauth_token, self.oauth_clock_skew = oauth_token, oauth_clock_skew
        self.oauth_token_provider, self.oauth_on_token_update = oauth_token_provider, oauth_on_token_update
        for name in ("oauth_token_provider", "oauth_on_token_update"):
            if not (getattr(self, name) is None or callable(getattr(self, name))):
                raise TypeError(f"{name} must be callable")

    @property
    def basic(self) -> str:
        return "Basic " + b64encode(f"{self.oauth_client_id}:{self._oauth_client_secret}".encode()).decode()


class VZM2mTokenCredentials(Hidden):
    """A session token from elsewhere. It cannot be renewed; SessionCredentials can."""

    __slots__ = ("_vz_m2m_token",)
    vz_m2m_token: str

    def __init__(self, vz_m2m_token: str) -> None:
        self._vz_m2m_token = _require_token("vz_m2m_token", vz_m2m_token)


class SessionCredentials(Hidden):
    """User name and password for the session login, at the first call and again after 20 idle minutes."""

    __slots__ = ("_password", "username")
    password: str

    def __init__(self, username: str, password: str) -> None:
        self.username, self._password = _require_text("username", username), _require_text("password", password)


def _require_text(name: str, value: str) -> str:
    require(name, value, str)
    if not value:
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None
    return value


def _require_number(name: str, value: float) -> None:
    require(name, value, int | float, "a number of seconds")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite")


def _require_token(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(_require_text(name, value)):
        raise ValueError(f"{name} must be visible ASCII without spaces")
    return value


def token_call(credentials: ThingspaceOauthCredentials) -> Call[OauthToken]:
    body, secrets = b"grant_type=client_credentials", (credentials.oauth_client_secret,)
    return Call("POST", Server.OAUTH_SERVER, "/oauth2/token", _read_token, body, _FORM, secret=True, secrets=secrets)


def revoke_call(token: str) -> Call[None]:
    """Revoke an OAuth token, so that the next token call returns a new one."""
    path, secrets = "/oauth2/revoke", (token,)
    body = urlencode({"grant_type": "client_credentials", "token": token}).encode()
    return Call("POST", Server.OAUTH_SERVER, path, read_nothing, body, _FORM, secret=True, secrets=secrets)


def login_call(username: str, password: str) -> Call[Secret]:
    path, secrets = "/m2m/v1/session/login", (password,)
    body = msgspec.json.encode({"username": username, "password": password})
    return Call("POST", Server.THINGSPACE, path, _read_session, body, secret=True, secrets=secrets, is_login=True)


def logout_call() -> Call[None]:
    path = "/m2m/v1/session/logout"
    return Call("POST", Server.THINGSPACE, path, read_nothing, secret=True, session=True, ends_session=True)


_members = read_json(dict[str, msgspec.Raw])


def _read_session(body: bytes) -> Secret:
    return Secret(_required(_members(body), "sessionToken"))


def _read_token(body: bytes) -> OauthToken:
    """The token in a response. Only `access_token` is required: what else is odd counts as missing."""
    members = _members(body)
    try:
        # Some services write it as text.
        seconds = float(_member(members, "expires_in", float | str) or 0)
    except ValueError:
        seconds = 0
    return OauthToken(
        _required(members, "access_token"),
        _member(members, "token_type", str) or "Bearer",
        seconds if seconds and math.isfinite(seconds) else None,
        _member(members, "scope", str),
    )


def _member(members: dict[str, msgspec.Raw], name: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(members[name], type=kind)
    except (KeyError, ValueError):
        return None


def _required(members: dict[str, msgspec.Raw], name: str) -> str:
    if (value := _member(members, name, str)) is None:
        raise ValueError(f"there is no {name}")
    return _require_token(name, value)


def renewal(token: OauthToken, now: float, skew: float = 0) -> tuple[OauthToken, float]:
    """The token with its `expiry`, and when to fetch the next one: before half of its lifetime it would be the same."""
    expiry = token.expiry
    if expiry is None:
        token, lifetime = copy(token), token.expires_in or OAUTH_LIFETIME
        token.expiry = expiry = math.inf if lifetime < 0 else now + lifetime
    left = max(expiry - now, 0.0)
    return token, now + left - min(OAUTH_MARGIN + skew, left / 2)


def stale_tokens(error: ApiException, call: Call[object]) -> tuple[bool, bool]:
    """Whether an error means that the OAuth token is stale, and whether it means that the session token is.

    A 401 that names neither means both, except at a login, where it means the password. The codes are those of the
    session calls; what a callback call has for a stale session is not published.
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
