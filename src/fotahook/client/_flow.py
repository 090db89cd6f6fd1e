"""The pipeline that every call goes through: tokens, retries, reading the response. No I/O."""

import logging
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

import msgspec

from ..contract.auth import ThingspaceOauthCredentials, logout_call, revoke_call, stale_tokens
from ..contract.calls import JSON, Call
from ..contract.error_responses import error_from_reply, mask_reply, mask_text, one_line
from ..contract.errors import (
    AnsweredError,
    ApiException,
    ConnectionFailed,
    FotahookError,
    ResponseError,
    TransportError,
)
from ..contract.exchange import MASK, ApiResponse, Headers, Reply, Request
from ..contract.servers import Servers
from ..contract.version import VERSION
from ._effects import Flow, Hooks, Lock, Runtime, Send, Sleep
from ._retry import retry_delay
from ._tokens import BearerToken, SessionToken, get_or_fetch

T = TypeVar("T")

log = logging.getLogger("fotahook.client")

# No compression: the limit on a body would have to count the compressed and the plain size.
_DEFAULT_HEADERS = {"User-Agent": f"fotahook/{VERSION}", "accept": JSON, "Accept-Encoding": "identity"}


class Limits(msgspec.Struct, frozen=True):
    """The limits of one call: its deadline on the monotonic clock, and its retries."""

    deadline: float
    max_retries: int


class Pipeline:
    """Makes the calls of one client. `session` is None if no call needs one."""

    def __init__(
        self, servers: Servers, bearer: BearerToken | None, session: SessionToken | None, hooks: Hooks, runtime: Runtime
    ) -> None:
        self._servers = servers
        self.bearer = bearer
        self.session = session
        self._hooks = hooks
        self.runtime = runtime

    def renew_locks(self, new_lock: Callable[[], Lock]) -> None:
        """Give the tokens new locks, after a fork or in another event loop."""
        for token in (self.bearer, self.session):
            if token is not None:
                token.lock = new_lock()

    def perform(self, call: Call[T], limits: Limits) -> Flow[ApiResponse[T]]:
        """Make a call; if the response says that a token is stale, renew it and make the call once more."""
        bearer, session = self._require_bearer(), self._require_session() if call.session else None
        key = None if call.method == "GET" or call.secret else self.runtime.new_key()
        renewed = False
        while True:
            tokens = {}
            # The session first: its login may find the OAuth token stale and renew it.
            if session is not None:
                tokens["VZ-M2M-Token"] = session.current() or (yield from self._fetch(session, limits))
            used = bearer.current() or (yield from self._fetch(bearer, limits))
            tokens["Authorization"] = f"Bearer {used}"
            try:
                return (yield from self._with_retries(call, tokens, key, limits))
            except ApiException as error:
                if renewed or not self._invalidate_stale(error, call, used, tokens.get("VZ-M2M-Token")):
                    raise
                renewed = True

    def login(self, limits: Limits) -> Flow[None]:
        """Begin a new session, even after a refused login."""
        session = self._require_session()
        session.reset()
        yield from self._fetch(session, limits)

    def logout(self, limits: Limits) -> Flow[None]:
        """End the session, if there is one."""
        session = self._require_session()
        # After the idle timeout there is nothing to end.
        if session.current() is not None:
            try:
                yield from self.perform(logout_call(), limits)
            except ApiException as error:
                # If only the session token is stale, the session has already ended.
                if stale_tokens(error, logout_call()) != (False, True):
                    raise
        session.clear()

    def revoke_token(self, limits: Limits) -> Flow[None]:
        """Revoke the OAuth token, if there is one."""
        bearer = self._require_bearer()
        token = bearer.last
        if token is not None:
            basic = {"Authorization": bearer.credentials.basic}
            yield from self._with_retries(revoke_call(token), basic, None, limits)
            bearer.clear()

    def _fetch(self, token: BearerToken | SessionToken, limits: Limits) -> Flow[str]:
        def send(call: Call[T], authorization: str | None = None) -> Flow[T]:
            if authorization is None:
                return (yield from self.perform(call, limits)).data
            return (yield from self._with_retries(call, {"Authorization": authorization}, None, limits)).data

        return (yield from get_or_fetch(token, send))

    def _require_bearer(self) -> BearerToken:
        if self.bearer is None:
            raise ValueError(f"this call needs thingspace_oauth_credentials, a {ThingspaceOauthCredentials.__name__}")
        return self.bearer

    def _require_session(self) -> SessionToken:
        if self.session is None:
            raise ValueError("this call needs vz_m2m_token_credentials, a SessionCredentials or VZM2mTokenCredentials")
        return self.session

    def _invalidate_stale(self, error: ApiException, call: Call[T], bearer: str, session: str | None) -> bool:
        """Invalidate the tokens that an error reports as stale; whether one of them can be renewed."""
        bearer_stale, session_stale = stale_tokens(error, call)
        if bearer_stale and self.bearer is not None:
            self.bearer.invalidate(bearer)
        cached = self.session
        if session_stale and session is not None and cached is not None and cached.renewable and not call.ends_session:
            cached.invalidate(session)
            return True
        return bearer_stale

    def _with_retries(
        self, call: Call[T], secrets: dict[str, str], key: str | None, limits: Limits
    ) -> Flow[ApiResponse[T]]:
        """Send a call until it succeeds, fails for good or runs out of retries."""
        send, attempts, replaced = self._prepare(call, secrets, key), 0, False
        while True:
            try:
                return (yield from self._send(call, send))
            except (ApiException, TransportError) as failure:
                if isinstance(failure, ConnectionFailed) and failure.kept_connection and not replaced:
                    # Servers close idle connections at any time: this one says nothing about the service.
                    replaced = True
                    continue
                attempts += 1
                delay = self._retry_delay(failure, attempts, limits)
                if delay is None:
                    raise
            yield Sleep(delay)

    def _retry_delay(self, failure: FotahookError, attempts: int, limits: Limits) -> float | None:
        if attempts > limits.max_retries:
            return None
        delay = retry_delay(failure, attempts, now=self.runtime.now(), jitter=self.runtime.jitter())
        # The failure itself, now, tells the caller more than a TimedOut after the wait.
        late = delay is not None and self.runtime.monotonic() + delay >= limits.deadline
        return None if late else delay

    def _prepare(self, call: Call[T], secrets: dict[str, str], key: str | None) -> Send:
        headers = dict(_DEFAULT_HEADERS)
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if key is not None:
            headers["Idempotency-Key"] = key
        headers.update(call.headers)
        masked = Headers({**headers, **dict.fromkeys(secrets, MASK)}.items())
        body = MASK.encode() if call.secret and call.body is not None else call.body
        request = Request(call.method, self._servers[call.server] + call.path, masked, body)
        return Send(request, {**headers, **secrets}, call.body, call.streamed)

    def _send(self, call: Call[T], send: Send) -> Flow[ApiResponse[T]]:
        """Send one request and read its response."""
        request = send.request
        if self._hooks.on_request is not None:
            self._hooks.on_request(request)
        try:
            reply: Reply = yield send
        except FotahookError as failure:
            _mask_error(failure, call, send)
            log.debug("%s %s: %s", request.method, request.url, failure)
            raise
        log.debug("%s %s: %d, %d bytes", request.method, request.url, reply.status, len(reply.body))
        success = 200 <= reply.status < 300
        error = None if success else error_from_reply(reply, request, call.error_400, _secrets(call, send))
        if self._hooks.on_response is not None:
            self._hooks.on_response(_response_for_hook(call, reply, send, error))
        if error is not None:
            raise error
        return _read(call, reply, send)


