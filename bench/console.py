"""The console over 100,000 messages and 1,000 accounts in a real browser: first paint, interactions, memory.

CONSOLE_SECONDS sets how long live traffic runs for the memory figure: 30 by default, 600 for the whole measurement.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.cli.processes import running
from tests.console.browser import Browser, browsing

from bench.report import Figure, Report
from fotahook import OperatorClient
from fotahook.contract.operator import BatchMessage
from fotahook.service.credentials import DEV_CLIENT

ACCOUNTS = 1_000
MESSAGES = 100_000
BATCH = 1_000
ROUNDS = 5
LIVE_PER_SECOND = 50
CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
VIEWS = ("overview", "accounts/all", "account/0000100000-00000", "campaigns", "live", "send")

# From the change of the address to the page with its content, as the next frame shows it.
_SHOW = """
const [address, done] = arguments; const began = performance.now();
const there = () => location.hash === address && !document.querySelector('main .skeleton, main[aria-busy]');
const look = () => requestAnimationFrame(() => (there() ? done(performance.now() - began) : look()));
location.hash = address; setTimeout(look, 0);
"""
# From an action to the text that it brings.
_ACT = """
const [xpath, done] = arguments; const began = performance.now();
const there = () => document.evaluate(xpath, document, null, XPathResult.BOOLEAN_TYPE).booleanValue;
const look = () => requestAnimationFrame(() => (there() ? done(performance.now() - began) : look()));
"""


def main(report: Report) -> None:
    seconds = float(os.environ.get("CONSOLE_SECONDS", "30"))
    with _filled() as (operator, browser):
        shown = {view: median(_show(browser, view) for _ in range(ROUNDS)) for view in VIEWS}
        message = next(iter(operator.messages("0000100000-00000")))
        shown["message"] = median(_show(browser, f"message/{message.id}") for _ in range(ROUNDS))
        acts = {name: median(act() for _ in range(ROUNDS)) for name, act in _actions(browser).items()}
        growth = _growth(operator, browser, seconds)
    report.compare(
        [
            *(Figure(f"{view} shown, ms", value, at_most=1000) for view, value in shown.items()),
            *(Figure(f"{name}, ms", value, at_most=200) for name, value in acts.items()),
            Figure(f"growth of the page's memory in {seconds:.0f} s of live traffic, MiB", growth, at_most=5),
        ]
    )


@contextmanager
def _filled() -> Iterator[tuple[OperatorClient, Browser]]:
    """A service with the messages, of which one account's have no receiver, and a browser that is signed in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running("serve", "--dev", "--port", "0", cwd=folder) as service,
            OperatorClient(service.url, *DEV_CLIENT) as operator,
            browsing(service.url, folder / "profile") as browser,
        ):
            for first in range(0, MESSAGES, BATCH):
                operator.publish_batch(_message(number) for number in range(first, first + BATCH))
            browser.open()
            browser.press("Sign in as dev")
            browser.see("Sign out")
            yield operator, browser


def _message(number: int) -> BatchMessage:
    account, device = f"{100_000 + number % ACCOUNTS:010d}-00000", f"99{number:013d}"
    device_list = [{"deviceId": device, "status": "UpgradeSuccess"}]
    progress = {"campaignId": CAMPAIGN, "deviceList": device_list}
    body = {"accountName": account, "type": "upgradeProgress", "upgradeProgress": progress}
    return BatchMessage(account, body, ordering_key=device)


def _show(browser: Browser, view: str) -> float:
    browser.go("send", "elsewhere")
    return float(browser.driver.execute_async_script(_SHOW, f"#/{view}"))


def _actions(browser: Browser) -> dict[str, Callable[[], float]]:
    def act(view: str, script: str, xpath: str) -> float:
        browser.go("send", "elsewhere")
        browser.driver.execute_async_script(_SHOW, f"#/{view}")
        return float(browser.driver.execute_async_script(f"{_ACT} {script} look();", xpath))

    field = "document.querySelector('#search input')"
    # Leaves the search, so that the same text is searched for once more.
    leave = f"{field}.dispatchEvent(new KeyboardEvent('keydown', {{{{key: 'Escape'}}}}));"
    type_in = f"{leave} {field}.value = '{{}}'; {field}.dispatchEvent(new Event('input'));"
    older = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Older →').click();"
    newer = "//button[.='← Newer' and not(@hidden)]"
    return {
        "search for an account": lambda: act(
            "overview", type_in.format("0000100500"), "//li//code[.='0000100500-00000']"
        ),
        "search for a device": lambda: act("overview", type_in.format(f"99{54321:013d}"), "//li//span[.='device']"),
        "the next page of accounts": lambda: act("accounts/all", older, newer),
        "the next page of messages": lambda: act("account/0000100000-00000", older, newer),
    }


def _growth(operator: OperatorClient, browser: Browser, seconds: float) -> float:
    """How much more memory the live page uses, in MiB, after so many seconds of events than after the first of them."""
    browser.go("live")

    def publish(until: float) -> None:
        number = 0
        while time.monotonic() < until:
            operator.publish_batch(_message(number + n) for n in range(LIVE_PER_SECOND))
            number += LIVE_PER_SECOND
            time.sleep(1)

    began = time.monotonic()
    publish(began + min(20.0, seconds / 4))
    before = _heap(browser)
    publish(began + seconds)
    return _heap(browser) - before


def _heap(browser: Browser) -> float:
    browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    return float(browser.driver.execute_script("return performance.memory.usedJSHeapSize")) / 1024 / 1024
