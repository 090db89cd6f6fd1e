"""Decides: which tokens go along, what an answer means, whether to try again. Does no I/O."""

import logging
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from ..contract.auth import ThingspaceOauthCredentials, logout_call, revoke_call, stale_tokens
from ..contract.calls import JSON, Call
from ..contract.error_answers import masked, masked_text, one_line, refusal
from ..contract.errors import AnsweredError, ApiException, FotahookError, ResponseError, TransportError
from ..contract.exchange import MASK, ApiResponse, Headers, Reply, Request
from ..contract.servers import Servers
from ..contract.version import VERSION
from ._retry import wait_before_retry
from ._steps import Flow, Hooks, Lock, Pause, Send, World
from ._tokens import Bearer, Session, shared

T = TypeVar("T")

log = logging.getLogger("fotahook.client")

# Nothing compressed is asked for: the limit on a body would have to count both of its sizes.
_ALWAYS = {"User-Agent": f"fotahook/{VERSION}", "accept": JSON, "Accept-Encoding": "identity"}


class Limits(msgspec.Struct, frozen=True):
    """How long a call may take: until `deadline` on the monotonic clock, and through how many retries."""

    deadline: float
    max_retries: int


class Tries:
    """Counts the tries of one call."""

    def __init__(self, limits: Limits, world: World) -> None:
        self._limits, self._world, self._made = limits, world, 0

    def wait_after(self, failure: FotahookError) -> float | None:
        """The seconds until the next try, None if the failure stands."""
        self._made += 1
        if self._made > self._limits.max_retries:
            return None
        wait = wait_before_retry(failure, self._made, now=self._world.now(), chance=self._world.chance())
        # Told at once what went wrong, a caller is better off than after waiting for a TimedOut.
        late = wait is not None and self._world.monotonic() + wait >= self._limits.deadline
        return None if late else wait


class Caller:
    """Makes the calls of one client: what they share is here. `session` is None where no call needs one."""

    def __init__(
        self,
        servers: Servers,
        bearer: Bearer | None,
        session: Session | None,
        hooks: Hooks,
        world: World,
    ) -> None:
        self._servers = servers
        self.bearer = bearer
        self.session = session
        self._hooks = hooks
        self._world = world

    def renew_locks(self, new_lock: Callable[[], Lock]) -> None:
        """Give the tokens new locks, where the old ones are another process's or another loop's."""
        for token in (self.bearer, self.session):
            if token is not None:
                token.lock = new_lock()

    def perform(self, call: Call[T], limits: Limits) -> Flow[ApiResponse[T]]:
        """The call with its tokens; they are renewed once if the answer says that they are stale."""
        bearer, session = self._bearer(), self._session() if call.session else None
        key = None if call.method == "GET" or call.secret else self._world.new_key()
        renewed = False
        while True:
            tokens = {}
            # First, for a login may find the OAuth token stale and renew it.
            if session is not None:
                tokens["VZ-M2M-Token"] = session.current() or (yield from self._fetched(session, limits))
            used = bearer.current() or (yield from self._fetched(bearer, limits))
            tokens["Authorization"] = f"Bearer {used}"
            try:
                return (yield from self._answered(call, tokens, key, limits))
            except ApiException as error:
                if renewed or not self._forget_stale(error, call, used, tokens.get("VZ-M2M-Token")):
                    raise
                renewed = True

    def login(self, limits: Limits) -> Flow[None]:
        """A new session, also after a refusal."""
        session = self._session()
        session.begin_anew()
        yield from self._fetched(session, limits)

    def logout(self, limits: Limits) -> Flow[None]:
        """Ends the session, if there is one."""
        session = self._session()
        # One that has ended by idling would have to be begun anew to be ended.
        if session.current() is not None:
            try:
                yield from self.perform(logout_call(), limits)
            except ApiException as error:
                # Ended already, if the error names the session alone.
                if stale_tokens(error, logout_call()) != (False, True):
                    raise
        session.drop()

    def revoke_token(self, limits: Limits) -> Flow[None]:
        """Revokes the OAuth token, if there is one."""
        bearer = self._bearer()
        token = bearer.held()
        if token is not None:
            basic = {"Authorization": bearer.credentials.basic}
            yield from self._answered(revoke_call(token), basic, None, limits)
            bearer.drop()

    def _fetched(self, token: Bearer | Session, limits: Limits) -> Flow[str]:
        def make(call: Call[T], authorization: str | None = None) -> Flow[T]:
            if authorization is None:
                return (yield from self.perform(call, limits)).data
            return (yield from self._answered(call, {"Authorization": authorization}, None, limits)).data

        return (yield from shared(token, make))

    def _bearer(self) -> Bearer:
        if self.bearer is None:
            raise ValueError(f"this call needs thingspace_oauth_credentials, a {ThingspaceOauthCredentials.__name__}")
        return self.bearer

    def _session(self) -> Session:
        if self.session is None:
            raise ValueError("this call needs vz_m2m_token_credentials, a SessionCredentials or VZM2mTokenCredentials")
        return self.session

    def _forget_stale(self, error: ApiException, call: Call[T], bearer: str, session: str | None) -> bool:
        """Whether a token that an error names as stale can be renewed."""
        bearer_stale, session_stale = stale_tokens(error, call)
        if bearer_stale and self.bearer is not None:
            self.bearer.forget(bearer)
        kept = self.session
        if session_stale and session is not None and kept is not None and kept.renewable and not call.ends_session:
            kept.forget(session)
            return True
        return bearer_stale

    def _answered(
        self, call: Call[T], secrets: dict[str, str], key: str | None, limits: Limits
    ) -> Flow[ApiResponse[T]]:
        """One call, tried until it is answered or the failure stands."""
        step = self._step(call, secrets, key)
        tries = Tries(limits, self._world)
        while True:
            try:
                return (yield from self._exchange(call, step))
            except (ApiException, TransportError) as failure:
                wait = tries.wait_after(failure)
                if wait is None:
                    raise
            yield Pause(wait)

    def _step(self, call: Call[T], secrets: dict[str, str], key: str | None) -> Send:
        headers = dict(_ALWAYS)
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if key is not None:
            headers["Idempotency-Key"] = key
        headers.update(call.headers)
        shown = Headers([*headers.items(), *((name, MASK) for name in secrets)])
        body = MASK.encode() if call.secret and call.body is not None else call.body
        request = Request(call.method, self._servers[call.server] + call.path, shown, body)
        return Send(request, {**headers, **secrets}, call.body, call.streamed)

    def _exchange(self, call: Call[T], step: Send) -> Flow[ApiResponse[T]]:
        """One request and what its answer means."""
        request = step.request
        if self._hooks.on_request is not None:
            self._hooks.on_request(request)
        try:
            reply: Reply = yield step
        except FotahookError as failure:
            _hide(failure, call, step)
            log.debug("%s %s: %s", request.method, request.url, failure)
            raise
        log.debug("%s %s: %d, %d bytes", request.method, request.url, reply.status, len(reply.body))
        # The usual answer first: all that follows is work for errors alone.
        good = 200 <= reply.status < 300
        error = None if good else refusal(reply, request, call.error_400, _secrets(call, step))
        if self._hooks.on_response is not None:
            self._hooks.on_response(_seen(call, reply, step, error))
        if error is not None:
            raise error
        return _read(call, reply, step)


