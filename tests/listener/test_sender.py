"""What the sender does is counted, for the last day, in bounded memory."""

import pytest

from fotahook.listener import Listener
from fotahook.listener.watch import SenderCounts, SenderReport

from .conftest import NOW, PROGRESS, Seen, request

SUCCESS = (
    b'{"accountName": "a-1", "type": "upgradeProgress", "upgradeProgress":'
    b' {"campaignId": "c-1", "deviceList": [{"deviceId": "d-1", "status": "UpgradeSuccess"}]}}'
)
LATE = SUCCESS.replace(b"UpgradeSuccess", b"InProgress")


def a_counter() -> tuple[SenderCounts, list[float]]:
    now = [NOW]
    return SenderCounts(lambda: now[0]), now


async def test_a_listener_counts_what_came_and_how_it_was_answered(inbox: str, seen: Seen) -> None:
    listener = Listener(inbox, clock=lambda: NOW, basic=(("u", "old"), ("u", "new")), trusted_proxies=["192.0.2.1/32"])
    listener.on_any(seen.add)
    body = b'{"username": "u", "password": "%s", ' + PROGRESS[1:]
    async with listener.running():
        await request(listener, body % b"old", headers={"User-Agent": "A"})
        await request(listener, body % b"new", headers={"User-Agent": "B", "X-Forwarded-For": "198.51.100.7"})
        await request(listener, PROGRESS)
        await seen.wait(1)
    report = listener.sender()
    assert report.answers == {"new": 1, "repeated": 1, "401": 1}
    assert report.addresses == {"192.0.2.1": 2, "198.51.100.7": 1}
    assert report.agents == {"A": 1, "B": 1, "": 1}
    assert report.seconds == {"0.1": 3}
    assert report.events == {"former_password": 1}
    assert report.since.timestamp() == NOW


async def test_a_message_that_was_overtaken_counts_as_late_once(inbox: str, seen: Seen) -> None:
    listener = Listener(inbox, clock=lambda: NOW, schedule=(0.0, 0.0))
    attempts = iter((False, True, False))

    @listener.on_any
    def handle(message: object) -> None:
        seen.add(message)
        if next(attempts):
            raise RuntimeError("once more")

    async with listener.running():
        await request(listener, SUCCESS)
        await seen.wait(1)
        await request(listener, LATE)
        await seen.wait(3)
    assert listener.sender().events == {"late": 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.1"), (-5.0, "0.1"), (0.1, "0.1"), (0.2, "1"), (3.5, "4"), (4.1, "inf")]
)
def test_answer_times_are_told_apart(seconds: float, bucket: str) -> None:
    counts, now = a_counter()
    now[0] += seconds
    counts.answered("new", "192.0.2.1", "A", NOW)
    assert counts.report().seconds == {bucket: 1}


def test_counts_are_of_the_last_day() -> None:
    counts, now = a_counter()
    counts.happened("late")
    now[0] += 23 * 3600
    counts.happened("late", 2)
    assert counts.report().events == {"late": 3}
    assert counts.report().since.timestamp() == NOW
    now[0] += 3600
    assert counts.report().events == {"late": 2}
    assert counts.report().since.timestamp() == now[0] - now[0] % 3600 - 23 * 3600
    now[0] += 24 * 3600
    assert counts.report().events == {}


def test_names_that_a_sender_invents_do_not_fill_the_memory() -> None:
    counts, _ = a_counter()
    for number in range(1000):
        counts.answered("new", "192.0.2.1", f"{number}" + "x" * 1000, NOW)
    counts.happened("late")
    report = counts.report()
    assert isinstance(report, SenderReport)
    assert len(report.agents) <= 201
    assert report.events == {"late": 1}
    assert max(map(len, report.agents)) <= 100
    assert report.answers == {"new": 1000}
    assert sum(report.agents.values()) == 1000
