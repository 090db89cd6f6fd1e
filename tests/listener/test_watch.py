"""The watch of a listener: metrics, and alarms that are told once at each change."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from fotahook.contract.messages import CallbackMessage
from fotahook.delivery import Outcome
from fotahook.delivery.runtime import LEDGER_SECONDS, forget_reports
from fotahook.listener import Listener
from fotahook.listener.watch import ALARMS
from fotahook.store.records import Delivery, Lease

from .conftest import NOW, PROGRESS, Seen, request, stored
from .test_ledger import ACCOUNT, Make, progress

URL = "https://alarms.example.com/"


class Alarms:
    """What the alarms' receiver gets."""

    def __init__(self, listener: Listener) -> None:
        self.seen = Seen()
        listener._forwards.fake_deliver = self._deliver

    async def _deliver(self, lease: Lease, delivery: Delivery) -> Outcome:
        self.seen.add(json.loads(delivery.body))
        return Outcome(code="delivered")

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(alarm["alarm"], alarm["type"].rpartition(".")[2]) for alarm in self.seen.items]


async def check(listener: Listener) -> None:
    await listener._watch.check(await listener._inbox.store())


async def test_overdue_devices_are_an_alarm_once_until_they_report(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    now = [NOW]
    listener = make(alarm_url=URL, clock=lambda: now[0])
    alarms = Alarms(listener)
    caplog.set_level("INFO", "fotahook.listener")
    async with listener.running():
        await listener.expect(ACCOUNT, "c-1", ["d-1", "d-2"], until=NOW + 60)
        await check(listener)
        assert "# TYPE fotahook_overdue_devices gauge\nfotahook_overdue_devices 0\n" in listener.metrics()
        now[0] += 61
        for _ in range(3):
            await check(listener)
        assert "fotahook_overdue_devices 2\n" in listener.metrics()
        await alarms.seen.wait(1)
        await request(listener, progress("UpgradeSuccess", "d-1", "d-2"))
        await check(listener)
        await alarms.seen.wait(2)
    raised, cleared = alarms.seen.items
    assert raised == {
        "type": "fotahook.alarm.raised",
        "alarm": "overdue_devices",
        "value": 2,
        "text": "2 devices have not reported a result",
        "at": datetime.fromtimestamp(NOW + 61, UTC).isoformat(),
    }
    assert (cleared["type"], cleared["value"]) == ("fotahook.alarm.cleared", 0)
    assert [line.partition(":")[0] for line in caplog.messages if line.startswith("alarm")] == [
        "alarm overdue_devices raised",
        "alarm overdue_devices cleared",
    ]


async def test_an_alarm_is_not_told_again_after_a_restart(make: Make) -> None:
    seen: list[tuple[str, str]] = []
    for _ in range(2):
        listener = make(alarm_url=URL)
        alarms = Alarms(listener)
        async with listener.running():
            listener.report_callback(True)
            await check(listener)
            if not seen:
                await alarms.seen.wait(1)
            assert "fotahook_callback_replaced 1\n" in listener.metrics()
        seen += alarms.told
    assert seen == [("callback_replaced", "raised")]


async def test_silence_is_an_alarm_and_alarms_do_not_break_it(make: Make, seen: Seen) -> None:
    now = [NOW]
    listener = make(alarm_url=URL, silence=3600, clock=lambda: now[0])
    alarms = Alarms(listener)
    listener.on_any(seen.add)
    async with listener.running():
        now[0] += 3601
        await check(listener)
        await alarms.seen.wait(1)
        await check(listener)
        assert "fotahook_silent_seconds 3601\n" in listener.metrics()
        await request(listener, PROGRESS)
        await seen.wait(1)
        await check(listener)
        await alarms.seen.wait(2)
    assert alarms.told == [("silence", "raised"), ("silence", "cleared")]


async def test_a_certificate_that_ends_soon_is_an_alarm(make: Make, tmp_path: Path) -> None:
    ends = datetime.now(UTC) + timedelta(days=30)
    certificate = trustme.CA().issue_cert("example.com", not_after=ends)
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    now = [ends.timestamp() - 22 * 86400]
    listener = make(clock=lambda: now[0])
    listener.configure(alarm_url=URL, certificate=tmp_path / "cert.pem")
    alarms = Alarms(listener)
    async with listener.running():
        await check(listener)
        now[0] += 2 * 86400
        await check(listener)
        await alarms.seen.wait(1)
    assert alarms.told == [("certificate", "raised")]
    assert alarms.seen.items[0]["text"] == "the certificate ends in 20.0 days"


async def test_alarms_are_logged_without_a_receiver_and_a_broken_check_is_too(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.listener.watch.CHECK_SECONDS", 0.01)
    listener = make(certificate=tmp_path / "absent.pem")
    listener.report_callback(True)
    async with listener.running():
        while sum(line == "check failed" for line in caplog.messages) < 2:
            await listener.ledger(ACCOUNT, "c-1")
    assert sum(line.startswith("alarm callback_replaced raised") for line in caplog.messages) == 1


async def test_old_statuses_leave_the_ledger(make: Make) -> None:
    now = [NOW]
    listener = make(clock=lambda: now[0])
    async with listener.running():
        await request(listener, progress("UpgradeSuccess", "d-1"))
        now[0] += LEDGER_SECONDS + 1
        await request(listener, progress("UpgradeSuccess", "d-2"))
        await forget_reports(await listener._inbox.store(), LEDGER_SECONDS)
        assert (await listener.ledger(ACCOUNT, "c-1")).statuses == {"UpgradeSuccess": 1}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"every": 0}, "every must be a number of seconds above 0"),
        ({"silence": 0}, "silence must be"),
        ({"repair_limit": -1}, "repair_limit must be"),
        ({"alarm_url": "ftp://x"}, "a forward to"),
    ],
)
def test_invalid_settings_are_refused(make: Make, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make(**options)


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.1", {}, 404),
        (None, {}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.1"}, 404),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 404),
    ],
)
async def test_metrics_are_for_this_machine_alone(
    make: Make, peer: str | None, headers: dict[str, str], status: int
) -> None:
    answer = await request(make(), method="GET", path="/metrics", client=peer, headers=headers)
    assert answer.status == status
    assert ("fotahook_repaired_total 0" in answer.body.decode()) == (status == 200)


async def test_no_sender_can_put_an_alarm_into_the_inbox(make: Make, inbox: str) -> None:
    listener = make()
    body = json.dumps({"accountName": ALARMS, "type": "fotahook.alarm.raised"}).encode()
    async with listener.running():
        answer = await request(listener, body, headers={"fotahook-account": "fotahook%2Falarms"})
    assert (await stored(inbox, answer.json["id"])).account == ""


async def test_no_message_goes_to_the_receiver_of_alarms(make: Make) -> None:
    listener = make(alarm_url=URL)
    assert listener.request_handler.consumers("a-1", CallbackMessage()) == ("handlers",)
