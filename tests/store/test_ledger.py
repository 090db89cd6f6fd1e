"""The ledger of every store: the last status of each device, and the state guard."""

import asyncio
import itertools

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fotahook.contract.messages import FINAL_RANK, place
from fotahook.contract.operator import FailureReason
from fotahook.store.base import Store
from fotahook.store.ledger import LedgerCampaign, LedgerCount
from fotahook.store.records import (
    HandOver,
    LeaseRequest,
    NewMessage,
    Note,
    Report,
)

from .conftest import ACCOUNT, VirtualClock


def reporting(
    *reports: tuple[str, str],
    by_report: bool = False,
    key: str | None = None,
    account: str = ACCOUNT,
    campaign: str = "c",
) -> NewMessage:
    """A message about devices of one campaign, with their statuses."""
    return NewMessage(
        account=account,
        body=msgspec.json.encode([*reports, by_report, key]),
        idempotency_key=key,
        consumers=("handlers",),
        reports=tuple(
            Report(campaign=campaign, device=device, status=status, rank=place(status)[1]) for device, status in reports
        ),
        by_report=by_report,
    )


async def campaign_of(store: Store, account: str = ACCOUNT) -> LedgerCampaign:
    (found,) = await store.ledger_campaigns(name=(account, "c"), limit=9)
    return found


async def in_ledger(store: Store) -> dict[str, str | None]:
    devices = (await store.ledger_devices((await campaign_of(store)).id, limit=99))[0]
    return {one.device: one.status for one in devices}


async def notes_of(store: Store) -> list[Note | None]:
    """What is noted of the messages in hand, in their order."""
    (lease,) = await store.lease(10, 30)
    return [delivery.note for delivery in await store.fetch(lease, 99)]


async def test_what_messages_report_is_in_the_ledger(store: Store, clock: VirtualClock) -> None:
    await store.accept([reporting(("d-1", "Accepted"), ("d-2", "Accepted"), ("", "CampaignScheduled"))])
    clock.advance(5)
    await store.accept([reporting(("d-1", "UpgradeSuccess"))])
    assert await in_ledger(store) == {"d-1": "UpgradeSuccess", "d-2": "Accepted"}
    campaign = await campaign_of(store)
    assert (campaign.account, campaign.campaign, campaign.status, campaign.rank) == (
        ACCOUNT,
        "c",
        "CampaignScheduled",
        3,
    )
    first, second = (await store.ledger_devices(campaign.id, limit=9))[0]
    assert (first.at, second.at) == (clock.now, clock.now - 5)
    assert [one.device for one in (await store.ledger_devices(campaign.id, among=["d-2", "x"], limit=9))[0]] == ["d-2"]
    assert [one.device for one in (await store.ledger_devices(campaign.id, after="d-1", limit=9))[0]] == ["d-2"]
    assert [one.device for one in (await store.ledger_devices(campaign.id, limit=1))[0]] == ["d-1"]
    assert await notes_of(store) == [None, None]


async def test_a_duplicate_reports_nothing_new(store: Store) -> None:
    await store.accept([reporting(("d", "Accepted"), key="k")])
    await store.accept([reporting(("d", "UpgradeSuccess"), key="k"), reporting(("d", "UpgradeSuccess"), key="k")])
    assert await in_ledger(store) == {"d": "Accepted"}


async def test_a_status_that_goes_back_is_noted_and_changes_nothing(store: Store) -> None:
    done = reporting(("d-1", "UpgradeSuccess"), ("d-2", "UpgradeFailed"))
    late = reporting(("d-1", "InProgress"), ("d-2", "UpgradeFailed"), ("d-3", "InProgress"))
    await store.accept([done, late, reporting(("d-1", "UpgradeFailed"))])
    assert await in_ledger(store) == {"d-1": "UpgradeSuccess", "d-2": "UpgradeFailed", "d-3": "InProgress"}
    assert await notes_of(store) == [None, Note(stale=("d-1", "d-2")), Note(stale=("d-1",))]


async def test_a_report_corrects_results_and_is_counted(store: Store) -> None:
    await store.accept([reporting(("d-1", "UpgradeSuccess"), ("d-2", "Accepted"))])
    await store.accept([reporting(("d-1", "UpgradeFailed"), ("d-2", "UpgradeSuccess"), by_report=True)])
    # What comes late is known already; what goes back as well.
    await store.accept([reporting(("d-2", "UpgradeSuccess")), reporting(("d-2", "Accepted"), by_report=True)])
    campaign = await campaign_of(store)
    assert await in_ledger(store) == {"d-1": "UpgradeFailed", "d-2": "UpgradeSuccess"}
    devices = (await store.ledger_devices(campaign.id, limit=9))[0]
    assert [(one.by_report, one.repairs) for one in devices] == [(True, 1), (True, 1)]
    counts = [
        LedgerCount(status=status, is_final=True, devices=1, repairs=1)
        for status in ("UpgradeFailed", "UpgradeSuccess")
    ]
    assert await store.ledger_counts(campaign.id) == counts
    assert await notes_of(store) == [
        None,
        Note(by_report=True),
        Note(stale=("d-2",)),
        Note(by_report=True, stale=("d-2",)),
    ]


