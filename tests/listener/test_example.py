"""The example and the page's own code run as they stand."""

import runpy
from pathlib import Path

import pytest

from fotahook.listener import Listener

from .conftest import request

ROOT = Path(__file__).parents[2]
SUCCESS = b"""{"accountName": "0000123456-00001", "upgradeProgress": {"id": "campaign-1", "deviceList": [
    {"deviceId": "990013907835573", "status": "UpgradeSuccess"}]}}"""
AVAILABLE = b'{"firmwareList": [{"firmwareName": "FW-2", "make": "Maker", "model": "M1"}]}'


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def received(listener: Listener, *bodies: bytes) -> list[str]:
    """The ids of messages, in the order in which they were handled: each is posted after the one before it was."""
    ids = []
    for body in bodies:
        async with listener.running():
            ids.append((await request(listener, body)).json["id"])
            store = (await listener._inbox.open()).store
            while (found := await store.message(ids[-1])) and found.deliveries[0].state == "pending":
                await store.wait(0.01)
    return ids


async def test_the_example_handles_messages(capsys: pytest.CaptureFixture[str]) -> None:
    listener = runpy.run_path(str(ROOT / "examples" / "listener.py"))["listener"]
    first, second = await received(listener, SUCCESS, AVAILABLE)
    assert capsys.readouterr().out.splitlines() == [
        "990013907835573 of campaign campaign-1: UpgradeSuccess",
        f"{first} attempt 1: upgradeProgress, {len(SUCCESS)} bytes",
        "new firmware FW-2 for Maker M1",
        f"{second} attempt 1: firmwareList, {len(AVAILABLE)} bytes",
    ]


async def test_the_pages_listener_handles_messages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "listener.md").read_text()
    module = tmp_path / "listener.py"
    module.write_text(page.partition("```python\n")[2].partition("```")[0])
    await received(runpy.run_path(str(module))["listener"], SUCCESS)
    assert capsys.readouterr().out == "990013907835573 campaign-1\n"
