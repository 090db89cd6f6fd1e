"""The demo claims only what its evidence shows."""

import runpy
from pathlib import Path

import pytest

from fotahook.store import open_store
from fotahook.store.records import NewMessage
from fotahook.testing import CampaignMessage, campaign

ACCOUNT = "0000123456-00001"
DEMO = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "demo.py"))


async def accept(folder: Path, messages: list[CampaignMessage]) -> dict[str, CampaignMessage]:
    """Store messages that are not delivered, beside an empty inbox; the messages by id."""
    names = (DEMO["SERVICE_FILE"], DEMO["INBOX_FILE"])
    service, inbox = [await open_store(f"sqlite:///{folder / name}") for name in names]
    answers = await service.accept([NewMessage(account=ACCOUNT, body=message.body) for message in messages])
    await service.close()
    await inbox.close()
    return {answer.id: message for answer, message in zip(answers, messages, strict=True)}


async def test_messages_that_were_not_handled_are_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = await accept(tmp_path, list(campaign(ACCOUNT, devices=2)))
    evidence = await DEMO["gather"](tmp_path, published)
    assert evidence.lost == 6
    assert evidence.figures == {
        "accepted": "6",
        "delivered": "0",
        "handled": "0",
        "duplicates": "0",
        "lost": "6",
        "p50": "-",
        "p99": "-",
    }
    assert not any(evidence.claims.values())
    DEMO["print_report"]("a title", evidence.figures, evidence.claims)
    out = capsys.readouterr().out
    assert "lost        6" in out
    assert "NO   no accepted message was lost" in out


def test_an_unfinished_line_of_the_ledger_is_left_out(tmp_path: Path) -> None:
    assert DEMO["handled_ids"](tmp_path) == []
    (tmp_path / DEMO["LEDGER"]).write_text("first\nseco")
    assert DEMO["handled_ids"](tmp_path) == ["first"]


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"), [([], "-", "-"), ([0.2], "200 ms", "200 ms"), ([0.1, 0.2, 0.3], "200 ms", "300 ms")]
)
def test_percentiles(latencies: list[float], p50: str, p99: str) -> None:
    assert (DEMO["percentile"](latencies, 50), DEMO["percentile"](latencies, 99)) == (p50, p99)
