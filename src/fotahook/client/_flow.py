"""The pipeline that every call goes through: tokens, retries, reading the response. Its transport does the I/O."""

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from msgspec.structs import replace

from ..contract import auth, errors
from ..contract.auth import OauthToken, SessionCredentials, VZM2mTokenCredentials
from ..contract.calls import JSON, Call
from ..contract.errors import ApiException, FotahookError
from ..contract.exchange import MASK, ApiResponse, Headers, Reply, Request, Secret, retry_after
from ..contract.servers import Servers
from ..contract.version import VERSION
from ._runtime import Runtime, Send, Transport, without_frames
from ._settings import Limits, Session, Settings

T = TypeVar("T")
log = logging.getLogger("fotahook.client")
# No compression: the limit on a body would have to count the compressed and the plain size.
_DEFAULT_HEADERS = {"User-Agent": f"fotahook/{VERSION}", "accept": JSON, "Accept-Encoding": "identity"}
# What ThingSpace's contract has. Others may carry a part of an answer, or one that a proxy changed; fotahook's own API
# has 202 too.
_ACCEPTED = frozenset({200, 201, 204})
_NO_SPAN = nullcontext[Callable[[int], object]](lambda status: None)


@dataclass(eq=False)
class Token:
    """A token that all calls of a client share until a Unix time; with `idle`, for so many seconds after each use."""

    value: Secret | None = None
    valid_until: float = 0.0
    idle: float = 0.0

    def current(self, now: float) -> Secret | None:
        if self.value is None or now >= self.valid_until:
            return None
        if self.idle:
            self.valid_until = now + self.idle
        return self.value


