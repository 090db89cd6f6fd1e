"""The keys that sign an account's deliveries: created, listed, and ended with an overlap or at once."""

import secrets
from typing import Annotated, Final

import msgspec

from ...contract.keys import account_signing_key
from ...contract.models import FotaV2SuccessResult
from ...contract.operator import NewSigningKey, SigningKey, SigningKeys
from ...contract.signing import format_secret
from ...store.records import Credential
from ...store.views import to_datetime, to_datetime_or_none
from .. import errors, requests
from ..requests import Params
from ..routing import Call, Endpoint
from .accounts import PATH

KEY_LIMIT: Final = 10
"""Live signing keys of an account: each adds a signature to every delivery."""


class Rotation(Params, frozen=True):
    """How long the older keys stay valid: 24 hours by default, 30 days at most."""

    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 24 * 3600.0)] = 24 * 3600.0


@Endpoint("GET", f"{PATH}/signing-keys")
async def list_keys(call: Call) -> SigningKeys:
    """The live signing keys, without their secrets, oldest first."""
    keys, now = await call.service.store.credentials("signing_key", call.account), call.service.now()
    return SigningKeys(
        signing_keys=[
            SigningKey(
                id=key.id,
                created_at=to_datetime(key.created_at),
                age_seconds=int(now - key.created_at),
                expires_at=to_datetime_or_none(key.expires_at),
            )
            for key in keys
        ]
    )


@Endpoint("POST", f"{PATH}/signing-keys", body=Rotation, body_optional=True, status=201, no_store=True, also=(409,))
async def rotate_keys(call: Call) -> NewSigningKey:
    """Creates a signing key and shows its secret this once; the older keys end after the overlap."""
    service, rotation = call.service, await call.json(Rotation, optional=True)
    async with service.credential_lock:
        older = await service.store.credentials("signing_key", call.account)
        if len(older) >= KEY_LIMIT:
            raise errors.CONFLICT(f"The account has {KEY_LIMIT} live signing keys; delete one first.")
        now = service.now()
        key = Credential(kind="signing_key", id=secrets.token_hex(8), owner=call.account, created_at=now)
        # The new key first: whatever happens next, one key is valid.
        await service.store.save_credential(key)
        for each in older:
            ends = min(now + rotation.overlap_seconds, each.expires_at or float("inf"))
            await service.store.save_credential(msgspec.structs.replace(each, expires_at=ends))
    return NewSigningKey(id=key.id, secret=format_secret(account_signing_key(service.settings.secret_key, key.id)))


@Endpoint("DELETE", f"{PATH}/signing-keys/{{id}}")
async def delete_key(call: Call) -> FotaV2SuccessResult:
    """Ends a signing key at once."""
    key_id, store = requests.segment(call.request, "id"), call.service.store
    key = await store.credential("signing_key", key_id) if key_id else None
    if key is None or key.owner != call.account:
        raise errors.NOT_FOUND("The account has no such signing key; check the id against the list.")
    await store.drop_credentials("signing_key", [key.id])
    return FotaV2SuccessResult(success=True)
