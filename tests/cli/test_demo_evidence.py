"""What the demo may claim, and that it does not claim what is not so."""

import json
from pathlib import Path

import pytest

from fotahook.cli.demo.evidence import INBOX_FILE, SERVICE_FILE, Evidence, gather, read_ledger
from fotahook.cli.demo.handlers import LEDGER
from fotahook.cli.demo.report import report
from fotahook.store import open_store
from fotahook.store.records import NewMessage
from fotahook.testing import CampaignMessage, campaign

ACCOUNT = "0000123456-00001"
ALL_REFUSED = {"unsigned": True, "untrusted": True}


async def accepted(folder: Path, messages: list[CampaignMessage]) -> dict[str, CampaignMessage]:
    """A service that accepted messages and delivered none, and an inbox that is empty."""
    service, inbox = [await open_store(f"sqlite:///{folder / name}") for name in (SERVICE_FILE, INBOX_FILE)]
    answers = await service.accept([NewMessage(account=ACCOUNT, body=message.body) for message in messages])
    await service.close()
    await inbox.close()
    return {answer.id: message for answer, message in zip(answers, messages, strict=True)}


async def test_what_was_not_handled_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = await accepted(tmp_path, list(campaign(ACCOUNT, devices=2)))
    evidence = await gather(tmp_path, published)
    assert (evidence.accepted, evidence.delivered, evidence.handled, evidence.lost) == (6, 0, 0, 6)
    assert not any((evidence.same_bytes, evidence.in_order, evidence.over_tls))
    assert evidence.quantile(0.5) is None
    report(evidence, ALL_REFUSED, 1.0)
    out = capsys.readouterr().out
    assert "lost        6" in out
    assert "NO   every accepted message was handled: none lost" in out


def test_a_line_that_is_not_whole_yet_is_left_for_later(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == []
    entry = {"id": "i", "device": "d", "status": "s"}
    (tmp_path / LEDGER).write_text(json.dumps(entry) + "\n" + '{"id": "j", "dev')
    assert read_ledger(tmp_path) == [entry]


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"), [([], None, None), ([2.0], 2.0, 2.0), ([1.0, 2.0, 3.0], 2.0, 2.98)]
)
def test_quantiles_of_few_and_of_many(latencies: list[float], p50: float | None, p99: float | None) -> None:
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
    assert evidence.quantile(0.50) == p50
    assert evidence.quantile(0.99) == (None if p99 is None else pytest.approx(p99))
