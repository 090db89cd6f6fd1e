"""The ledger: which devices of a campaign have reported a result, and which have not.

Reconciliation completes it: what ThingSpace's report says and no message brought comes into the inbox, as messages do.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec

from fotahook.contract.calls import FIRST_PAGE, next_page
from fotahook.contract.errors import FotaV2ResultException, NotFound, PermissionDenied, RateLimited
from fotahook.contract.exchange import retry_after
from fotahook.contract.messages import FAILED, FINAL_RANK, place
from fotahook.contract.models import V2DeviceStatus
from fotahook.delivery.policy import DAY
from fotahook.store import Store
from fotahook.store.ledger import LedgerCampaign, LedgerDevice, storable
from fotahook.store.records import NewMessage

from . import validation
from .intake import HANDLERS, ChooseConsumers, Verification, receive
from .settings import ReportClient

log = logging.getLogger("fotahook.listener")

OVER_SECONDS: Final = 7 * DAY
"""How long after its end a campaign is still reconciled."""
PAUSE_SECONDS: Final = 1.0
"""Before each read, so that other users of the account's limit are not in want. Ours: ThingSpace names no limit."""
_LIMITED_TIMES: Final = 5
_PAGE: Final = 100
_AT_ONCE: Final = 5000


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a campaign's devices. A device that nobody expected is known once a message reports on it."""

    account: str
    campaign_id: str
    status: str | None = None
    """The last status of the campaign itself."""
    until: float | None = None
    """When it ends, in Unix seconds."""
    reported: int = 0
    """Devices with a result: success or failure."""
    failed: int = 0
    """Those of them that failed, were refused, or were cancelled."""
    silent: int = 0
    """Devices without a result, which is normal until the campaign ends."""
    overdue: int = 0
    """Devices without a result after the end."""
    repaired: int = 0
    """Statuses that no message brought, and that were taken from ThingSpace's report."""
    statuses: Mapping[str, int] = {}
    """Devices by their last status; '' if they are only expected."""


async def find_campaign(store: Store, account: str, campaign_id: str) -> LedgerCampaign | None:
    name = (account, storable(validation.text("campaign_id", campaign_id)))
    return next(iter(await store.ledger_campaigns(name=name, limit=1)), None)


async def read_ledger(store: Store, account: str, campaign_id: str, now: float) -> Ledger:
    if (found := await find_campaign(store, account, campaign_id)) is None:
        return Ledger(account=account, campaign_id=campaign_id)
    counts = await store.ledger_counts(found.id)
    silent = sum(count.devices for count in counts if not count.is_final)
    return Ledger(
        account=account,
        campaign_id=campaign_id,
        status=found.status,
        until=found.ends_at,
        reported=sum(count.devices for count in counts if count.is_final),
        failed=sum(count.devices for count in counts if count.status in FAILED),
        silent=silent,
        overdue=silent if found.ends_at is not None and found.ends_at <= now else 0,
        repaired=sum(count.repairs for count in counts),
        statuses={count.status: count.devices for count in counts},
    )


async def read_devices(store: Store, account: str, campaign_id: str, after: str, limit: int) -> list[LedgerDevice]:
    found = await find_campaign(store, account, campaign_id)
    return [] if found is None else (await store.ledger_devices(found.id, after=after, limit=limit))[0]


async def expect(
    store: Store, account: str, campaign_id: str, devices: Iterable[str], until: float | str | None
) -> None:
    campaign = storable(validation.text("campaign_id", campaign_id))
    names = [storable(device) for device in validation.texts("devices", devices)]
    ends_at = end_of(until) if isinstance(until, str) else until
    for begin in range(0, max(1, len(names)), _AT_ONCE):
        await store.expect(account, campaign, names[begin : begin + _AT_ONCE], ends_at=ends_at)


def end_of(day: str) -> float:
    # ThingSpace does not say in which time zone its dates are, so the day has ended when it has everywhere.
    return (datetime.combine(date.fromisoformat(day), time(tzinfo=UTC)) + timedelta(days=1, hours=12)).timestamp()


