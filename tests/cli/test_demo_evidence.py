"""The demo claims only what its evidence shows."""

from pathlib import Path

import pytest

from fotahook.cli.demo.evidence import INBOX_FILE, SERVICE_FILE, Evidence, gather, print_report
from fotahook.cli.demo.handlers import LEDGER, handled_ids
from fotahook.store import open_store
from fotahook.store.records import NewMessage
from fotahook.testing import CampaignMessage, campaign

ACCOUNT = "0000123456-00001"
ALL_REFUSED = {"unsigned": True, "untrusted": True}


async def accept(folder: Path, messages: list[CampaignMessage]) -> dict[str, CampaignMessage]:
    """Store messages that are not delivered, beside an empty inbox; the messages by id."""
    service, inbox = [await open_store(f"sqlite:///{folder / name}") for name in (SERVICE_FILE, INBOX_FILE)]
    answers = await service.accept([NewMessage(account=ACCOUNT, body=message.body) for message in messages])
    await service.close()
    await inbox.close()
    return {answer.id: message for answer, message in zip(answers, messages, strict=True)}


async def test_messages_that_were_not_handled_are_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = await accept(tmp_path, list(campaign(ACCOUNT, devices=2)))
    evidence = await gather(tmp_path, published)
    assert (evidence.accepted, evidence.delivered, evidence.handled, evidence.lost) == (6, 0, 0, 6)
    assert not any((evidence.same_bytes, evidence.in_order, evidence.over_tls))
    assert evidence.percentile(50) is None
    print_report(evidence, ALL_REFUSED, 1.0)
    out = capsys.readouterr().out
    assert "lost        6" in out
    assert "NO   no accepted message was lost" in out


def test_an_unfinished_line_of_the_ledger_is_left_out(tmp_path: Path) -> None:
    assert handled_ids(tmp_path) == []
    (tmp_path / LEDGER).write_text("first\nseco")
    assert handled_ids(tmp_path) == ["first"]


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"), [([], None, None), ([2.0], 2.0, 2.0), ([3.0, 1.0, 2.0], 2.0, 3.0)]
)
def test_percentiles(latencies: list[float], p50: float | None, p99: float | None) -> None:
    evidence = Evidence(
        accepted=len(latencies),
        delivered=0,
        handled=0,
        duplicates=0,
        latencies=latencies,
        same_bytes=True,
        in_order=True,
        over_tls=True,
    )
    assert evidence.percentile(50) == p50
    assert evidence.percentile(99) == p99
