"""ThingSpace's session calls: log in, log out, and have a new password."""

from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...contract.auth import SESSION_IDLE
from ...store.records import Credential
from .. import access, errors, requests
from ..auth.passwords import new_password
from ..context import Service
from .tokens import NO_STORE


class Login(msgspec.Struct, frozen=True):
    """Who logs in."""

    username: str
    password: str


class PasswordReset(msgspec.Struct, frozen=True, rename="camel"):
    """The password so far."""

    old_password: str


class SessionToken(msgspec.Struct, frozen=True, rename="camel"):
    """The token of a session."""

    session_token: str


class NewPassword(msgspec.Struct, frozen=True, rename="camel"):
    """The password from now on."""

    new_password: str


async def login(service: Service, request: Request) -> Response:
    """A session for the user; any number of them may be open."""
    await access.bearer(service, request)
    told = requests.json_object(await requests.body(request, service.settings.body_limit), Login)
    user = await _proven(service, request, told.username, told.password)
    if service.passwords.is_outdated(user.secret_hash):
        await _replace_password(service, user, told.password)
    token, now = str(uuid4()), service.now()
    session = Credential(
        kind="session",
        id=access.token_id(token),
        owner=user.id,
        accounts=user.accounts,
        scopes=user.scopes,
        created_at=now,
        expires_at=now + SESSION_IDLE,
    )
    await service.store.save_credential(session)
    await access.follow(service, session, "user", errors.login_refused())
    return errors.answer(SessionToken(token), headers=NO_STORE)


async def logout(service: Service, request: Request) -> Response:
    """The end of the session. What is registered stays so: messages keep being delivered."""
    await access.bearer(service, request)
    session = await access.session(service, request)
    async with service.changing:
        await service.store.drop_credentials("session", [session.id])
        service.memory.forget("session", session.id)
    return errors.answer(SessionToken(request.headers[access.SESSION_HEADER]))


async def reset_password(service: Service, request: Request) -> Response:
    """A new password for the user of this session, good at once."""
    await access.bearer(service, request)
    session = await access.session(service, request)
    told = requests.json_object(await requests.body(request, service.settings.body_limit), PasswordReset)
    user = await _proven(service, request, session.owner, told.old_password)
    password = new_password()
    if not await _replace_password(service, user, password):
        # Another call replaced it first: what was told here is the old one no more.
        raise errors.login_refused()
    return errors.answer(NewPassword(password), headers=NO_STORE)


async def _proven(service: Service, request: Request, username: str, password: str) -> Credential:
    """The user, if this is the password; five failures in a row lock both out, the user and the address."""
    address = request.client.host if request.client else ""
    async with service.proving:
        service.lockout.check(username, address, service.now())
        user = await service.store.credential("user", username)
        is_right = await service.passwords.prove(user.secret_hash if user else None, password)
        if user is None or not is_right:
            service.lockout.failed(username, address, service.now())
            raise errors.login_refused()
        service.lockout.succeeded(username, address)
    return user


async def _replace_password(service: Service, user: Credential, password: str) -> bool:
    """Store another hash for a user who proved the present one; False if that was replaced or dropped meanwhile."""
    known, store = await service.passwords.hash(password), service.store
    while (current := await store.credential("user", user.id)) is not None and current.secret_hash == user.secret_hash:
        if await store.replace_credential(current, msgspec.structs.replace(current, secret_hash=known)):
            return True
    return False
