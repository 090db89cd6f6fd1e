"""ThingSpace's token calls: an access token for client credentials, and its revocation."""

from typing import Literal

import msgspec
from starlette.responses import Response

from ...contract.keys import access_token
from ...store.records import Credential
from .. import access, errors, requests
from ..context import Service
from ..routing import NO_STORE, Call, Endpoint

FORM = "application/x-www-form-urlencoded"


class TokenForm(msgspec.Struct, frozen=True):
    """The form of the token call."""

    grant_type: Literal["client_credentials"]


class RevokeForm(TokenForm, frozen=True):
    """The form of the revoke call."""

    token: str


class AccessToken(msgspec.Struct, frozen=True):
    """An access token, and the seconds until it expires."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


@Endpoint("POST", "/api/ts/v1/oauth2/token", by="client", scope=None, body=TokenForm, body_type=FORM, no_store=True)
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
                found = text, await access.issue(service, "token", text, client, now)
    text, credential = found
    return AccessToken(
        access_token=text,
        token_type="Bearer",
        expires_in=int((credential.expires_at or 0.0) - service.now()),
        scope=" ".join(credential.scopes),
    )


@Endpoint("POST", "/api/ts/v1/oauth2/revoke", by="client", scope=None, body=RevokeForm, body_type=FORM)
async def revoke(call: Call) -> Response:
    """Revokes a token of this client. Any other token stays valid, and only the answer's header is missing then."""
    service, [client] = call.service, call.caller.credentials
    text = (await _form(call)).get("token")
    if not text:
        raise errors.INVALID("The form needs token=, the access token to revoke.")
    token_id = access.token_id(text)
    found = await service.store.credential("token", token_id)
    if found is None or found.owner != client.id:
        return Response(b"", headers=NO_STORE)
    await service.store.drop_credentials("token", [token_id])
    service.token_cache.invalidate("token", token_id)
    return Response(b"", headers={**NO_STORE, "RevokedAccessToken": text})


async def _form(call: Call) -> dict[str, str]:
    form = requests.form(await requests.body(call.request, call.service.settings.body_limit))
    if form.get("grant_type") != "client_credentials":
        raise errors.WRONG_GRANT()
    return form


async def _live_token(service: Service, client: Credential) -> tuple[str, Credential] | None:
    """The token that the client already has, if it grants what the client may do now."""
    for known in await service.store.credentials("token", client.id):
        text = access_token(service.settings.secret_key, client.id, known.created_at)
        # Skip a token made with another secret key, which cannot be derived again, and one in its last second.
        if (
            access.token_id(text) == known.id
            and (known.accounts, known.scopes) == (client.accounts, client.scopes)
            and (known.expires_at or 0.0) >= service.now() + 1
        ):
            return text, known
    return None