@dataclass(eq=False, repr=False)
class Pipeline:
    """Makes the calls of one client. Its credentials are None if no call needs them."""

    servers: Servers
    oauth_credentials: auth.ThingspaceOauthCredentials | None
    session_credentials: Session | None
    settings: Settings
    runtime: Runtime
    transport: Transport
    oauth_token: OauthToken | None = None
    refused: errors.LoginRefused | None = None

    def __post_init__(self) -> None:
        oauth, login = self.oauth_credentials, self.session_credentials
        self.bearer, self.session = Token(), Token(idle=auth.SESSION_IDLE - auth.SESSION_MARGIN)
        if oauth is not None and oauth.oauth_token is not None:
            self._keep(oauth, oauth.oauth_token)
        if isinstance(login, VZM2mTokenCredentials):
            self.session = Token(Secret(login.vz_m2m_token), math.inf)

    async def perform(self, call: Call[T], limits: Limits) -> ApiResponse[T]:
        """Make a call; if the response says that a token is stale, renew it and make the call once more."""
        self._oauth()
        if not (call.method == "GET" or call.secret):
            # The call's own key, if it has one, replaces it.
            call = replace(call, headers=(("Idempotency-Key", self.runtime.new_key()), *call.headers))
        renewed = False
        while True:
            tokens: dict[str, Secret] = {}
            # The session first: its login may find the OAuth token stale and renew it.
            if call.session:
                tokens["VZ-M2M-Token"] = await self._valid(self.session, limits)
            tokens["Authorization"] = await self._valid(self.bearer, limits)
            try:
                return await self._with_retries(call, tokens, limits)
            except ApiException as error:
                bearer_stale, session_stale = auth.stale_tokens(error, call)
                # A session that was given, or that is to end, is not begun again.
                is_renewable = call.session and isinstance(self.session_credentials, SessionCredentials)
                session_stale = session_stale and is_renewable and not call.ends_session
                if renewed or not (bearer_stale or session_stale):
                    error.attempts += renewed
                    raise
                # Another call may have replaced a token meanwhile.
                if bearer_stale and self.bearer.value == tokens["Authorization"]:
                    self.bearer.valid_until = 0.0
                if session_stale and self.session.value == tokens["VZ-M2M-Token"]:
                    self.session.valid_until = 0.0
                renewed = True

    async def login(self, limits: Limits) -> None:
        self._login()
        self.session.value = self.refused = None
        await self._valid(self.session, limits)

    async def logout(self, limits: Limits) -> None:
        call = auth.logout_call()
        if self.session_credentials is None:
            self._login()
        # After the idle timeout there is nothing to end.
        if self.session.current(self.runtime.now()) is not None:
            try:
                await self.perform(call, limits)
            except ApiException as error:
                # If only the session token is stale, the session has already ended.
                if auth.stale_tokens(error, call) != (False, True):
                    raise
        self.session.value = None

    async def revoke_token(self, limits: Limits) -> None:
        basic = {"Authorization": Secret(self._oauth().basic)}
        if self.oauth_token is not None:
            await self._with_retries(auth.revoke_call(self.oauth_token.access_token), basic, limits)
            self.bearer.value = self.oauth_token = None

    async def _valid(self, token: Token, limits: Limits) -> Secret:
        """A valid token: one flow fetches it while all others wait."""
        found = token.current(self.runtime.now())
        if found is None:
            # A fork meanwhile makes new locks; the one that was acquired is the one to release.
            release = await self.transport.acquire(token, limits.deadline)
            try:
                # Another flow may have fetched it meanwhile.
                fetch = self._fetch_session if token is self.session else self._fetch_bearer
                found = token.current(self.runtime.now()) or await fetch(limits)
            finally:
                release()
        return found

    async def _fetch_bearer(self, limits: Limits) -> Secret:
        oauth, token = self._oauth(), None
        if oauth.oauth_token_provider is not None:
            token = await self.transport.invoke(oauth.oauth_token_provider, self.oauth_token, limits.deadline)
            if not isinstance(token, OauthToken | None):
                raise TypeError(f"oauth_token_provider must return an OauthToken or None, not {type(token).__name__}")
        if token is None:
            basic = {"Authorization": Secret(oauth.basic)}
            token = (await self._with_retries(auth.token_call(oauth), basic, limits)).data
        header = self._keep(oauth, token)
        if oauth.oauth_on_token_update is not None:
            await self.transport.invoke(oauth.oauth_on_token_update, self.oauth_token, limits.deadline)
        return header

    def _keep(self, oauth: auth.ThingspaceOauthCredentials, token: OauthToken) -> Secret:
        renewal = auth.renewal(token, self.runtime.now(), oauth.oauth_clock_skew)
        self.oauth_token, self.bearer.valid_until = renewal
        self.bearer.value = header = Secret(f"Bearer {token.access_token}")
        return header

    async def _fetch_session(self, limits: Limits) -> Secret:
        credentials = self._login()
        if self.refused is not None:
            raise copy(self.refused) from self.refused.__cause__
        call = auth.login_call(credentials.username, credentials.password)
        try:
            self.session.value = token = (await self.perform(call, limits)).data
        except ApiException as error:
            # The error may also come from the OAuth token call.
            of_login = error.request is not None and error.request.url.endswith(call.path)
            if not (of_login and auth.is_refused_login(error)):
                raise
            advice = "five refused logins in a row lock the account, so it is not tried again until login() is called"
            text = f"login refused: {str(error).rstrip('.')}; {advice}"
            reply = Reply(error.status_code, "", error.headers, error.raw_body)
            self.refused = errors.LoginRefused(text, request=error.request, reply=reply)
            raise self.refused from error
        self.session.valid_until = self.runtime.now() + self.session.idle
        return token

    def _oauth(self) -> auth.ThingspaceOauthCredentials:
        if self.oauth_credentials is None:
            raise ValueError("this call needs thingspace_oauth_credentials, a ThingspaceOauthCredentials")
        return self.oauth_credentials

    def _login(self) -> SessionCredentials:
        if self.session_credentials is None:
            raise ValueError("this call needs vz_m2m_token_credentials, a SessionCredentials or VZM2mTokenCredentials")
        if not isinstance(self.session_credentials, SessionCredentials):
            raise ValueError("VZM2mTokenCredentials hold one session token and cannot log in; use SessionCredentials")
        return self.session_credentials

    async def _with_retries(self, call: Call[T], secrets: dict[str, Secret], limits: Limits) -> ApiResponse[T]:
        retries, attempts = 0, 0
        while True:
            attempts += 1
            try:
                return await self._send(call, secrets, attempts, limits)
            except (ApiException, errors.TransportError, errors.ResponseError) as failure:
                failure.attempts = attempts
                if failure.kept_connection and attempts == retries + 1 and call.repeatable:
                    # Servers close idle connections at any time: this one says nothing about the service.
                    log.debug("again on a new connection: %s", failure)
                    continue
                retries += 1
                delay = retry_delay(failure, retries, now=self.runtime.now(), jitter=self.runtime.jitter())
                # The failure itself, now, tells the caller more than a TimedOut after the wait.
                late = delay is not None and self.runtime.monotonic() + delay >= limits.deadline
                if delay is None or late or retries > limits.max_retries:
                    log.debug("failed%s: %s", f" after {attempts} attempts" if attempts > 1 else "", failure)
                    raise
                log.debug("retrying in %.1f s (%d of %d): %s", delay, retries, limits.max_retries, failure)
            await self.transport.sleep(delay)

    async def _send(self, call: Call[T], secrets: dict[str, Secret], attempt: int, limits: Limits) -> ApiResponse[T]:
        url, headers = self.servers[call.server] + call.path, dict(_DEFAULT_HEADERS)
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        headers.update(call.headers)
        # If OpenTelemetry is not loaded, there is no span to continue and nobody to export one.
        traced = "opentelemetry.trace" in sys.modules
        with _span(call.method, url, headers, attempt) if traced else _NO_SPAN as note_status:
            masked = Headers({**headers, **dict.fromkeys(secrets, MASK)}.items())
            body = MASK.encode() if call.secret and call.body is not None else call.body
            send = Send(Request(call.method, url, masked, body), headers, secrets, call.body, call.streamed)
            if self.settings.on_request is not None:
                await self.transport.invoke(self.settings.on_request, send.request, limits.deadline)
            try:
                reply = await self.transport.send(send, limits.deadline)
            except FotahookError as failure:
                _mask_error(failure, call, send)
                raise
            note_status(reply.status)
            reply = errors.decoded(reply, send.request)
            error = None
            if not (reply.status in _ACCEPTED or (reply.status == 202 and call.server is None)):
                error = errors.error_from_reply(reply, send.request, call.error_400, _secrets(call, send))
            if self.settings.on_response is not None:
                seen, lines = _masked(call, reply, send), () if error is None else (str(error),)
                response = ApiResponse(seen.status, seen.reason, seen.headers, seen.body, send.request, None, lines)
                await self.transport.invoke(self.settings.on_response, response, limits.deadline)
            if error is not None:
                raise error
            try:
                data = cast("T", reply.stream) if call.streamed else call.read(reply.body)
            except ValueError as problem:
                # The cause may quote the body.
                cause = None if call.secret else problem
                text = f"breaks the contract: {problem}"
                raise errors.response_error(text, send.request, _masked(call, reply, send)) from cause
        log.debug("%s %s: %d, %d bytes", call.method, url, reply.status, len(reply.body))
        # The caller gets the body unmasked, except that of a token call.
        seen = _masked(call, reply, send) if call.secret else reply
        return ApiResponse(seen.status, seen.reason, seen.headers, seen.body, send.request, data)


