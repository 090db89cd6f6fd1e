"""Accounts as an operator sees them: callback and its check, lane, backlog, limits and signing keys."""

import asyncio
import secrets
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta
from msgspec.structs import asdict
from starlette.responses import Response

from ...contract import operator
from ...contract.keys import account_signing_key
from ...contract.models import FotaV2CallbackRegistrationRequest, FotaV2SuccessResult
from ...contract.signing import format_secret
from ...store import views
from ...store.records import Credential, MessageFilter
from .. import errors, requests
from ..requests import PageSize, Params
from ..routing import Call, Endpoint
from ..thingspace import callbacks

PATH: Final = "/v1/accounts/{account}"
HISTORY_LIMIT: Final = 1000
KEY_LIMIT: Final = 10
"""Live signing keys of an account: each adds a signature to every delivery."""
CHECK_SECONDS: Final = 60.0
CHECK_PLACES: Final = 8
"""Checks under way at once, each of another client."""


class AccountsQuery(Params, frozen=True):
    """Which accounts to list. `trouble`: the endpoint fails or is gone, or messages wait for a callback."""

    state: Literal["trouble", "open", "waiting", "held", "paused"] | None = None
    cursor: str | None = None
    limit: PageSize = 50


class AttemptsQuery(Params, frozen=True):
    """How many attempts."""

    limit: PageSize = 20


class AccountChange(Params, frozen=True):
    """What to change of an account."""

    limits: operator.NewLimits


class Rotation(Params, frozen=True):
    """How long the older keys stay valid: 24 hours by default, 30 days at most."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=30 * 24 * 3600.0)] = 24 * 3600.0


@Endpoint("GET", "/v1/accounts", query=AccountsQuery, scope="read")
async def list_accounts(call: Call) -> operator.AccountPage:
    """The accounts that have or had a callback or a message, by name."""
    query, service, among = call.query(AccountsQuery), call.service, call.caller.accounts
    after = service.cursors.open(query.cursor) or ""
    found = await service.accounts(state=query.state, among=among, after=after, limit=query.limit)
    more = service.cursors.seal(found[-1].account) if len(found) == query.limit else None
    return operator.AccountPage(accounts=[await _checked(call, one) for one in found], cursor=more)


@Endpoint("GET", PATH, scope="read")
async def show(call: Call) -> operator.AccountState:
    """The account's callback, its lane, what is not delivered, and its limits."""
    return await _state(call)


@Endpoint("PATCH", PATH, body=AccountChange)
async def change(call: Call) -> operator.AccountState:
    """Changes the account's limits and returns the account."""
    service, limits = call.service, (await call.json(AccountChange)).limits
    async with service.credential_lock:
        present = await service.store.limits(call.account)
        given = {name: value for name, value in asdict(limits).items() if value is not UNSET}
        changed, defaults = msgspec.structs.replace(present, **given), service.settings.quotas
        if call.caller.accounts is not None and defaults.of(changed).exceeds(defaults.of(present)):
            # A tenant that operates its own account could else lift what the operator allows.
            raise errors.MISSING_SCOPE("operate for all accounts to raise a quota")
        detail = " ".join(f"{name}={value}" for name, value in asdict(changed).items() if value is not None)
        await call.audited("account.limits", detail=detail).set_limits(call.account, changed)
        await service.quotas.read(again=True)
    return await _state(call)


@Endpoint("POST", f"{PATH}/pause")
async def pause(call: Call) -> operator.AccountState:
    """Stops delivery to the account until it is resumed; messages are kept, and their time to live stands still."""
    await call.audited("account.pause").pause(call.account, call.service.settings.consumer)
    return await _state(call)


@Endpoint("POST", f"{PATH}/resume")
async def resume(call: Call) -> operator.AccountState:
    """Ends a pause, or the wait for a failing endpoint."""
    await call.audited("account.resume").resume(call.account, call.service.settings.consumer)
    return await _state(call)


@Endpoint("GET", f"{PATH}/attempts", query=AttemptsQuery, scope="read")
async def recent_attempts(call: Call) -> operator.Attempts:
    """The last attempts at the account's newest messages, and at those that wait longest, newest first."""
    found = await call.store.recent_attempts(call.account, limit=call.query(AttemptsQuery).limit)
    return operator.Attempts(attempts=[attempt for _, attempt in found])


@Endpoint("PUT", f"{PATH}/callback", scope="callbacks", body=FotaV2CallbackRegistrationRequest)
async def register_callback(call: Call) -> Response:
    """Registers a callback as ThingSpace's call does, for a client without a user's session."""
    return await callbacks.replace(call, (await call.json(callbacks.Registration)).url)


