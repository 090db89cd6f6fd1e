"""ThingSpace's token calls: client credentials for an access token, and the end of one before its hour is over."""

from typing import Final, Literal
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...contract.auth import OAUTH_LIFETIME
from ...contract.keys import access_token
from ...store.records import Credential
from .. import access, errors, requests
from ..context import Service

_FIELD_LIMIT: Final = 20

# RFC 6749, section 5.1: what holds a token is not to be kept on the way.
NO_STORE: Final = {"Cache-Control": "no-store"}


class TokenForm(msgspec.Struct, frozen=True):
    """What the token call's form says."""

    grant_type: Literal["client_credentials"]


class RevokeForm(TokenForm, frozen=True):
    """What the revoke call's form says."""

    token: str


class AccessToken(msgspec.Struct, frozen=True):
    """An access token; `expires_in` counts down while it stays the same."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


async def token(service: Service, request: Request) -> Response:
    """The client's access token: the same one for as long as it lives."""
    client = await access.client(service, request)
    await _form(service, request)
    found = await _live_token(service, client)
    if found is None:
        async with service.changing:
            found = await _live_token(service, client) or await _issue(service, client)
    text, credential = found
    told = AccessToken(
        access_token=text,
        token_type="Bearer",
        expires_in=int((credential.expires_at or 0.0) - service.now()),
        scope=" ".join(credential.scopes),
    )
    return errors.answer(told, headers=NO_STORE)


async def revoke(service: Service, request: Request) -> Response:
    """The end of a token of this client. Any other is answered the same, but for the header, and stays as it is."""
    client = await access.client(service, request)
    told = (await _form(service, request)).get("token")
    if not told:
        raise errors.invalid("The form needs token=, the access token that is to end.")
    credential_id = access.token_id(told)
    found = await service.store.credential("token", credential_id)
    if found is None or found.owner != client.id:
        return Response(b"", headers=NO_STORE)
    await service.store.drop_credentials("token", [credential_id])
    service.memory.forget("token", credential_id)
    return Response(b"", headers={**NO_STORE, "RevokedAccessToken": told})


async def _form(service: Service, request: Request) -> dict[str, str]:
    """The fields of the form, of which one must be the grant type."""
    content = await requests.body(request, service.settings.body_limit)
    try:
        pairs = parse_qsl(content.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELD_LIMIT)
    except ValueError:
        raise errors.invalid("The body is not a form of at most 20 fields in UTF-8.") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise errors.invalid("The form has a field twice; send each once.")
    if form.get("grant_type") != "client_credentials":
        raise errors.wrong_grant()
    return form


async def _live_token(service: Service, client: Credential) -> tuple[str, Credential] | None:
    """The token that the client was given earlier, if it grants what the client may do now."""
    for known in await service.store.credentials("token", client.id):
        text = access_token(service.settings.secret_key, client.id, known.created_at)
        # A token from under another secret key is not one that we can say again, and one in its last second is
        # of no use to anybody.
        if (
            access.token_id(text) == known.id
            and (known.accounts, known.scopes) == (client.accounts, client.scopes)
            and (known.expires_at or 0.0) >= service.now() + 1
        ):
            return text, known
    return None


async def _issue(service: Service, client: Credential) -> tuple[str, Credential]:
    now = service.now()
    text = access_token(service.settings.secret_key, client.id, now)
    credential = Credential(
        kind="token",
        id=access.token_id(text),
        owner=client.id,
        accounts=client.accounts,
        scopes=client.scopes,
        created_at=now,
        expires_at=now + OAUTH_LIFETIME,
    )
    await service.store.save_credential(credential)
    await access.follow(service, credential, "client", errors.wrong_client())
    return text, credential