def _secrets(call: Call[T], send: Send) -> list[str]:
    """What no error or log may contain: the tokens sent, and the secrets of the body."""
    headers = [secret.reveal() for secret in send.secrets.values()]
    return [*headers, *(value.partition(" ")[2] for value in headers), *call.secrets]


def _masked(call: Call[T], reply: Reply, send: Send) -> Reply:
    if call.secret:
        return Reply(reply.status, errors.mask_text(reply.reason, _secrets(call, send)), Headers(), MASK.encode())
    return errors.mask_reply(reply, _secrets(call, send))


def _mask_error(failure: FotahookError, call: Call[T], send: Send) -> None:
    secrets, cause = _secrets(call, send), failure.__cause__
    failure.args = (errors.mask_text(str(failure), secrets),)
    # A parser's error quotes what it could not parse.
    if cause is not None and any(str(each) != errors.mask_text(str(each), secrets) for each in without_frames(cause)):
        failure.__cause__ = failure.__context__ = None
    if isinstance(failure, errors.AnsweredError):
        masked = _masked(call, Reply(failure.status_code, "", failure.headers, failure.raw_body), send)
        failure.headers, failure.raw_body = masked.headers, masked.body


FIRST_BACKOFF = 0.5
MAX_BACKOFF = 8.0
MAX_RETRY_AFTER = 60.0


def retry_delay(failure: FotahookError, attempts: int, *, now: float, jitter: float) -> float | None:
    """Seconds to wait before the next attempt, after so many; None if the failure is final. `jitter` is from 0 to 1."""
    if isinstance(failure, ApiException):
        if failure.status_code not in (408, 429) and failure.status_code < 500:
            return None
        requested = retry_after(failure.headers.get("retry-after"), now)
        if requested is not None:
            return min(requested, MAX_RETRY_AFTER)
    elif not isinstance(failure, errors.ConnectionFailed):
        return None
    # Half of the backoff is random, so that clients do not all return in the same moment after an outage.
    backoff = min(FIRST_BACKOFF * 2.0 ** min(attempts - 1, 10), MAX_BACKOFF)
    return backoff * (1 + jitter) / 2


@contextmanager
def _span(method: str, url: str, headers: dict[str, str], attempt: int) -> Iterator[Callable[[int], object]]:
    """The span of a request, with its `traceparent` in the headers; the value notes the status of the response."""
    from opentelemetry import propagate, trace

    known: dict[str, str | int] = {"http.request.method": method, "url.full": url}
    known["http.request.resend_count"] = attempt - 1
    span = trace.get_tracer("fotahook", VERSION).start_span(method, kind=trace.SpanKind.CLIENT, attributes=known)
    propagate.inject(headers, trace.set_span_in_context(span))
    try:
        yield partial(span.set_attribute, "http.response.status_code")
    except BaseException as error:
        span.set_status(trace.StatusCode.ERROR)
        span.set_attribute("error.type", type(error).__qualname__)
        raise
    finally:
        span.end()
