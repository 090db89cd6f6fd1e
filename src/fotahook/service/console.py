"""The console's session: a cookie that no script can read carries a client's access token.

The cookie counts only on requests with the page's own header, which no other site can send without being asked first.
"""

import secrets
from dataclasses import replace
from typing import Final

import msgspec
from starlette.responses import Response

from ..contract.auth import OAUTH_LIFETIME
from . import access, errors
from .credentials import DEV_CLIENT
from .routing import NO_STORE, Call, Endpoint

_COOKIE_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Strict"


class ConsoleLogin(msgspec.Struct, frozen=True, rename="camel"):
    """A client's id and secret."""

    client_id: str
    client_secret: str


class ConsoleSession(msgspec.Struct, frozen=True, rename="camel"):
    """Who is signed in, and with which scopes; `kind` is what the page shows, `dev` whether anybody may sign in."""

    signed_in: bool
    client: str = ""
    scopes: tuple[str, ...] = ()
    kind: str = "service"
    dev: bool = False


@Endpoint("GET", "/console/session", by="anyone", no_store=True)
async def console_session(call: Call) -> ConsoleSession:
    """The console's session, for the page after a reload."""
    try:
        caller = await access.authenticate(call.service, call.request, "token")
    except errors.ApiError as error:
        if error.status != errors.WRONG_TOKEN.status:
            raise
        caller = access.Caller(())
    return await _session(call, caller)


@Endpoint("POST", "/console/login", by="anyone", body=ConsoleLogin)
async def console_login(call: Call) -> Response:
    """Signs the browser in with a client's id and secret, by a cookie."""
    access.require_console(call.request)
    given = await call.json(ConsoleLogin)
    try:
        client = await access.verify_client(call.service, call.request, given.client_id, given.client_secret)
    except errors.ApiError as error:
        # Without WWW-Authenticate, at which a browser would open a dialog of its own.
        raise errors.ApiError(error.status, error.code, error.message) from None
    call.service.login_limiter.count(client.id, call.service.now())
    token = secrets.token_urlsafe(32)
    store = replace(call, caller=access.Caller((client,))).audited("console.login", client.id)
    issued = await access.issue(call.service, token, client, call.service.now(), store)
    content = await _session(call, access.Caller((issued,)))
    return _answer(content, f"{token}; Max-Age={int(OAUTH_LIFETIME)}")


@Endpoint("POST", "/console/logout", by="anyone")
async def console_logout(call: Call) -> Response:
    """Ends the browser's session, if there is one."""
    access.require_console(call.request)
    if token := access.console_token(call.request):
        token_id = access.token_id(token)
        await call.service.store.drop_credentials("token", [token_id])
        call.service.token_cache.invalidate("token", token_id)
    return _answer(ConsoleSession(signed_in=False), "; Max-Age=0")


async def _session(call: Call, caller: access.Caller) -> ConsoleSession:
    settings = call.service.settings
    dev = settings.console == "service" and await call.service.store.credential("client", DEV_CLIENT[0]) is not None
    scopes = caller.credentials[0].scopes if caller.credentials else ()
    return ConsoleSession(bool(caller.credentials), caller.name, tuple(scopes), settings.console, dev)


def _answer(content: ConsoleSession, value: str) -> Response:
    cookie = f"{access.CONSOLE_COOKIE}={value}; {_COOKIE_ATTRIBUTES}"
    return errors.answer(content, headers={**NO_STORE, "Set-Cookie": cookie})