async def test_a_late_copy_of_what_a_report_said_is_stale_and_further_progress_is_not(store: Store) -> None:
    await store.accept([reporting(("d", "InProgress")), reporting(("d", "InProgress"), key="2")])
    await store.accept([reporting(("d", "Downloading"), by_report=True), reporting(("d", "Downloading"))])
    assert await notes_of(store) == [None, None, Note(by_report=True), Note(stale=("d",))]


async def test_devices_may_be_expected_before_and_after_they_report(store: Store, clock: VirtualClock) -> None:
    await store.accept([reporting(("d-1", "UpgradeSuccess"))])
    await store.expect(ACCOUNT, "c", ["d-2", "d-1", "d-2", "d-3"], ends_at=clock.now + 60)
    await store.expect(ACCOUNT, "c", cursor="d-2")
    campaign = await campaign_of(store)
    assert (campaign.ends_at, campaign.cursor, campaign.status) == (clock.now + 60, "d-2", None)
    assert await in_ledger(store) == {"d-1": "UpgradeSuccess", "d-2": None, "d-3": None}
    assert [(count.status, count.devices) for count in await store.ledger_counts(campaign.id)] == [
        ("", 2),
        ("UpgradeSuccess", 1),
    ]
    assert await store.overdue_devices(3600) == 0
    clock.advance(60)
    assert await store.overdue_devices(3600) == 2
    # The campaign's own status is that of no device.
    await store.accept([reporting(("d-2", "InProgress"), ("d-3", "UpgradeFailed"), ("", "CampaignScheduled"))])
    assert await store.overdue_devices(3600) == 1
    clock.advance(3600)
    assert await store.overdue_devices(3600) == 0


async def test_campaigns_are_listed_and_old_statuses_forgotten(store: Store, clock: VirtualClock) -> None:
    for account in ("b", "a"):
        await store.accept([reporting(("d-1", "Accepted"), ("d-2", "Accepted"), account=account)])
    await store.expect("b", "c", ["d-0"], ends_at=clock.now)
    first, second = await store.ledger_campaigns(limit=9)
    assert (first.account, second.account) == ("b", "a")
    assert await store.ledger_campaigns(after=first.id, limit=1) == [second]
    clock.advance(60)
    await store.accept([reporting(("d-2", "UpgradeSuccess"), account="b")])
    assert not await store.forget_reports(first.id, 60, 2)
    clock.advance(1)
    assert await store.forget_reports(first.id, 60, 2)
    assert not await store.forget_reports(first.id, 60, 2)
    assert [one.device for one in (await store.ledger_devices(first.id, limit=9))[0]] == ["d-2"]
    assert len((await store.ledger_devices(second.id, limit=9))[0]) == 2


async def test_concurrent_reports_leave_the_latest_of_the_life_cycle(store: Store) -> None:
    statuses = ["Accepted", "InProgress", "UpgradeSuccess", "UpgradeFailed", "Downloading"]
    await asyncio.gather(*(store.accept([reporting((f"d-{n % 3}", statuses[n % 5]))]) for n in range(45)))
    assert await in_ledger(store) == {f"d-{n}": "UpgradeSuccess" for n in range(3)}


async def test_a_handed_over_delivery_has_its_note(store: Store) -> None:
    handed: list[HandOver] = []
    assert await store.lease(1, 30) == []
    store.hand_over(lambda: LeaseRequest(lanes=5, seconds=30.0), handed.extend)
    await store.accept([reporting(("d", "UpgradeSuccess")), reporting(("d", "Accepted"))])
    notes = [delivery.note for one in handed for delivery in one.deliveries]
    assert notes == [None, Note(stale=("d",))]


