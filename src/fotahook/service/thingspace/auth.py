"""ThingSpace's token and session calls: access tokens for clients; login, logout and password reset of users."""

import secrets
from typing import Final
from uuid import uuid4

import msgspec
from starlette.responses import Response

from ...contract.exchange import Masked
from ...contract.keys import access_token
from ...store.records import Credential
from .. import access, errors, requests
from ..context import Service
from ..credentials import PASSWORD_BYTES, inherit
from ..routing import NO_STORE, Call, Endpoint

SESSION_PATH: Final = "/api/m2m/v1/session"
TOKEN_PATH: Final = "/api/ts/v1/oauth2"


class AccessToken(Masked, frozen=True):
    """An access token, and the seconds until it expires."""

    shown = ("token_type", "expires_in", "scope")

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class Login(Masked, frozen=True):
    """The user's name and password."""

    shown = ("username",)

    username: str
    password: str


class PasswordReset(Masked, frozen=True, rename="camel"):
    """The present password."""

    old_password: str


class SessionToken(Masked, frozen=True, rename="camel"):
    """The token of a session."""

    session_token: str


class NewPassword(Masked, frozen=True, rename="camel"):
    """The new password."""

    new_password: str


@Endpoint("POST", f"{TOKEN_PATH}/token", by="client", scope=None, no_store=True)
async def token(call: Call) -> AccessToken:
    """The client's access token: the same one until it expires."""
    service, [client] = call.service, call.caller.credentials
    await _form(call)
    found = await _live_token(service, client)
    if found is None:
        async with service.credential_lock:
            found = await _live_token(service, client)
            if found is None:
                now = service.now()
                text = access_token(service.settings.secret_key, client.id, now)
                store = call.audited("client.login", client.id)
                found = text, await access.issue(service, text, client, now, store)
    text, credential = found
    seconds = int((credential.expires_at or 0.0) - service.now())
    return AccessToken(text, "Bearer", seconds, " ".join(credential.scopes))


@Endpoint("POST", f"{TOKEN_PATH}/revoke", by="client", scope=None)
async def revoke(call: Call) -> Response:
    """Revokes a token of this client. Any other token stays valid, and only the answer's header is missing then."""
    service, [client] = call.service, call.caller.credentials
    text = (await _form(call)).get("token")
    if not text:
        raise errors.INVALID("The form needs token=, the access token to revoke.")
    found = await service.store.credential("token", access.token_id(text))
    if found is None or found.owner != client.id:
        return Response(b"", headers=NO_STORE)
    await access.end(service, found, call.audited("token.revoke"))
    return Response(b"", headers={**NO_STORE, "RevokedAccessToken": text})


@Endpoint("POST", f"{SESSION_PATH}/login", scope=None, body=Login, no_store=True)
async def login(call: Call) -> SessionToken:
    """Starts a session for the user, who may have any number of them."""
    credentials, token = await call.json(Login), str(uuid4())
    user = await _verified_user(call, credentials.username, credentials.password)
    await access.issue(call.service, token, user, call.service.now(), call.audited("user.login", user.id))
    return SessionToken(token)


@Endpoint("POST", f"{SESSION_PATH}/logout", by="both tokens", scope=None)
async def logout(call: Call) -> SessionToken:
    """Ends the session. Callbacks stay registered, and messages keep being delivered."""
    _, session = call.caller.credentials
    async with call.service.credential_lock:
        await access.end(call.service, session)
    return SessionToken(call.request.headers[access.SESSION_HEADER])


@Endpoint(
    "PUT", f"{SESSION_PATH}/password/actions/reset", by="both tokens", scope=None, body=PasswordReset, no_store=True
)
async def reset_password(call: Call) -> NewPassword:
    """Gives the user of this session a new password, valid at once."""
    _, session = call.caller.credentials
    user = await _verified_user(call, session.owner, (await call.json(PasswordReset)).old_password)
    password, store = secrets.token_urlsafe(PASSWORD_BYTES), call.audited("user.password", user.id)
    hashed = await call.service.passwords.hash(password)
    while (current := await store.credential("user", user.id)) is not None and current.secret_hash == user.secret_hash:
        if await store.replace_credential(current, msgspec.structs.replace(current, secret_hash=hashed)):
            return NewPassword(password)
    # Another call replaced it first, so the old password was no longer valid.
    raise errors.LOGIN_REFUSED()


async def _form(call: Call) -> dict[str, str]:
    content = await requests.body(call.request, call.service.settings.body_limit)
    form = requests.fields(content, "form", keep_blank_values=True)
    if form.get("grant_type") != "client_credentials":
        raise errors.WRONG_GRANT()
    return form


async def _live_token(service: Service, client: Credential) -> tuple[str, Credential] | None:
    """The token that the client already has, if it grants what the client may do now."""
    for known in await service.store.credentials("token", client.id):
        text = access_token(service.settings.secret_key, client.id, known.created_at)
        # Skip a token made with another secret key, which cannot be derived again, and one in its last second.
        is_live = access.token_id(text) == known.id and (known.expires_at or 0.0) >= service.now() + 1
        if is_live and inherit(client, known) == known:
            return text, known
    return None


async def _verified_user(call: Call, username: str, password: str) -> Credential:
    """The user, if the password is right; five failures in a row lock the user for this client and address. Passwords
    are verified one after the other, so the queue is short, and no client can fill it."""
    service, client = call.service, call.caller.credentials[0].owner
    service.login_limiter.count(client, service.now())
    place = (username, client, access.address_of(call.request))
    with service.logins.share(client) as take:
        if not take(1):
            raise errors.TOO_MANY_LOGINS()
        async with service.password_lock:
            if await call.request.is_disconnected():
                # Nobody reads the answer; it only stops the handler.
                raise errors.INVALID("The client hung up.")
            user = await service.store.credential("user", username)
            who = (place[-1], client, user.id if user else "")
            try:
                service.lockout.check(*place, service.now())
            except errors.ApiError:
                service.refused_logins.count("locked", *who)
                raise
            is_right = await service.passwords.verify(user.secret_hash if user else None, password)
            if user is None or not is_right:
                service.lockout.failed(*place, service.now())
                service.refused_logins.count("wrong", *who)
                raise errors.LOGIN_REFUSED()
            service.lockout.succeeded(*place)
    return user
