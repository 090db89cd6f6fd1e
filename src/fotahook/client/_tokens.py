"""The OAuth token and the session token that all calls of a client share: cached, fetched once, renewed.

No I/O: functions that the flow passes in send the token calls and call the user's functions.
"""

from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any, TypeAlias

from ..contract import auth
from ..contract.errors import ApiException, LoginRefused
from ..contract.exchange import Reply, Secret
from ._runtime import Runtime

_LOGIN_ADVICE = "five refused logins in a row lock the account, so it is not tried again until login() is called"

SendCall: TypeAlias = Callable[..., Awaitable[Any]]
"""Sends a call with the given `Authorization` header, or with the OAuth token if there is none; returns its data."""
Invoke: TypeAlias = Callable[[Callable[[Any], object], object], Awaitable[Any]]
"""Calls a function of the user's with an argument."""


class BearerToken:
    """The OAuth token."""

    def __init__(self, credentials: auth.ThingspaceOauthCredentials, runtime: Runtime) -> None:
        self.credentials, self._runtime = credentials, runtime
        self._token: auth.OauthToken | None = None
        self._header = Secret("")
        self._renew_at = 0.0
        if credentials.oauth_token is not None:
            self._store(credentials.oauth_token)

    @property
    def last(self) -> Secret | None:
        """The last token, valid or not."""
        return Secret(self._token.access_token) if self._token else None

    def current(self) -> Secret | None:
        """The `Authorization` header, or None if the token must be fetched."""
        if self._token is None or self._runtime.now() >= self._renew_at:
            return None
        return self._header

    def invalidate(self, used: Secret) -> None:
        """Stop using a token that was rejected, unless another call has already replaced it."""
        if self._token is not None and self._header == used:
            self._renew_at = 0.0

    def clear(self) -> None:
        """Forget the token."""
        self._token = None

    async def fetch(self, send: SendCall, invoke: Invoke) -> Secret:
        """Fetch and cache a token; the caller holds the lock."""
        credentials, token = self.credentials, None
        if credentials.oauth_token_provider is not None:
            token = await invoke(credentials.oauth_token_provider, self._token)
            if not isinstance(token, auth.OauthToken | None):
                raise TypeError(f"oauth_token_provider must return an OauthToken or None, not {type(token).__name__}")
        if token is None:
            token = await send(auth.token_call(credentials), Secret(credentials.basic))
        self._store(token)
        if credentials.oauth_on_token_update is not None:
            await invoke(credentials.oauth_on_token_update, self._token)
        return self._header

    def _store(self, token: auth.OauthToken) -> None:
        now = self._runtime.now()
        self._token = auth.with_expiry(token, now)
        self._header = Secret(f"Bearer {token.access_token}")
        self._renew_at = auth.renewal_time(self._token, now, self.credentials.oauth_clock_skew)


class SessionToken:
    """The session token, from a login or given. `renewable` with a user name and password to log in with."""

    def __init__(self, credentials: auth.SessionCredentials | auth.VZM2mTokenCredentials, runtime: Runtime) -> None:
        self.credentials, self._runtime = credentials, runtime
        self._refused: LoginRefused | None = None
        given = credentials.vz_m2m_token if isinstance(credentials, auth.VZM2mTokenCredentials) else None
        self._token = None if given is None else Secret(given)
        self.renewable = given is None
        self._used_at = 0.0

    def current(self) -> Secret | None:
        """The token, or None if it must be fetched. Restarts the idle timeout."""
        now = self._runtime.now()
        if self._token is None or (self.renewable and auth.session_is_idle(self._used_at, now)):
            return None
        self._used_at = now
        return self._token

    def invalidate(self, used: Secret) -> None:
        """Forget a token that was rejected, unless another call has already replaced it."""
        if self._token == used:
            self._token = None

    def clear(self) -> None:
        """Forget the token."""
        self._token = None

    def reset(self) -> None:
        """Forget the token and an earlier refusal; ValueError if there is nothing to log in with."""
        self._login_credentials()
        self._token = self._refused = None

    async def fetch(self, send: SendCall, _: Invoke) -> Secret:
        """Log in and cache the token; the caller holds the lock."""
        credentials = self._login_credentials()
        if self._refused is not None:
            raise copy(self._refused) from self._refused.__cause__
        call = auth.login_call(credentials.username, credentials.password)
        try:
            token: Secret = await send(call)
        except ApiException as error:
            # The error may also come from the OAuth token call.
            of_login = error.request is not None and error.request.url.endswith(call.path)
            if not (of_login and auth.is_refused_login(error)):
                raise
            text = f"login refused: {str(error).rstrip('.')}; {_LOGIN_ADVICE}"
            reply = Reply(error.status_code, "", error.headers, error.raw_body)
            self._refused = LoginRefused(text, request=error.request, reply=reply)
            raise self._refused from error
        self._token, self._used_at = token, self._runtime.now()
        return token

    def _login_credentials(self) -> auth.SessionCredentials:
        if not isinstance(self.credentials, auth.SessionCredentials):
            raise ValueError("VZM2mTokenCredentials hold one session token and cannot log in; use SessionCredentials")
        return self.credentials