@dataclass(frozen=True)
class Reconciler:
    """Reads reports and repairs the ledger of an inbox. What was read is kept, so that it goes on after an error."""

    _store: Store
    _client: ReportClient
    _choose: ChooseConsumers
    _clock: Callable[[], float]
    _sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def everything(self, account: str | None = None) -> int:
        """Reconcile each campaign, of an account or of all, that is not over for a week; how much was repaired."""
        repaired = 0
        async for one in _campaigns(self._store):
            ends = [one.ends_at, one.at if one.rank >= FINAL_RANK else None]
            is_over = any(end is not None and end + OVER_SECONDS < self._clock() for end in ends)
            if one.account and account in (None, one.account) and not is_over:
                try:
                    repaired += await self.campaign(one.account, one.campaign)
                except (FotaV2ResultException, NotFound, PermissionDenied) as error:
                    log.warning("campaign %s of account %s cannot be read: %s", one.campaign, one.account, error)
        return repaired

    async def campaign(self, account: str, campaign_id: str) -> int:
        """Reconcile one campaign, from the page on at which the last time ended early; how much was repaired."""
        name = storable(campaign_id)
        about = (await self._read(self._client.campaigns_v2.get_campaign_information, account, campaign_id)).data
        ends_at = None
        with contextlib.suppress(ValueError):  # it is in no form that is known
            ends_at = about.end_date and end_of(about.end_date[:10])
        await self._store.expect(account, name, ends_at=ends_at)
        found = await find_campaign(self._store, account, campaign_id)
        assert found is not None  # it has just been entered
        own = LedgerDevice(device="", status=found.status, rank=found.rank, at=found.at, by_report=False, repairs=0)
        repaired = await self._enter(found, [V2DeviceStatus(device_id="", status=about.status)], [own])
        reports = self._client.software_management_reports_v2
        last: str | None = found.cursor or FIRST_PAGE
        while last is not None:
            page = await self._read(reports.get_campaign_device_status, account, campaign_id, last)
            devices = [device for device in page.data.device_list or () if device.device_id]
            names = [storable(device.device_id or "") for device in devices]
            await self._store.expect(account, name, names)
            known, _ = await self._store.ledger_devices(found.id, among=names, limit=len(names))
            repaired += await self._enter(found, devices, known)
            last = next_page(page, last)
            await self._store.expect(account, name, cursor=last or "")
        if repaired:
            log.warning("campaign %s of account %s: %d statuses never came as messages", name, account, repaired)
        return repaired

    async def _enter(
        self, campaign: LedgerCampaign, devices: Iterable[V2DeviceStatus], known: Iterable[LedgerDevice]
    ) -> int:
        by_name = {one.device: one for one in known}
        messages = [self._message(campaign, device, by_name[storable(device.device_id or "")]) for device in devices]
        accepted = await self._store.accept([message for message in messages if message is not None])
        return sum(not each.duplicate for each in accepted)

    def _message(self, campaign: LedgerCampaign, device: V2DeviceStatus, known: LedgerDevice) -> NewMessage | None:
        status, rank = place(device.status or "")
        # A report may lag behind the messages. Among results it is right.
        if not status or known.status == storable(status) or (rank < known.rank and rank < FINAL_RANK):
            return None
        kind: str = "campaign"
        about: dict[str, object] = {"id": campaign.campaign, "status": device.status}
        if device.device_id:
            reported = {name: value for name, value in msgspec.to_builtins(device).items() if value is not None}
            kind, about = "upgradeProgress", {"id": campaign.campaign, "deviceList": [reported]}
        body = msgspec.json.encode({"accountName": campaign.account, "type": kind, kind: about})
        message = receive({}, body, verification=Verification(), now=0.0, choose=self._choose, dedupe_window=0)
        # Once, though several processes may find it at the same time.
        key = f"report:{campaign.campaign}/{device.device_id}/{status}/{known.at}"
        return msgspec.structs.replace(message, idempotency_key=storable(key), by_report=True)

    async def _read(self, method: Callable[..., Any], *arguments: str) -> Any:
        """What a call of the client returns, after a pause; after a longer one if the service asks for it."""
        for attempt in range(_LIMITED_TIMES):
            await self._sleep(PAUSE_SECONDS)
            try:
                if inspect.iscoroutinefunction(method):
                    return await method(*arguments)
                return await asyncio.to_thread(method, *arguments)
            except RateLimited as error:
                if attempt == _LIMITED_TIMES - 1:
                    raise
                asked = retry_after(error.headers.get("retry-after"), self._clock()) or 0.0
                await self._sleep(min(max(asked, 60.0), 3600.0))
        raise AssertionError  # the last attempt returns or raises


async def _campaigns(store: Store) -> AsyncIterator[LedgerCampaign]:
    after = 0
    while found := await store.ledger_campaigns(after=after, limit=_PAGE):
        after = found[-1].id
        for one in found:
            yield one


async def known_consumers(store: Store) -> ChooseConsumers:
    """For a process without the listener's handlers and forwards: the consumers that an account's messages went to."""
    accounts = {one.account async for one in _campaigns(store)}
    found = {one: tuple(lane.consumer for lane in await store.lanes(one) if lane.consumer) for one in accounts}
    return lambda account, message: found.get(account) or (HANDLERS,)
