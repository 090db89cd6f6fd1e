"""A real browser, and the actions of a person in it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.deadlines import DEADLINE

Found = TypeVar("Found")

AXE: Final = files("axe_core_python") / "axe.min.js"
NARROW: Final = 500

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
)


_START_OVER: Final = """
document.querySelectorAll("dialog").forEach((one) => one.close());
document.querySelector("#notice").replaceChildren();
document.querySelector("#search input").value = "";
document.activeElement?.blur();
location.hash = `#/overview/${performance.now()}`;
"""
_RUN_AXE: Final = """
const options = {resultTypes: ["violations"], preload: false, iframes: false};
axe.run(document, options).then(({violations}) => arguments[0](violations));
"""
# What is wider than the window, or than a cell or a chip that may not break.
_OVERFLOW: Final = """
const wider = (one) => one.scrollWidth > one.clientWidth + 1;
const found = [document.documentElement, ...document.querySelectorAll("main td:not(.url), .chip, h1")].filter(wider);
return found.map((one) => one.outerHTML.slice(0, 200));
"""


class Browser:
    """One window."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, address: str = "") -> None:
        """Load the page anew, signed out."""
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.driver.get(f"{self.url}/{address}")
        self.driver.delete_all_cookies()
        self.driver.get(f"{self.url}/{address}")
        self.see("Client secret")

    def sign_in(self, client_id: str = "dev", secret: str = "dev-secret") -> None:
        self.fill("Client id", client_id)
        self.fill("Client secret", secret)
        self.press("Sign in")

    def start_over(self) -> None:
        """Begin at the overview as dev: the page is not loaded anew if it is there and signed in already."""
        if not self.driver.current_url.startswith(self.url) or "Sign out" not in self.text:
            self.open()
            self.press("Sign in as dev")
        self.driver.execute_script(_START_OVER)
        self.find("//main[not(@aria-busy)]/div[@data-view='overview']//h1")

    def go(self, *address: str) -> None:
        """Go to a page of the console."""
        self.driver.execute_script("location.hash = '#/' + arguments[0].map(encodeURIComponent).join('/')", [*address])

    def fill(self, label: str, text: str) -> None:
        field = self.find(f"//label[starts-with(normalize-space(), '{label}')]//input")
        field.clear()
        field.send_keys(text)

    def press(self, name: str) -> None:
        """Press a button, once it is visible and enabled."""
        self.find(f"//button[normalize-space()='{name}' and not(@disabled)]").click()

    def find(self, xpath: str) -> WebElement:
        """The first visible element, as soon as there is one."""

        def visible(driver: Chrome) -> WebElement | None:
            return next((one for one in driver.find_elements(By.XPATH, xpath) if one.is_displayed()), None)

        found = self._until(visible, f"nothing at {xpath}")
        assert found is not None
        return found

    def see(self, text: str) -> None:
        """Wait until the page shows the text."""
        self._until(lambda _: text in self.text, f"the page does not show {text!r}")

    @property
    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def accessibility_violations(self) -> list[str]:
        """The rules of axe-core that the page breaks, each with the first element that does."""
        if not self.driver.execute_script("return 'axe' in window"):
            self.driver.execute_script(AXE.read_text())
        found: list[dict[str, Any]] = self.driver.execute_async_script(_RUN_AXE)
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]

    def check(self) -> None:
        """What is shown is accessible in both colour schemes, fits the window, and breaks no rule of the policy."""
        found: list[str] = self.driver.execute_script(_OVERFLOW)
        for scheme in ("dark", "light"):
            self._prefer(scheme)
            found += self.accessibility_violations()
        found += [line for line in self.log() if "Content Security Policy" in line]
        assert not found, "\n".join(found)

    def _prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    @contextmanager
    def showing(self, width: int, height: int) -> Iterator[None]:
        """The page in a window of this size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < NARROW}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def log(self) -> list[str]:
        """The browser's console messages since the last call."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
        return [entry["message"] for entry in entries]

    def _until(self, condition: Callable[[Chrome], Found], failure: str) -> Found:
        wait = WebDriverWait(self.driver, DEADLINE, 0.05, ignored_exceptions=[StaleElementReferenceException])
        try:
            return wait.until(condition)
        except TimeoutException:
            raise AssertionError(f"{failure}; the page shows: {self.text[:800]}") from None


@contextmanager
def browsing(url: str, folder: Path) -> Iterator[Browser]:
    """Debian's Chromium, with a profile of its own."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise FileNotFoundError("these tests need a browser: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(window, url)
    finally:
        window.quit()
