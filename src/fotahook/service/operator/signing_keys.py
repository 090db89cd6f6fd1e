"""The keys that an account's deliveries are signed with: made, listed, and ended with an overlap or at once."""

import secrets
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...contract.keys import account_signing_key
from ...contract.models import FotaV2SuccessResult
from ...contract.operator import NewSigningKey, SigningKey, SigningKeys
from ...contract.signing import format_secret
from ...store.records import Credential
from ...store.views import to_datetime, to_datetime_or_none
from .. import errors, requests
from ..context import Service
from ..requests import Asked
from ..thingspace.tokens import NO_STORE
from .accounts import enter

OVERLAP_SECONDS: Final = 24 * 3600.0
"""How long the old signing keys go on beside a new one, unless the caller says otherwise."""
OVERLAP_LIMIT: Final = 30 * 24 * 3600.0
KEY_LIMIT: Final = 10
"""Live signing keys of an account: each adds a signature to every delivery."""


class Rotation(Asked, frozen=True):
    """How long the older keys go on."""

    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=OVERLAP_LIMIT)] = OVERLAP_SECONDS


async def list_keys(service: Service, request: Request) -> Response:
    """The live signing keys, without their secrets, oldest first."""
    account = await enter(service, request)
    keys = await service.store.credentials("signing_key", account)
    return errors.answer(SigningKeys(signing_keys=[_key(key, service.now()) for key in keys]))


async def rotate_keys(service: Service, request: Request) -> Response:
    """A new signing key, its secret shown this once; the older ones end after the overlap."""
    account = await enter(service, request)
    rotation = await requests.json_or_default(request, service.settings.body_limit, Rotation)
    async with service.changing:
        old = await service.store.credentials("signing_key", account)
        if len(old) >= KEY_LIMIT:
            raise errors.conflict(f"The account has {KEY_LIMIT} live signing keys; delete one first.")
        now = service.now()
        key = Credential(kind="signing_key", id=secrets.token_hex(8), owner=account, created_at=now)
        # The new one first: whatever happens next, one key is always good.
        await service.store.save_credential(key)
        for each in old:
            ends = min(now + rotation.overlap_seconds, each.expires_at or float("inf"))
            await service.store.save_credential(msgspec.structs.replace(each, expires_at=ends))
    secret = format_secret(account_signing_key(service.settings.secret_key, key.id))
    return errors.answer(NewSigningKey(id=key.id, secret=secret), 201, headers=NO_STORE)


async def delete_key(service: Service, request: Request) -> Response:
    """The end of a signing key, at once."""
    account = await enter(service, request)
    key_id = requests.segment(request, "id")
    key = await service.store.credential("signing_key", key_id) if key_id else None
    if key is None or key.owner != account:
        raise errors.not_found("The account has no such signing key; check the id against the list.")
    await service.store.drop_credentials("signing_key", [key.id])
    return errors.answer(FotaV2SuccessResult(success=True))


def _key(key: Credential, now: float) -> SigningKey:
    return SigningKey(
        id=key.id,
        created_at=to_datetime(key.created_at),
        age_seconds=int(now - key.created_at),
        expires_at=to_datetime_or_none(key.expires_at),
    )
