"""The ledger of a listener: who has reported, who has not, and what is stale."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Ledger, Listener
from fotahook.listener.ledger import end_of

from .conftest import NOW, Seen, request

ACCOUNT = "0000123456-00001"
Make = Callable[..., Listener]


def progress(result: str, *devices: str, **more: object) -> bytes:
    found = [{"deviceId": device, "status": result} for device in devices]
    upgrade = {"id": "c-1", "deviceList": found, **more}
    return json.dumps({"accountName": ACCOUNT, "type": "upgradeProgress", "upgradeProgress": upgrade}).encode()


async def test_the_ledger_tells_who_has_reported_and_who_has_not(make: Make) -> None:
    now = [NOW]
    listener = make(clock=lambda: now[0])
    async with listener.running():
        assert await listener.ledger(ACCOUNT, "c-1") == Ledger(account=ACCOUNT, campaign_id="c-1")
        assert await listener.ledger_devices(ACCOUNT, "c-1") == []
        await listener.expect(ACCOUNT, "c-1", (f"d-{number}" for number in range(6)), until=NOW + 60)
        for body in (
            progress("Accepted", "d-0", "d-1"),
            progress("UpgradeSuccess", "d-1", "d-2", "x"),
            progress("UpgradedFailed", "d-3", status="CampaignScheduled"),
        ):
            assert (await request(listener, body)).status == 200
        expected = Ledger(
            account=ACCOUNT,
            campaign_id="c-1",
            status="CampaignScheduled",
            until=NOW + 60,
            reported=4,
            failed=1,
            silent=3,
            statuses={"": 2, "Accepted": 1, "UpgradeFailed": 1, "UpgradeSuccess": 3},
        )
        assert await listener.ledger(ACCOUNT, "c-1") == expected
        now[0] += 60
        assert (await listener.ledger(ACCOUNT, "c-1")).overdue == 3
        devices = await listener.ledger_devices(ACCOUNT, "c-1", after="d-2", limit=2)
        assert [(one.device, one.status, one.at) for one in devices] == [
            ("d-3", "UpgradeFailed", NOW),
            ("d-4", None, None),
        ]


async def test_more_devices_are_expected_than_fit_into_one_transaction(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.listener.ledger._AT_ONCE", 2)
    listener = make()
    async with listener.running():
        await listener.expect(ACCOUNT, "c" * 300, ["1", "2", "3", "4", "5"])
        assert (await listener.ledger(ACCOUNT, "c" * 300)).silent == 5
        await listener.expect(ACCOUNT, "c-2", [], until="2026-12-01")
        assert (await listener.ledger(ACCOUNT, "c-2")).until == end_of("2026-12-01")
        with pytest.raises(ValueError, match="isoformat"):
            await listener.expect(ACCOUNT, "c-2", [], until="tomorrow")
        with pytest.raises(TypeError, match="devices must be a list"):
            await listener.expect(ACCOUNT, "c-2", "d-1")


def test_a_day_ends_when_it_has_ended_everywhere() -> None:
    assert datetime.fromtimestamp(end_of("2026-12-01"), UTC).isoformat() == "2026-12-02T12:00:00+00:00"


async def test_a_status_that_goes_back_reaches_handlers_as_stale(make: Make, seen: Seen) -> None:
    listener = make()

    @listener.on_any
    def handler(message: CallbackMessage) -> None:
        seen.add(
            (message.devices[0].status, message.stale, [device.stale for device in message.devices], message.source)
        )

    async with listener.running():
        for body in (
            progress("UpgradeSuccess", "d-1"),
            progress("InProgress", "d-1"),
            progress("UpgradeSuccess", "d-1", firmwareName="again"),
        ):
            await request(listener, body)
        await seen.wait(3)
        # One message about two devices, of which one is further already.
        await request(listener, progress("InProgress", "d-1", "d-2"))
        await seen.wait(4)
        assert (await listener.ledger(ACCOUNT, "c-1")).statuses == {"InProgress": 1, "UpgradeSuccess": 1}
    assert seen.items == [
        ("UpgradeSuccess", False, [False], "callback"),
        ("InProgress", True, [True], "callback"),
        ("UpgradeSuccess", True, [True], "callback"),
        ("InProgress", False, [True, False], "callback"),
    ]


async def test_what_is_stale_stays_so_over_a_restart(make: Make, seen: Seen) -> None:
    receiving = make()
    receiving.on_any(seen.add)
    async with receiving.running():
        await request(receiving, progress("UpgradeSuccess", "d-1"))
        await seen.wait(1)
    late = make()

    @late.on_any
    def broken(message: CallbackMessage) -> None:
        raise RuntimeError

    async with late.running():
        await request(late, progress("InProgress", "d-1"))
    again = make(schedule=(0.0,) * 9)
    again.on_any(seen.add)
    async with again.running():
        await seen.wait(2)
    assert [message.stale for message in seen.items] == [False, True]
