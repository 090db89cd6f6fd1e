"""The console of a listener: its inbox, its ledger, and what its sender does."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3

from ..cli.processes import Running, running
from .browser import Browser, browsing

ACCOUNT = "0000123456-00001"
HANDLERS = """
import pathlib

import fotahook

# One attempt, so that what fails is dead at once.
listener = fotahook.Listener(schedule=[0])


@listener.on("upgradeProgress")
def handle(message):
    if not pathlib.Path("repaired").exists():
        raise RuntimeError("not in our books")
"""
AGENT = {"User-Agent": "Verizon's callback service"}


def report(campaign: str, device: str, status: str) -> bytes:
    """A message about the result of a device."""
    progress = {"campaignId": campaign, "deviceList": [{"deviceId": device, "status": status}]}
    return msgspec.json.encode({"accountName": ACCOUNT, "type": "upgradeProgress", "upgradeProgress": progress})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listener")
    (folder / "handlers.py").write_text(HANDLERS)
    return folder


@pytest.fixture(scope="module")
def listener(folder: Path) -> Iterator[Running]:
    with running("listen", "handlers:listener", "--port", "0", "--console-port", "0", cwd=folder) as listener:
        yield listener


@pytest.fixture(scope="module")
def page(listener: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    (line,) = (line for line in listener.log.read_text().splitlines() if line.startswith("fotahook console "))
    _, _, url, client, secret = line.split()
    with browsing(url.rstrip("/"), tmp_path_factory.mktemp("profile")) as page:
        page.open()
        page.see("The listener's inbox.")
        page.sign_in(client.partition("=")[2], secret.partition("=")[2])
        page.see("Sign out")
        assert secret.partition("=")[2] not in page.driver.page_source
        yield page


@pytest.fixture(scope="module")
def campaigns() -> list[str]:
    """The campaigns so far: each sends as many messages of each kind."""
    return []


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_a_listeners_inbox_its_quarantine_its_ledger_and_its_sender_are_shown(
    listener: Running, folder: Path, page: Browser, campaigns: list[str], *, width: int, height: int
) -> None:
    campaign, device = f"c-{width}", f"d-{width}"
    campaigns.append(campaign)
    number = len(campaigns)
    body = report(campaign, device, "UpgradeFailed")
    (folder / "repaired").unlink(missing_ok=True)
    with page.showing(width, height):
        page.go("live")
        page.find("//h1[.='Live']")
        urllib3.request("POST", listener.url, body=body, headers=AGENT)
        page.go("account", ACCOUNT)
        page.find("//section[contains(@class, 'banner')]//span[contains(., 'given up')]")
        page.see("A handler raised an exception")
        assert "Callback history" not in page.text
        assert "Send a test" not in page.text
        page.check()
        page.find("//table[caption='Messages, newest first']//tr[.//span[.='dead']]//a").click()
        page.see("RuntimeError: not in our books")
        page.check()
        (folder / "repaired").touch()
        page.press("Redeliver")
        page.find("//h1/span[.='delivered']")
        page.go("campaign", ACCOUNT, campaign)
        page.find("//td/span[.='UpgradeFailed']")
        page.check()
        for again in (body, b"no JSON"):
            urllib3.request("POST", listener.url, body=again, headers=AGENT)
        # Known already, in other words: it comes too late.
        urllib3.request("POST", listener.url, body=report(campaign, device, "UpgradePending"), headers=AGENT)
        page.go("sender")
        for name in ("repetitions dropped", "late: known or overtaken"):
            page.find(f"//div[span='{name}']/strong[.='{number}']")
        page.find("//div[span='repaired from reports']/strong[.='0']")
        page.find(f"//tr[td='stored']/td[.='{2 * number}']")
        page.find(f"//tr[td='refused with 400']/td[.='{number}']")
        page.find(f"//tr[td='127.0.0.1']/td[.='{4 * number}']")
        page.find(f"//tr[td=\"Verizon's callback service\"]/td[.='{4 * number}']")
        page.find("//tr[td='up to 0.1 s' or td='up to 1 s']")
        page.check()
