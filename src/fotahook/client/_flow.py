"""The pipeline that every call goes through: tokens, retries, reading the response. Its transport does the I/O."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from ..contract.auth import logout_call, revoke_call, stale_tokens
from ..contract.calls import JSON, Call
from ..contract.errors import (
    AnsweredError,
    ApiException,
    ConnectionFailed,
    FotahookError,
    ResponseError,
    TransportError,
    decoded,
    error_from_reply,
    mask_reply,
    mask_text,
    response_error,
)
from ..contract.exchange import MASK, ApiResponse, Headers, Reply, Request, Secret, retry_after
from ..contract.servers import Environment, Servers, servers_of
from ..contract.version import VERSION
from ._runtime import Runtime, Send, Transport, without_frames
from ._settings import Limits, Settings
from ._tokens import BearerToken, SessionToken

T = TypeVar("T")

log = logging.getLogger("fotahook.client")

# No compression: the limit on a body would have to count the compressed and the plain size.
_DEFAULT_HEADERS = {"User-Agent": f"fotahook/{VERSION}", "accept": JSON, "Accept-Encoding": "identity"}

# What ThingSpace's contract has. Others may carry a part of an answer, or one that a proxy changed; fotahook's own API
# has 202 too.
_ACCEPTED = frozenset({200, 201, 204})


@dataclass(repr=False, eq=False)
class Pipeline:
    """Makes the calls of one client. `session` is None if no call needs one."""

    servers: Servers
    bearer: BearerToken | None
    session: SessionToken | None
    settings: Settings
    runtime: Runtime
    transport: Transport

    def described(self) -> str:
        """Where it sends calls, and as whom, without secrets."""
        known = (each for each in Environment if servers_of(each) == self.servers)
        where = next((f"environment={each.value}" for each in known), f"base_url={self.servers.get(None)!r}")
        client = self.bearer and self.bearer.credentials.oauth_client_id
        return f"{where}, oauth_client_id={client!r}, session={self.session and self.session.credentials!r}"

    async def perform(self, call: Call[T], limits: Limits) -> ApiResponse[T]:
        """Make a call; if the response says that a token is stale, renew it and make the call once more."""
        bearer, session = self._require_bearer(), self._require_session() if call.session else None
        key = None if call.method == "GET" or call.secret else self.runtime.new_key()
        renewed = False
        while True:
            tokens: dict[str, Secret] = {}
            # The session first: its login may find the OAuth token stale and renew it.
            if session is not None:
                tokens["VZ-M2M-Token"] = session.current() or await self._fetch(session, limits)
            tokens["Authorization"] = bearer.current() or await self._fetch(bearer, limits)
            try:
                return await self._with_retries(call, tokens, key, limits)
            except ApiException as error:
                if renewed or not self._invalidate_stale(error, call, tokens):
                    error.attempts += renewed
                    raise
                renewed = True

    async def login(self, limits: Limits) -> None:
        """Begin a new session, even after a refused login."""
        session = self._require_session()
        session.reset()
        await self._fetch(session, limits)

    async def logout(self, limits: Limits) -> None:
        """End the session, if there is one."""
        session = self._require_session()
        # After the idle timeout there is nothing to end.
        if session.current() is not None:
            try:
                await self.perform(logout_call(), limits)
            except ApiException as error:
                # If only the session token is stale, the session has already ended.
                if stale_tokens(error, logout_call()) != (False, True):
                    raise
        session.clear()

    async def revoke_token(self, limits: Limits) -> None:
        """Revoke the OAuth token, if there is one."""
        bearer = self._require_bearer()
        token = bearer.last
        if token is not None:
            basic = {"Authorization": Secret(bearer.credentials.basic)}
            await self._with_retries(revoke_call(token.reveal()), basic, None, limits)
            bearer.clear()

    async def _fetch(self, token: BearerToken | SessionToken, limits: Limits) -> Secret:
        """A valid token: one flow fetches it while all others wait."""
        send = partial(self._token_call, limits)
        invoke = partial(self.transport.invoke, deadline=limits.deadline)
        # A fork meanwhile makes new locks; the one that was acquired is the one to release.
        lock = await self.transport.acquire(token, limits.deadline)
        try:
            # Another flow may have fetched it meanwhile.
            return token.current() or await token.fetch(send, invoke)
        finally:
            lock.release()

    async def _token_call(self, limits: Limits, call: Call[T], authorization: Secret | None = None) -> T:
        if authorization is None:
            return (await self.perform(call, limits)).data
        return (await self._with_retries(call, {"Authorization": authorization}, None, limits)).data

    def _require_bearer(self) -> BearerToken:
        if self.bearer is None:
            raise ValueError("this call needs thingspace_oauth_credentials, a ThingspaceOauthCredentials")
        return self.bearer

    def _require_session(self) -> SessionToken:
        if self.session is None:
            raise ValueError("this call needs vz_m2m_token_credentials, a SessionCredentials or VZM2mTokenCredentials")
        return self.session

    def _invalidate_stale(self, error: ApiException, call: Call[T], used: dict[str, Secret]) -> bool:
        """Invalidate the tokens that an error reports as stale; whether one of them can be renewed."""
        bearer_stale, session_stale = stale_tokens(error, call)
        if bearer_stale and self.bearer is not None:
            self.bearer.invalidate(used["Authorization"])
        session, token = self.session, used.get("VZ-M2M-Token")
        if session_stale and token is not None and session is not None and session.renewable and not call.ends_session:
            session.invalidate(token)
            return True
        return bearer_stale

    async def _with_retries(
        self, call: Call[T], secrets: dict[str, Secret], key: str | None, limits: Limits
    ) -> ApiResponse[T]:
        """Send a call until it succeeds, fails for good or runs out of retries."""
        retries, attempts = 0, 0
        while True:
            attempts += 1
            try:
                return await self._send(call, secrets, key, attempts, limits)
            except (ApiException, TransportError, ResponseError) as failure:
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

    async def _send(
        self, call: Call[T], secrets: dict[str, Secret], key: str | None, attempt: int, limits: Limits
    ) -> ApiResponse[T]:
        """Send one request and read its response."""
        url, headers = self.servers[call.server] + call.path, dict(_DEFAULT_HEADERS)
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if key is not None:
            headers["Idempotency-Key"] = key
        headers.update(call.headers)
        with trace_request(call.method, url, headers, attempt) as note_status:
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
            reply = decoded(reply, send.request)
            accepted = reply.status in _ACCEPTED or (reply.status == 202 and call.server is None)
            error = None if accepted else error_from_reply(reply, send.request, call.error_400, _secrets(call, send))
            if self.settings.on_response is not None:
                errors = () if error is None else (str(error),)
                seen = _response(_masked(call, reply, send), send, None, *errors)
                await self.transport.invoke(self.settings.on_response, seen, limits.deadline)
            if error is not None:
                raise error
            try:
                data = cast("T", reply.stream) if call.streamed else call.read(reply.body)
            except ValueError as problem:
                # The cause may quote the body.
                cause = None if call.secret else problem
                text = f"breaks the contract: {problem}"
                raise response_error(text, send.request, _masked(call, reply, send)) from cause
        log.debug("%s %s: %d, %d bytes", call.method, url, reply.status, len(reply.body))
        # The caller gets the body unmasked, except that of a token call.
        return _response(_masked(call, reply, send) if call.secret else reply, send, data)


def _secrets(call: Call[T], send: Send) -> list[str]:
    """What no error or log may contain: the tokens sent, and the secrets of the body."""
    headers = [secret.reveal() for secret in send.secrets.values()]
    return [*headers, *(value.partition(" ")[2] for value in headers), *call.secrets]


def _masked(call: Call[T], reply: Reply, send: Send) -> Reply:
    """The reply without secrets: a token call's body is one, any other body may echo one."""
    if call.secret:
        return Reply(reply.status, mask_text(reply.reason, _secrets(call, send)), Headers(), MASK.encode())
    return mask_reply(reply, _secrets(call, send))


