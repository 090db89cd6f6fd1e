"""`fotahook ledger`, on the inbox of a listener that is not running."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fotahook import CallbackMessage, Listener
from fotahook.listener import receive
from fotahook.listener.intake import Verification
from fotahook.store import open_store
from tests.client.conftest import Peer, respond
from tests.deadlines import DEADLINE
from tests.listener.test_ledger import ACCOUNT, progress

from .conftest import Run, is_one_line

INBOX = "sqlite:///inbox.db"
REPORT = {
    "hasMoreData": False,
    "deviceList": [{"deviceId": f"d-{number}", "status": "UpgradeSuccess"} for number in range(1, 4)],
}


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr("fotahook.listener.ledger.PAUSE_SECONDS", 0.0)
    peer = Peer()
    information = {"id": "c-1", "endDate": "2026-01-01", "status": "CampaignEnded"}
    peer.routes = {
        "/devices": lambda _: respond(body=REPORT),
        "/campaigns/": lambda _: respond(body=information),
    } | peer.routes
    yield peer
    peer.close()


@pytest.fixture
def inbox(run: Run) -> None:
    """An inbox with a message about a device, in the folder of the command line."""

    async def fill() -> None:
        store = await open_store(INBOX)
        await store.accept([receive({}, progress("UpgradedFailed", "d-1"), verification=Verification(), now=0.0)])
        await store.close()

    asyncio.run(fill())


@pytest.mark.usefixtures("inbox")
def test_expected_devices_are_shown_with_those_that_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "devices.txt").write_text("d-1\n\n d-3 \n")
    expected = run("ledger", "expect", "c-1", "d-2", "--file", "devices.txt", "--until", "2020-01-01", "--json")
    assert json.loads(expected.out) == {"account": ACCOUNT, "campaign": "c-1", "expected": 3}
    shown = run("ledger", "show", "c-1", "--json")
    assert json.loads(shown.out) == {
        "account": ACCOUNT,
        "campaign": "c-1",
        "status": None,
        "until": "2020-01-02T12:00:00Z",
        "reported": 1,
        "failed": 1,
        "silent": 2,
        "overdue": 2,
        "repaired": 0,
        "statuses": {"": 2, "UpgradeFailed": 1},
    }
    for devices, names in (("silent", ["d-2", "d-3"]), ("reported", ["d-1"]), ("all", ["d-1", "d-2", "d-3"])):
        listed = run("ledger", "show", "c-1", "--devices", devices, "--json").out.splitlines()
        assert [json.loads(line)["device"] for line in listed] == names
    table = run("ledger", "show", "c-1").out
    assert "(expected)" in table
    assert "UpgradeFailed" in run("ledger", "show", "c-1", "--devices", "reported").out


@pytest.mark.usefixtures("inbox")
def test_a_campaign_is_found_or_its_account_must_be_named(run: Run) -> None:
    for command in ("show", "expect"):
        said = run("ledger", command, "c-2")
        assert (said.code, is_one_line(said.err)) == (2, True)
        assert "name the account with --account" in said.err
    assert run("ledger", "expect", "c-1", "d-1", "--account", "0000123456-00002").code == 0
    assert "is of 2 accounts" in run("ledger", "show", "c-1").err
    assert run("ledger", "show", "c-1", "--account", ACCOUNT).code == 0
    assert "--until" in run("ledger", "expect", "c-1", "--account", ACCOUNT, "--until", "soon").err
    assert "there is no such file" in run("ledger", "show", "c-1", "--inbox", "sqlite:///other.db").err
    assert "give a campaign's id, or --all" in run("ledger", "reconcile").err


@pytest.mark.usefixtures("inbox")
def test_what_never_came_is_fetched_and_handled_by_the_listener(
    run: Run, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "id"),
        ("THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET", "secret"),
        ("VZ_M2M_USERNAME", "user"),
        ("VZ_M2M_PASSWORD", "password"),
    ):
        monkeypatch.setenv(name, value)
    for arguments, repaired in ((("c-1",), 4), (("--all", "--account", ACCOUNT), 0), (("--all",), 0)):
        done = run("ledger", "reconcile", *arguments, "--base-url", peer.url, "--json")
        assert (done.code, json.loads(done.out)) == (0, {"repaired": repaired})
    handled = asyncio.run(handle(5))
    assert set(handled) == {
        ("d-1", "UpgradedFailed", "callback"),
        *((f"d-{number}", "UpgradeSuccess", "report") for number in (1, 2, 3)),
        (None, None, "report"),
    }


async def handle(count: int) -> list[tuple[str | None, str | None, str]]:
    """What the handlers of the listener get when it starts."""
    listener, done = Listener(INBOX), asyncio.Event()
    seen: list[tuple[str | None, str | None, str]] = []

    @listener.on_any
    async def handler(message: CallbackMessage) -> None:
        device = next(iter(message.devices), None)
        seen.append((device.device_id if device else None, device.status if device else None, message.source))
        if len(seen) == count:
            done.set()

    async with listener.running(), asyncio.timeout(DEADLINE):
        await done.wait()
    return seen
