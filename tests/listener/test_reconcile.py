"""Reconciliation with ThingSpace's report, read from a peer with scripted responses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import fotahook
from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Listener
from fotahook.listener.ledger import OVER_SECONDS, Reconciler
from tests.client.conftest import OAUTH, USER, Chunks, Peer, Received, respond
from tests.deadlines import DEADLINE

from .conftest import NOW, Seen, request
from .test_ledger import ACCOUNT, Make, progress

Reported = dict[str, str | None]


class Campaign:
    """A campaign as ThingSpace reports it, in pages of three devices."""

    def __init__(self, peer: Peer) -> None:
        self.information: dict[str, Any] = {"id": "c-1", "status": "CampaignEnded", "endDate": "2027-01-20"}
        self.devices: Reported = {}
        self.pages: list[str] = []
        self.before_page: Callable[[str], Chunks | None] = lambda last: None
        peer.routes = {"/devices": self._page, "/campaigns/": lambda _: respond(body=self.information)} | peer.routes

    def _page(self, seen: Received) -> Chunks:
        (last,) = parse_qs(urlsplit(seen.target).query)["lastSeenDeviceId"]
        if (instead := self.before_page(last)) is not None:
            return instead
        self.pages.append(last)
        names = sorted(name for name in self.devices if name > last)
        listed = [{"deviceId": name, "status": self.devices[name], "resultReason": "x"} for name in names[:3]]
        more = {"lastSeenDeviceId": names[2]} if len(names) > 3 else {}
        return respond(body={"hasMoreData": len(names) > 3, "maxPageSize": 3, "deviceList": listed, **more})


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def campaign(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("fotahook.listener.ledger.PAUSE_SECONDS", 0.0)
    return Campaign(peer)


@pytest.fixture(params=[fotahook.Client, fotahook.AsyncClient])
async def client(peer: Peer, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    client = request.param(
        base_url=peer.url, thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, max_retries=0
    )
    yield client
    await client.aclose() if isinstance(client, fotahook.AsyncClient) else client.close()


def seen_by(listener: Listener) -> Seen:
    """What handlers get: campaign, device, status, source, and whether it is stale."""
    seen = Seen()

    @listener.on_any
    def handler(message: CallbackMessage) -> None:
        devices = [(device.device_id, device.status) for device in message.devices] or [(None, None)]
        seen.add((message.campaign_id, *devices[0], message.source, message.stale))

    return seen


async def test_what_never_came_reaches_handlers_once_from_the_report(
    make: Make, campaign: Campaign, client: Any
) -> None:
    campaign.devices |= {f"d-{number}": "UpgradeSuccess" for number in range(7)}
    campaign.devices |= {"d-3": "UpgradeFailed", "d-8": None}
    listener = make()
    seen = seen_by(listener)
    async with listener.running():
        for status, device in (("UpgradeSuccess", "d-0"), ("UpgradedFailed", "d-3"), ("Accepted", "d-1")):
            await request(listener, progress(status, device))
        await seen.wait(3)
        assert await listener.reconcile(client, ACCOUNT, "c-1") == 6
        await seen.wait(9)
        assert await listener.reconcile(client, ACCOUNT, "c-1") == 0
        found = await listener.ledger(ACCOUNT, "c-1")
        # What comes late is told as stale.
        await request(listener, progress("UpgradeSuccess", "d-1"))
        await seen.wait(10)
    repaired = [("c-1", f"d-{number}", "UpgradeSuccess", "report", False) for number in (1, 2, 4, 5, 6)]
    assert sorted(seen.items[3:9], key=str) == sorted([("c-1", None, None, "report", False), *repaired], key=str)
    assert seen.items[9] == ("c-1", "d-1", "UpgradeSuccess", "callback", True)
    assert (found.status, found.reported, found.failed, found.silent, found.repaired) == ("CampaignEnded", 7, 1, 1, 5)
    assert found.until is not None
    assert campaign.pages == ["0", "d-2", "d-5"] * 2


async def test_a_report_that_lags_behind_changes_nothing(make: Make, campaign: Campaign, client: Any) -> None:
    campaign.information |= {"status": "SomethingNew", "endDate": "soon"}
    campaign.devices = {"d-1": "UpgradePending", "d-2": "Accepted", "d-3": "UpgradeFailed"}
    listener = make()
    async with listener.running():
        for status, device in (("UpgradeSuccess", "d-1"), ("InProgress", "d-2"), ("UpgradeSuccess", "d-3")):
            await request(listener, progress(status, device, status="CampaignEnded"))
        # Among results the report is right.
        assert await listener.reconcile(client, ACCOUNT, "c-1") == 1
        found = await listener.ledger(ACCOUNT, "c-1")
    assert (found.status, found.until) == ("CampaignEnded", None)
    assert found.statuses == {"InProgress": 1, "UpgradeFailed": 1, "UpgradeSuccess": 1}


async def test_a_report_may_change_a_result_and_change_it_back(make: Make, campaign: Campaign, client: Any) -> None:
    listener = make()
    async with listener.running():
        # The first time the campaign's own status is new as well.
        for status, repaired in (("UpgradeSuccess", 2), ("UpgradeFailed", 1), ("UpgradeSuccess", 1)):
            campaign.devices = {"d-1": status}
            assert await listener.reconcile(client, ACCOUNT, "c-1") == repaired
            assert (await listener.ledger(ACCOUNT, "c-1")).statuses == {status: 1}


async def test_it_goes_on_where_an_error_ended_it(make: Make, campaign: Campaign, client: Any) -> None:
    campaign.devices = {f"d-{number}": "UpgradeSuccess" for number in range(8)}
    campaign.before_page = lambda last: respond(500) if last == "d-5" else None
    listener = make()
    async with listener.running():
        with pytest.raises(fotahook.ServerError):
            await listener.reconcile(client, ACCOUNT, "c-1")
        assert (await listener.ledger(ACCOUNT, "c-1")).repaired == 6
        campaign.before_page = lambda last: None
        assert await listener.reconcile(client, ACCOUNT, "c-1") == 2
    assert campaign.pages == ["0", "d-2", "d-5"]


async def test_only_campaigns_that_are_not_over_for_a_week_are_read(
    make: Make, campaign: Campaign, client: Any, peer: Peer
) -> None:
    listener = make()
    known = {"c-old": NOW - OVER_SECONDS - 1, "c-new": NOW - OVER_SECONDS + 1, "c-gone": None}
    async with listener.running():
        for name, until in known.items():
            await listener.expect(ACCOUNT, name, [], until=until)
        await listener.expect("other", "c-1", [])
        gone = peer.routes["/campaigns/"]
        peer.routes["/campaigns/"] = lambda seen: respond(400) if "c-gone" in seen.target else gone(seen)
        await listener.reconcile(client, ACCOUNT)
    read = {part for seen in peer.seen for part in ("c-old", "c-new", "c-gone", "other") if part in seen.target}
    assert read == {"c-new", "c-gone"}


async def test_two_processes_repair_once(make: Make, campaign: Campaign, client: Any, peer: Peer) -> None:
    campaign.devices = {f"d-{number}": "UpgradeSuccess" for number in range(3)}
    first, second = make(), make()
    async with first.running(), second.running():
        await first.expect(ACCOUNT, "c-1", [])
        counts = await asyncio.gather(*(one.reconcile(client, ACCOUNT, "c-1") for one in (first, second)))
        assert sum(counts) == 4
        assert (await first.ledger(ACCOUNT, "c-1")).repaired == 3


async def test_it_waits_when_the_service_asks_for_it_and_gives_up_in_the_end(
    make: Make, campaign: Campaign, client: Any
) -> None:
    limits = iter(["5", "120", "1" * 30, None])
    campaign.before_page = lambda last: (
        respond(429, headers=f"Retry-After: {limit}\r\n") if (limit := next(limits)) else None
    )
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    listener = make()
    async with listener.running():
        store = await listener._inbox.store()
        reconciler = Reconciler(store, client, listener.request_handler.consumers, lambda: NOW, sleep)
        await reconciler.campaign(ACCOUNT, "c-1")
        assert [wait for wait in waits if wait] == [60.0, 120.0, 3600.0]
        campaign.before_page = lambda last: respond(429)
        with pytest.raises(fotahook.RateLimited):
            await reconciler.campaign(ACCOUNT, "c-1")


async def test_a_listener_reconciles_while_it_runs_and_stops_at_a_refused_login(
    make: Make, campaign: Campaign, client: Any, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    campaign.devices = {"d-1": "UpgradeSuccess"}
    listener = make(reconcile=client, every=0.01, repair_limit=0)
    seen = seen_by(listener)
    async with listener.running():
        await listener.expect(ACCOUNT, "c-1", ["d-1"])
        await seen.wait(2)
        await until(lambda: "fotahook_repaired_total 2\n" in listener.metrics())
        assert any("alarm repairs raised: 2 statuses" in line for line in caplog.messages)
        peer.routes["session/login"] = lambda _: respond(401)
        peer.routes["/campaigns/"] = lambda _: respond(
            401, {"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"}
        )
        await until(lambda: any("no longer reconciled" in line for line in caplog.messages))
        logins = sum("session/login" in one.target for one in peer.seen)
        await asyncio.sleep(0.1)
        assert sum("session/login" in one.target for one in peer.seen) == logins


async def until(happened: Callable[[], object]) -> bool:
    async with asyncio.timeout(DEADLINE):
        while not happened():  # noqa: ASYNC110  # what is waited for is a line of the log
            await asyncio.sleep(0.01)
    return True
