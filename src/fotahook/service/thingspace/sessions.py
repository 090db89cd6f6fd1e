"""ThingSpace's session calls: login, logout and password reset."""

from typing import Final
from uuid import uuid4

import msgspec

from ...store.records import Credential
from .. import access, errors
from ..auth.passwords import new_password
from ..routing import Call, Endpoint

PATH: Final = "/api/m2m/v1/session"


class Login(msgspec.Struct, frozen=True):
    """The user's name and password."""

    username: str
    password: str


class PasswordReset(msgspec.Struct, frozen=True, rename="camel"):
    """The present password."""

    old_password: str


class SessionToken(msgspec.Struct, frozen=True, rename="camel"):
    """The token of a session."""

    session_token: str


class NewPassword(msgspec.Struct, frozen=True, rename="camel"):
    """The new password."""

    new_password: str


@Endpoint("POST", f"{PATH}/login", scope=None, body=Login, no_store=True)
async def login(call: Call) -> SessionToken:
    """Starts a session for the user, who may have any number of them."""
    service, credentials = call.service, await call.json(Login)
    user = await _verified_user(call, credentials.username, credentials.password)
    if service.passwords.is_outdated(user.secret_hash):
        await _replace_password(call, user, credentials.password)
    token = str(uuid4())
    await access.issue(service, "session", token, user, service.now())
    return SessionToken(token)


@Endpoint("POST", f"{PATH}/logout", by="both tokens", scope=None)
async def logout(call: Call) -> SessionToken:
    """Ends the session. Callbacks stay registered, and messages keep being delivered."""
    _, session = call.caller.credentials
    async with call.service.credential_lock:
        await call.service.store.drop_credentials("session", [session.id])
        call.service.token_cache.invalidate("session", session.id)
    return SessionToken(call.request.headers[access.SESSION_HEADER])


@Endpoint("PUT", f"{PATH}/password/actions/reset", by="both tokens", scope=None, body=PasswordReset, no_store=True)
async def reset_password(call: Call) -> NewPassword:
    """Gives the user of this session a new password, valid at once."""
    _, session = call.caller.credentials
    reset = await call.json(PasswordReset)
    user = await _verified_user(call, session.owner, reset.old_password)
    password = new_password()
    if not await _replace_password(call, user, password):
        # Another call replaced it first, so the old password was no longer valid.
        raise errors.LOGIN_REFUSED()
    return NewPassword(password)


async def _verified_user(call: Call, username: str, password: str) -> Credential:
    """The user, if the password is right; five failures in a row lock the user for this address."""
    service = call.service
    address = call.request.client.host if call.request.client else ""
    async with service.password_lock:
        service.lockout.check(username, address, service.now())
        user = await service.store.credential("user", username)
        is_right = await service.passwords.verify(user.secret_hash if user else None, password)
        if user is None or not is_right:
            service.lockout.failed(username, address, service.now())
            raise errors.LOGIN_REFUSED()
        service.lockout.succeeded(username, address)
    return user


async def _replace_password(call: Call, user: Credential, password: str) -> bool:
    """Store a new hash for a verified user; False if the password was changed or the user revoked meanwhile."""
    stored, store = await call.service.passwords.hash(password), call.service.store
    while (current := await store.credential("user", user.id)) is not None and current.secret_hash == user.secret_hash:
        if await store.replace_credential(current, msgspec.structs.replace(current, secret_hash=stored)):
            return True
    return False