STATUSES = ["Accepted", "InProgress", "Downloading", "UpgradeFailed", "DeviceRejected", "UpgradeSuccess"]
numbers = itertools.count()
reports = st.lists(
    st.tuples(st.sampled_from(["", "d-1", "d-2"]), st.sampled_from(STATUSES)),
    min_size=1,
    max_size=3,
    unique_by=lambda report: report[0],
)
batches = st.lists(st.lists(st.tuples(reports, st.booleans()), min_size=1, max_size=3), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
async def test_the_guard_keeps_the_latest_of_the_life_cycle_and_notes_the_rest(
    store: Store, given_batches: list[list[tuple[list[tuple[str, str]], bool]]]
) -> None:
    """Compared with a model of one device at a time."""
    campaign = f"c-{next(numbers)}"
    known: dict[str, tuple[str, bool, int]] = {}
    expected: list[Note | None] = []
    for batch in given_batches:
        await store.accept(
            [reporting(*some, by_report=told, campaign=campaign, account=campaign) for some, told in batch]
        )
        for some, told in batch:
            stale = []
            for device, status in some:
                last, by_report, repairs = known.get(device, ("", False, 0))
                rank, before = place(status)[1], place(last)[1] if last else 0
                if (
                    rank > before
                    or (rank == before and (status != last or (rank < FINAL_RANK and not by_report)))
                    or (told and rank >= FINAL_RANK and status != last)
                ):
                    known[device] = (status, told, repairs + told)
                else:
                    stale.append(device)
            expected.append(Note(by_report=told, stale=tuple(stale)) if told or stale else None)
    if not given_batches:
        return
    (found,) = await store.ledger_campaigns(name=(campaign, campaign), limit=1)
    devices = (await store.ledger_devices(found.id, after="", limit=9))[0]
    assert {one.device: (one.status, one.by_report, one.repairs) for one in devices} == {
        device: entry for device, entry in known.items() if device
    }
    assert found.status == (known[""][0] if "" in known else None)
    (lease,) = [lease for lease in await store.lease(99, 30) if lease.account == campaign]
    notes = [delivery.note for delivery in await store.fetch(lease, 99)]
    # The order within a note is the order in which the store looked.
    assert [sort(note) for note in notes] == [sort(note) for note in expected]


def sort(note: Note | None) -> Note | None:
    return note and Note(by_report=note.by_report, stale=tuple(sorted(note.stale)))


async def test_campaigns_and_their_devices_can_be_looked_through(store: Store, clock: VirtualClock) -> None:
    (first, _) = await store.accept(
        [
            reporting(("d-1", "UpgradeSuccess"), ("d-2", "UpgradeFailed"), ("d-3", "Accepted")),
            reporting(("d-1", "Accepted"), account="other", campaign="later"),
        ]
    )
    await store.expect(ACCOUNT, "c", ["d-4"])
    later, campaign = await store.latest_campaigns(among=None, limit=9)
    assert [(one.account, one.campaign) for one in (later, campaign)] == [("other", "later"), (ACCOUNT, "c")]
    assert await store.latest_campaigns(among=None, before=later.id, limit=9) == [campaign]
    assert await store.latest_campaigns(among=["other"], limit=9) == [later]
    assert await store.latest_campaigns(among=None, campaign="lat", limit=9) == [later]
    devices, after = await store.ledger_devices(campaign.id, limit=9)
    assert [(one.device, one.status, one.message) for one in devices] == [
        ("d-1", "UpgradeSuccess", first.id),
        ("d-2", "UpgradeFailed", first.id),
        ("d-3", "Accepted", first.id),
        ("d-4", None, None),
    ]
    assert after is None
    for kind, found in (("succeeded", ["d-1"]), ("failed", ["d-2"]), ("silent", ["d-3", "d-4"])):
        devices, _ = await store.ledger_devices(campaign.id, kind=kind, limit=9)
        assert [one.device for one in devices] == found
    assert await store.ledger_devices(campaign.id, kind="silent", after="d-1", limit=1) == ([], "d-2")
    assert await store.ledger_devices(campaign.id, among=[], limit=0) == ([], None)
    assert await store.campaign_reasons(campaign.id, limit=9) == [FailureReason("", 1)]
    found_devices = await store.find_device("d-1", among=None, limit=9)
    assert sorted((one.account, one.campaign, one.status) for one in found_devices) == [
        (ACCOUNT, "c", "UpgradeSuccess"),
        ("other", "later", "Accepted"),
    ]
    assert [one.account for one in await store.find_device("d-1", among=["other"], limit=9)] == ["other"]


async def test_a_campaign_tells_when_its_devices_said_their_last_status(store: Store, clock: VirtualClock) -> None:
    for seconds, device, status in (
        (0, "d-1", "UpgradeSuccess"),
        (200, "d-2", "UpgradeFailed"),
        (1, "d-3", "Accepted"),
    ):
        clock.advance(seconds)
        await store.accept([reporting((device, status))])
    await store.expect(ACCOUNT, "c", ["d-4"])
    (campaign,) = await store.latest_campaigns(among=None, limit=9)
    found = await store.campaign_timeline(campaign.id, slots=2)
    assert [(one.succeeded, one.failed, one.other) for one in found] == [(1, 0, 0), (0, 1, 1)]
    assert 100 <= (found[1].at - found[0].at).total_seconds() <= 200
