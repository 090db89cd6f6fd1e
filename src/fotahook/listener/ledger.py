"""The ledger: which devices of a campaign have reported a result, and which have not."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import msgspec

from fotahook.contract.messages import FAILED
from fotahook.store import Store
from fotahook.store.ledger import LedgerCampaign, LedgerDevice, storable

from . import validation

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
    """A campaign as the ledger has it."""
    name = (account, storable(validation.text("campaign_id", campaign_id)))
    return next(iter(await store.ledger_campaigns(name=name, limit=1)), None)


async def read_ledger(store: Store, account: str, campaign_id: str, now: float) -> Ledger:
    """The numbers of a campaign; all 0 if nothing is known of it."""
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
    """The devices of a campaign behind `after`, in order."""
    found = await find_campaign(store, account, campaign_id)
    return [] if found is None else (await store.ledger_devices(found.id, after=after, limit=limit))[0]


async def expect(
    store: Store, account: str, campaign_id: str, devices: Iterable[str], until: float | str | None
) -> None:
    """Enter devices that are to report until a time."""
    campaign = storable(validation.text("campaign_id", campaign_id))
    names = [storable(device) for device in validation.texts("devices", devices)]
    ends_at = end_of(until) if isinstance(until, str) else until
    for begin in range(0, max(1, len(names)), _AT_ONCE):
        await store.expect(account, campaign, names[begin : begin + _AT_ONCE], ends_at=ends_at)


def end_of(day: str) -> float:
    """The end of a day, ``YYYY-MM-DD``, in Unix seconds. ValueError for anything else.

    ThingSpace does not say in which time zone its dates are, so the day has ended when it has everywhere.
    """
    return (datetime.combine(date.fromisoformat(day), time(tzinfo=UTC)) + timedelta(days=1, hours=12)).timestamp()
