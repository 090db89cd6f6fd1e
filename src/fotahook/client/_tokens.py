"""The two tokens that all calls of a client share: kept, fetched once for all who wait, renewed.

Decides only: the calls it needs are made by a function that the flow hands in, the locks belong to the driver.
"""

from copy import copy
from typing import Protocol, TypeVar

from ..contract.auth import (
    OauthToken,
    SessionCredentials,
    ThingspaceOauthCredentials,
    VZM2mTokenCredentials,
    dated,
    is_refused_login,
    login_call,
    renewal_time,
    session_is_idle,
    token_call,
)
from ..contract.calls import Call
from ..contract.errors import ApiException, LoginRefused
from ._steps import Ask, Flow, Hold, Lock, World

T = TypeVar("T")


class Fetch(Protocol):
    """Makes a call: with the `Authorization` given, or with the OAuth token if there is none."""

    def __call__(self, call: Call[T], authorization: str | None = None) -> Flow[T]: ...


_ADVICE = "five refused logins in a row lock the account, so it is not tried again until login() is called"


class Bearer:
    """The OAuth token. `current()` is None when one must be fetched. The lock is the driver's to give."""

    lock: Lock

    def __init__(self, credentials: ThingspaceOauthCredentials, world: World) -> None:
        self.credentials = credentials
        self.world = world
        self._token: OauthToken | None = None
        self._renew_at = 0.0
        if credentials.oauth_token is not None:
            self._keep(credentials.oauth_token)

    def current(self) -> str | None:
        """The token, while it is good."""
        if self._token is None or self.world.now() >= self._renew_at:
            return None
        return self._token.access_token

    def held(self) -> str | None:
        """The token, good or not."""
        return self._token.access_token if self._token else None

    def forget(self, used: str) -> None:
        """Let go of the token that a call used in vain, unless another call has replaced it by now."""
        if self._token is not None and self._token.access_token == used:
            self._renew_at = 0.0

    def renewed(self, make: Fetch) -> Flow[str]:
        """A token good for a call; the caller holds the lock."""
        credentials = self.credentials
        if credentials.oauth_token_provider is not None:
            token = yield Ask(credentials.oauth_token_provider, self._token)
            if not isinstance(token, OauthToken):
                raise TypeError(f"oauth_token_provider must give an OauthToken, not {type(token).__name__}")
        else:
            token = yield from make(token_call(credentials), credentials.basic)
        token = self._keep(token)
        if credentials.oauth_on_token_update is not None:
            yield Ask(credentials.oauth_on_token_update, token)
        return str(token.access_token)

    def _keep(self, token: OauthToken) -> OauthToken:
        now = self.world.now()
        self._token = dated(token, now)
        self._renew_at = renewal_time(self._token, now, self.credentials.oauth_clock_skew)
        return self._token

    def drop(self) -> None:
        """Let go of the token for good."""
        self._token = None


class Session:
    """The session token, of a login or given. The lock is the driver's to give."""

    lock: Lock

    def __init__(self, credentials: SessionCredentials | VZM2mTokenCredentials, world: World) -> None:
        self.credentials = credentials
        self.world = world
        self._refused: LoginRefused | None = None
        self._token: str | None = None
        self._used_at = 0.0
        if isinstance(credentials, VZM2mTokenCredentials):
            self._token = credentials.vz_m2m_token

    @property
    def renewable(self) -> bool:
        """Whether there is a user name and password to log in with."""
        return isinstance(self.credentials, SessionCredentials)

    def current(self) -> str | None:
        """The token, while it is good; taking it keeps the session alive."""
        now = self.world.now()
        if self._token is None or (self.renewable and session_is_idle(self._used_at, now)):
            return None
        self._used_at = now
        return self._token

    def forget(self, used: str) -> None:
        """Let go of the token that a call used in vain, unless another call has replaced it by now."""
        if self._token == used:
            self._token = None

    def drop(self) -> None:
        """Let go of the token for good."""
        self._token = None

    def begin_anew(self) -> None:
        """Make way for another login, also after a refusal; ValueError if there is nothing to log in with."""
        self._login_credentials()
        self._refused = None
        self._token = None

    def renewed(self, make: Fetch) -> Flow[str]:
        """A token of a new session; the caller holds the lock."""
        credentials = self._login_credentials()
        if self._refused is not None:
            raise copy(self._refused) from self._refused.__cause__
        call = login_call(credentials.username, credentials.password)
        try:
            token = yield from make(call)
        except ApiException as error:
            # It may also be the OAuth token's call that was refused.
            of_login = error.request is not None and error.request.url.endswith(call.path)
            if not (of_login and is_refused_login(error)):
                raise
            self._refused = _login_refused(error)
            raise self._refused from error
        self._token, self._used_at = str(token), self.world.now()
        return self._token

    def _login_credentials(self) -> SessionCredentials:
        if not isinstance(self.credentials, SessionCredentials):
            raise ValueError("a VZM2mTokenCredentials is one session, and cannot begin another; SessionCredentials can")
        return self.credentials


def _login_refused(error: ApiException) -> LoginRefused:
    refused = LoginRefused(f"login refused: {str(error).rstrip('.')}; {_ADVICE}", request=error.request)
    refused.status_code, refused.headers, refused.raw_body = error.status_code, error.headers, error.raw_body
    return refused


def shared(token: Bearer | Session, make: Fetch) -> Flow[str]:
    """A good token: one flow fetches it, all others wait for that one."""
    value = token.current()
    if value is not None:
        return value
    # The same one to the end, for a fork in the middle gives the token another.
    lock = token.lock
    yield Hold(lock)
    try:
        # It may have come while this flow waited.
        return token.current() or (yield from token.renewed(make))
    finally:
        lock.release()
