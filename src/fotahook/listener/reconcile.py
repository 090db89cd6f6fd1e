"""Reconciliation: what ThingSpace's report says and no message brought comes into the inbox, as messages do."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from fotahook.contract.calls import FIRST_PAGE, next_page
from fotahook.contract.errors import FotaV2ResultException, NotFound, PermissionDenied, RateLimited
from fotahook.contract.exchange import retry_after
from fotahook.contract.messages import FINAL_RANK, place
from fotahook.contract.models import V2DeviceStatus
from fotahook.store import Store
from fotahook.store.ledger import LedgerCampaign, LedgerDevice, storable
from fotahook.store.records import NewMessage

from .intake import HANDLERS, ChooseConsumers, receive
from .ledger import end_of, find_campaign
from .settings import ReportClient
from .verification import Verification

log = logging.getLogger("fotahook.listener")

OVER_SECONDS: Final = 7 * 86400.0
"""How long after its end a campaign is still reconciled."""
PAUSE_SECONDS: Final = 1.0
"""Before each read, so that other users of the account's limit are not in want. Ours: ThingSpace names no limit."""
_LIMITED_SECONDS: Final = 60.0
_LIMITED_MOST_SECONDS: Final = 3600.0
_LIMITED_TIMES: Final = 5
_PAGE: Final = 100


class Reconciler:
    """Reads reports and repairs the ledger of an inbox. What was read is kept, so that it goes on after an error."""

    def __init__(
        self,
        store: Store,
        client: ReportClient,
        choose: ChooseConsumers,
        clock: Callable[[], float],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store, self._client, self._choose, self._clock, self._sleep = store, client, choose, clock, sleep

    async def everything(self, account: str | None = None) -> int:
        """Reconcile each campaign, of an account or of all, that is not over for a week; how much was repaired.

        FotahookError as from the calls. A campaign that ThingSpace does not show is only logged.
        """
        repaired, after = 0, 0
        while found := await self._store.ledger_campaigns(after=after, limit=_PAGE):
            after = found[-1].id
            for one in found:
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
            ends_at = None if about.end_date is None else end_of(about.end_date[:10])
        await self._store.expect(account, name, ends_at=ends_at)
        found = await find_campaign(self._store, account, campaign_id)
        assert found is not None  # it has just been entered
        own = LedgerDevice(device="", status=found.status, rank=found.rank, at=found.at, by_report=False, repairs=0)
        repaired = await self._enter(found, [V2DeviceStatus(device_id="", status=about.status)], {"": own})
        reports = self._client.software_management_reports_v2
        last: str | None = found.cursor or FIRST_PAGE
        while last is not None:
            page = await self._read(reports.get_campaign_device_status, account, campaign_id, last)
            devices = [device for device in page.data.device_list or () if device.device_id]
            names = [storable(device.device_id or "") for device in devices]
            await self._store.expect(account, name, names)
            known, _ = await self._store.ledger_devices(found.id, among=names, limit=len(names))
            repaired += await self._enter(found, devices, {one.device: one for one in known})
            last = next_page(page, last)
            await self._store.expect(account, name, cursor=last or "")
        if repaired:
            log.warning("campaign %s of account %s: %d statuses never came as messages", name, account, repaired)
        return repaired

    async def _enter(
        self, campaign: LedgerCampaign, devices: Iterable[V2DeviceStatus], known: dict[str, LedgerDevice]
    ) -> int:
        """Put into the inbox what the report says of devices and the ledger does not; how much that was."""
        messages = [self._message(campaign, device, known[storable(device.device_id or "")]) for device in devices]
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
                await self._sleep(min(max(asked, _LIMITED_SECONDS), _LIMITED_MOST_SECONDS))
        raise AssertionError  # the last attempt returns or raises


async def known_consumers(store: Store) -> ChooseConsumers:
    """For a process without the listener's handlers and forwards: the consumers that an account's messages went to."""
    found: dict[str, tuple[str, ...]] = {}
    after = 0
    while page := await store.ledger_campaigns(after=after, limit=_PAGE):
        after = page[-1].id
        for account in {one.account for one in page} - found.keys():
            found[account] = tuple(lane.consumer for lane in await store.lanes(account) if lane.consumer)
    return lambda account, message: found.get(account) or (HANDLERS,)