def _secrets(call: Call[T], step: Send) -> list[str]:
    """What no message may hold: the tokens as they were sent, and the words of a secret body."""
    found = [value for name, value in step.headers.items() if step.request.headers.get(name) == MASK]
    return [*found, *(value.partition(" ")[2] for value in found), *call.words]


def _shown(call: Call[T], reply: Reply, step: Send) -> Reply:
    """The reply as others may see it: that of a token call holds the token, any other may echo one."""
    if call.secret:
        return Reply(reply.status, masked_text(reply.reason, _secrets(call, step)), Headers(), MASK.encode())
    return masked(reply, _secrets(call, step))


def _hide(failure: FotahookError, call: Call[T], step: Send) -> None:
    """Mask what a transport's error tells of an answer: what is not HTTP, or too large, may echo secrets too."""
    failure.args = (masked_text(str(failure), _secrets(call, step)),)
    if isinstance(failure, AnsweredError):
        shown = _shown(call, Reply(failure.status_code, "", failure.headers, failure.raw_body), step)
        failure.headers, failure.raw_body = shown.headers, shown.body


def _seen(call: Call[T], reply: Reply, step: Send, error: ApiException | ResponseError | None) -> ApiResponse[None]:
    reply = _shown(call, reply, step)
    errors = () if error is None else (str(error),)
    return ApiResponse(reply.status, reply.reason, reply.headers, reply.body, step.request, None, errors)


def _read(call: Call[T], reply: Reply, step: Send) -> ApiResponse[T]:
    request = step.request
    try:
        data = cast("T", reply.stream) if call.streamed else call.read(reply.body)
    except ValueError as error:
        told = one_line(f"{reply.status} for {request.method} {request.url} breaks the contract: {error}")
        # The cause may quote the body.
        raise ResponseError(told, request=request, reply=_shown(call, reply, step)) from (
            None if call.secret else error
        )
    # A caller is given the bytes as they came, but for those of a token call.
    shown = _shown(call, reply, step) if call.secret else reply
    return ApiResponse(shown.status, shown.reason, shown.headers, shown.body, request, data)
