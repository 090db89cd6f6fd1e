"""An account as its operator sees it, and the keys that its deliveries are signed with."""

import secrets
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..contract.keys import account_signing_key
from ..contract.signing import format_secret
from ..store.base import CALLBACK_CONSUMER, Callback, Credential, Lane
from . import access, problems, reading
from .context import Service
from .messages import moment
from .tokens import NO_STORE

OVERLAP_SECONDS: Final = 24 * 3600.0
"""How long the old signing keys go on beside a new one, unless the caller says otherwise."""
OVERLAP_LIMIT: Final = 30 * 24 * 3600.0
KEY_LIMIT: Final = 10
"""Live signing keys of an account: each adds a signature to every delivery."""


class Rotation(msgspec.Struct, frozen=True, rename="camel"):
    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=OVERLAP_LIMIT)] = OVERLAP_SECONDS


async def show(service: Service, request: Request) -> Response:
    """The account's callback, its lane and what is not delivered."""
    account = await _enter(service, request)
    callback = await service.store.callback(account)
    lanes = await service.store.lanes(account)
    lane = next((lane for lane in lanes if lane.consumer == CALLBACK_CONSUMER), None)
    return problems.answer(
        {
            "account": account,
            "callback": callback and _callback(callback),
            "lane": _lane(lane),
            "backlog": _backlog(lane),
        }
    )


async def list_keys(service: Service, request: Request) -> Response:
    """The live signing keys, without their secrets, oldest first."""
    account = await _enter(service, request)
    keys = await service.store.credentials("signing_key", account)
    return problems.answer({"signingKeys": [_key(key, service.now()) for key in keys]})


async def rotate_keys(service: Service, request: Request) -> Response:
    """A new signing key, its secret shown this once; the older ones end after the overlap."""
    account = await _enter(service, request)
    rotation = await _rotation(service, request)
    async with service.changing:
        old = await service.store.credentials("signing_key", account)
        if len(old) >= KEY_LIMIT:
            raise problems.conflict(f"The account has {KEY_LIMIT} live signing keys; delete one first.")
        now = service.now()
        key = Credential(kind="signing_key", id=secrets.token_hex(8), owner=account, created_at=now)
        # The new one first: whatever happens next, one key is always good.
        await service.store.save_credential(key)
        for each in old:
            ends = min(now + rotation.overlap_seconds, each.expires_at or float("inf"))
            await service.store.save_credential(msgspec.structs.replace(each, expires_at=ends))
    secret = format_secret(account_signing_key(service.settings.secret_key, key.id))
    return problems.answer({"id": key.id, "secret": secret}, 201, headers=NO_STORE)


async def delete_key(service: Service, request: Request) -> Response:
    """The end of a signing key, at once."""
    account = await _enter(service, request)
    key_id = reading.segment(request, "id")
    key = await service.store.credential("signing_key", key_id) if key_id else None
    if key is None or key.owner != account:
        raise problems.not_found("The account has no such signing key; check the id against the list.")
    await service.store.drop_credentials("signing_key", [key.id])
    return problems.answer({"success": True})


async def _enter(service: Service, request: Request) -> str:
    caller = await access.bearer(service, request)
    caller.need("operate")
    account = reading.account(request)
    if not caller.has(account):
        raise problems.no_account()
    return account


async def _rotation(service: Service, request: Request) -> Rotation:
    """What the body says of the rotation; there need not be one."""
    content = await reading.body_or_none(request, service.settings.body_limit)
    return Rotation() if content is None else reading.json_object(content, Rotation)


def _callback(callback: Callback) -> dict[str, object]:
    return {
        "url": callback.url,
        "revision": callback.revision,
        "registeredAt": moment(callback.registered_at),
    }


def _lane(lane: Lane | None) -> dict[str, object]:
    if lane is None:
        # Neither a callback nor a message so far: such a lane is born held.
        return {"state": "held", "reason": None, "until": None, "failures": 0}
    until = None if lane.until is None else moment(lane.until)
    return {"state": lane.state, "reason": lane.health.reason, "until": until, "failures": lane.health.failures}


def _backlog(lane: Lane | None) -> dict[str, object]:
    if lane is None:
        return {"pending": 0, "dead": 0, "oldestAcceptedAt": None}
    oldest = None if lane.oldest_accepted_at is None else moment(lane.oldest_accepted_at)
    return {"pending": lane.pending, "dead": lane.dead, "oldestAcceptedAt": oldest}


def _key(key: Credential, now: float) -> dict[str, object]:
    return {
        "id": key.id,
        "createdAt": moment(key.created_at),
        "ageSeconds": int(now - key.created_at),
        "expiresAt": None if key.expires_at is None else moment(key.expires_at),
    }