def _mask_error(failure: FotahookError, call: Call[T], send: Send) -> None:
    """Mask a transport error: a response that is not HTTP, or too large, may echo secrets too."""
    secrets, cause = _secrets(call, send), failure.__cause__
    failure.args = (mask_text(str(failure), secrets),)
    # A parser's error quotes what it could not parse.
    if cause is not None and any(str(each) != mask_text(str(each), secrets) for each in without_frames(cause)):
        failure.__cause__ = failure.__context__ = None
    if isinstance(failure, AnsweredError):
        masked = _masked(call, Reply(failure.status_code, "", failure.headers, failure.raw_body), send)
        failure.headers, failure.raw_body = masked.headers, masked.body


def _response(reply: Reply, send: Send, data: T, *errors: str) -> ApiResponse[T]:
    return ApiResponse(reply.status, reply.reason, reply.headers, reply.body, send.request, data, errors)


FIRST_BACKOFF = 0.5
MAX_BACKOFF = 8.0
MAX_RETRY_AFTER = 60.0


def retry_delay(failure: FotahookError, attempts: int, *, now: float, jitter: float) -> float | None:
    """Seconds to wait before the next attempt; None if the failure is final.

    Failed connections and the statuses 408, 429 and 5xx are retried. `attempts` counts those made, `now` is a Unix
    time, `jitter` lies between 0 and 1. `Retry-After` is honoured up to a minute.
    """
    if isinstance(failure, ApiException):
        if failure.status_code not in (408, 429) and failure.status_code < 500:
            return None
        requested = retry_after(failure.headers.get("retry-after"), now)
        if requested is not None:
            return min(requested, MAX_RETRY_AFTER)
    elif not isinstance(failure, ConnectionFailed):
        return None
    # Half of the backoff is random, so that clients do not all return in the same moment after an outage.
    backoff = min(FIRST_BACKOFF * 2.0 ** min(attempts - 1, 10), MAX_BACKOFF)
    return backoff * (1 + jitter) / 2


Trace = AbstractContextManager[Callable[[int], object]]
"""The time of a request; its value notes the status of the response."""

_NO_TRACE: Trace = nullcontext(lambda status: None)


def trace_request(method: str, url: str, headers: dict[str, str], attempt: int) -> Trace:
    """Begin the span of a request if the program uses OpenTelemetry, and add its `traceparent` to the headers."""
    # If OpenTelemetry is not loaded, there is no span to continue and nobody to export one.
    return _span(method, url, headers, attempt) if "opentelemetry.trace" in sys.modules else _NO_TRACE


@contextmanager
def _span(method: str, url: str, headers: dict[str, str], attempt: int) -> Iterator[Callable[[int], object]]:
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
