"""What the ledger can tell of campaigns and devices, in both stores."""

import msgspec

from fotahook.contract.messages import parse_message
from fotahook.store.base import Store
from fotahook.store.ledger import LedgerReport, reports_of, storable
from fotahook.store.records import NewMessage

from .conftest import ACCOUNT, VirtualClock


async def accept(store: Store, account: str, *contents: object) -> None:
    bodies = [msgspec.json.encode(content) for content in contents]
    await store.accept(
        [
            NewMessage(account=account, body=body, reports=reports_of(parse_message(body), detailed=True))
            for body in bodies
        ]
    )


def progress(campaign: str, *devices: tuple[str, str, str | None]) -> object:
    listed = [{"deviceId": device, "status": status, "resultReason": reason} for device, status, reason in devices]
    return {"upgradeProgress": {"campaignId": campaign, "deviceList": listed}}


def told(campaign: str, status: str, **members: object) -> object:
    return {"campaign": {"campaignId": campaign, "status": status, **members}}


async def test_a_campaign_comes_first_then_its_devices_in_order(store: Store, clock: VirtualClock) -> None:
    await accept(store, ACCOUNT, progress("c", ("2", "Accepted", None), ("10", "UpgradeFailed", "why")))
    await accept(store, ACCOUNT, told("c", "CampaignEnded", softwareName="S", make=7))
    await store.expect(ACCOUNT, "c", ["3"])
    itself = LedgerReport(
        account=ACCOUNT,
        campaign="c",
        device="",
        status="CampaignEnded",
        at=clock(),
        detail='{"softwareName":"S"}',
        told=None,
    )
    ten, two = (
        LedgerReport(account=ACCOUNT, campaign="c", device=device, status=status, at=clock(), detail=detail, told=None)
        for device, status, detail in (("10", "UpgradeFailed", "why"), ("2", "Accepted", None))
    )
    assert await store.reports_of_campaign(ACCOUNT, "c", limit=10) == [itself, ten, two]
    assert await store.reports_of_campaign(ACCOUNT, "c", limit=1) == [itself]
    assert await store.reports_of_campaign(ACCOUNT, "c", after="", limit=10) == [ten, two]
    assert await store.reports_of_campaign(ACCOUNT, "c", after="10", limit=10) == [two]
    assert await store.reports_of_campaign(ACCOUNT, "other", limit=10) == []
    assert await store.reports_of_campaign("other", "c", limit=10) == []


async def test_a_device_is_found_in_each_campaign_with_what_was_told_of_it(store: Store) -> None:
    for number in range(4):
        await accept(store, ACCOUNT, progress(f"c-{number}", ("1", "UpgradeFailed", f"why {number}")))
    await accept(store, ACCOUNT, progress("c-2", ("2", "Accepted", None)), told("c-1", "CampaignEnded", startDate="D"))
    await accept(store, "other", progress("c-9", ("1", "Accepted", None)))
    found = await store.reports_of_device(ACCOUNT, "1", limit=10)
    assert [(one.campaign, one.detail, one.told) for one in found] == [
        ("c-0", "why 0", None),
        ("c-1", "why 1", '{"startDate":"D"}'),
        ("c-2", "why 2", None),
        ("c-3", "why 3", None),
    ]
    assert [one.campaign for one in await store.reports_of_device(ACCOUNT, "1", after="c-1", limit=1)] == ["c-2"]
    assert [one.campaign for one in await store.reports_of_device(ACCOUNT, "2", limit=10)] == ["c-2"]
    assert [one.campaign for one in await store.reports_of_device(ACCOUNT, "", limit=10)] == ["c-1"]


async def test_texts_are_cut_and_stored_in_any_store(store: Store) -> None:
    await accept(
        store,
        ACCOUNT,
        progress("c\0", ("1", "UpgradeFailed", "a\0b" + "x" * 1000)),
        told("c\0", "CampaignEnded", model="m\0"),
    )
    itself, device = await store.reports_of_campaign(ACCOUNT, storable("c\0"), limit=10)
    assert itself.detail == '{"model":"m\ufffd"}'
    assert device.detail == ("a\ufffdb" + "x" * 1000)[:256]