@Endpoint("DELETE", f"{PATH}/callback", scope="callbacks")
async def deregister_callback(call: Call) -> FotaV2SuccessResult:
    """Removes the callback, as ThingSpace's call does; messages wait for the next one."""
    await call.audited("callback.deregister").deregister(call.account, actor=call.caller.name)
    return FotaV2SuccessResult(success=True)


@Endpoint("GET", f"{PATH}/callbacks", scope="read")
async def callback_history(call: Call) -> operator.CallbackHistory:
    """The changes of the account's callback and who made them, newest first."""
    return operator.CallbackHistory(history=await call.store.callback_history(call.account, HISTORY_LIMIT))


@Endpoint("GET", f"{PATH}/signing-keys", scope="read")
async def list_keys(call: Call) -> operator.SigningKeys:
    """The live signing keys, without their secrets, oldest first."""
    keys, now = await call.store.credentials("signing_key", call.account), call.service.now()
    return operator.SigningKeys(
        [views.read(operator.SigningKey, asdict(key), age_seconds=int(now - key.created_at)) for key in keys]
    )


@Endpoint("POST", f"{PATH}/signing-keys", body=Rotation, status=201, no_store=True)
async def rotate_keys(call: Call) -> operator.NewSigningKey:
    """Creates a signing key and shows its secret this once; the older keys end after the overlap."""
    service, rotation = call.service, await call.json(Rotation, optional=True)
    async with service.credential_lock:
        older = await service.store.credentials("signing_key", call.account)
        if len(older) >= KEY_LIMIT:
            raise errors.CONFLICT(f"The account has {KEY_LIMIT} live signing keys; delete one first.")
        now = service.now()
        key = Credential(kind="signing_key", id=secrets.token_hex(8), owner=call.account, created_at=now)
        # The new key first: whatever happens next, one key is valid.
        detail = f"overlap={rotation.overlap_seconds:g}s"
        await call.audited("signing_key.create", key.id, detail).save_credential(key)
        for each in older:
            ends = min(now + rotation.overlap_seconds, each.expires_at or float("inf"))
            await service.store.save_credential(msgspec.structs.replace(each, expires_at=ends))
    return operator.NewSigningKey(
        id=key.id, secret=format_secret(account_signing_key(service.settings.secret_key, key.id))
    )


@Endpoint("DELETE", f"{PATH}/signing-keys/{{id}}")
async def delete_key(call: Call) -> FotaV2SuccessResult:
    """Ends a signing key at once."""
    key = await call.store.credential("signing_key", requests.segment(call.request, "id"))
    if key is None or key.owner != call.account:
        raise errors.NOT_FOUND("The account has no such signing key; check the id against the list.")
    await call.audited("signing_key.delete", key.id).drop_credentials("signing_key", [key.id])
    return FotaV2SuccessResult(success=True)


async def _state(call: Call) -> operator.AccountState:
    if found := await call.service.accounts(among=[call.account], limit=1):
        return await _checked(call, found[0])
    # Its lane would start held.
    lane, limits = operator.LaneState("held"), await call.store.limits(call.account)
    return operator.AccountState(call.account, None, lane, operator.Backlog(0, 0), limits, known=False)


async def _checked(call: Call, found: operator.AccountState) -> operator.AccountState:
    """An account, `known` if it ever had a callback or a message; a pause alone creates a lane too."""
    if found.callback is not None or found.backlog.pending or found.backlog.dead:
        return found
    history = await call.store.callback_history(found.account, 1)
    known = history or (await call.store.messages(found.account, MessageFilter(), limit=1)).messages
    return msgspec.structs.replace(found, known=bool(known))


class Proposal(msgspec.Struct, frozen=True):
    """The URL to check; None for the one that is registered."""

    url: str | None = None


@Endpoint("POST", f"{PATH}/check", body=Proposal)
async def check(call: Call) -> operator.Checks:
    """Checks a URL as `fotahook doctor` does, with up to four test messages. A client has one check at a time."""
    service, url = call.service, (await call.json(Proposal, optional=True)).url
    if service.settings.check_receiver is None:
        raise errors.CONFLICT("This service sends nothing; run fotahook doctor where deliveries are sent from.")
    if url is None:
        callback = await service.store.callback(call.account)
        if callback is None:
            raise errors.CONFLICT("No callback is registered; name a url to check.")
        url = callback.url
    url = callbacks.checked_url(url, service.settings)
    checking, client = service.checking_clients, call.caller.name
    if client in checking or len(checking) >= CHECK_PLACES:
        raise errors.TOO_MANY_CHECKS()
    checking.add(client)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await service.settings.check_receiver(url, call.account)
    except TimeoutError:
        raise errors.CONFLICT(f"The checks took more than {CHECK_SECONDS:g} s; run fotahook doctor instead.") from None
    finally:
        checking.remove(client)