MakeFlow: TypeAlias = Callable[[Pipeline, Limits], Flow[T]]


def _secrets(call: Call[T], send: Send) -> list[str]:
    """What no error or log may contain: the tokens sent, and the secrets of the body."""
    headers = [value for name, value in send.headers.items() if send.request.headers.get(name) == MASK]
    return [*headers, *(value.partition(" ")[2] for value in headers), *call.secrets]


def _masked(call: Call[T], reply: Reply, send: Send) -> Reply:
    """The reply without secrets: a token call's body is one, any other body may echo one."""
    if call.secret:
        return Reply(reply.status, mask_text(reply.reason, _secrets(call, send)), Headers(), MASK.encode())
    return mask_reply(reply, _secrets(call, send))


def _mask_error(failure: FotahookError, call: Call[T], send: Send) -> None:
    """Mask a transport error: a response that is not HTTP, or too large, may echo secrets too."""
    failure.args = (mask_text(str(failure), _secrets(call, send)),)
    if isinstance(failure, AnsweredError):
        masked = _masked(call, Reply(failure.status_code, "", failure.headers, failure.raw_body), send)
        failure.headers, failure.raw_body = masked.headers, masked.body


def _response_for_hook(
    call: Call[T], reply: Reply, send: Send, error: ApiException | ResponseError | None
) -> ApiResponse[None]:
    reply = _masked(call, reply, send)
    errors = () if error is None else (str(error),)
    return ApiResponse(reply.status, reply.reason, reply.headers, reply.body, send.request, None, errors)


def _read(call: Call[T], reply: Reply, send: Send) -> ApiResponse[T]:
    request = send.request
    try:
        data = cast("T", reply.stream) if call.streamed else call.read(reply.body)
    except ValueError as error:
        text = one_line(f"{reply.status} for {request.method} {request.url} breaks the contract: {error}")
        # The cause may quote the body.
        cause = None if call.secret else error
        raise ResponseError(text, request=request, reply=_masked(call, reply, send)) from cause
    # The caller gets the body unmasked, except that of a token call.
    if call.secret:
        reply = _masked(call, reply, send)
    return ApiResponse(reply.status, reply.reason, reply.headers, reply.body, request, data)
