"""A real browser in front of a real service, and what a person does there."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.deadlines import DEADLINE

Found = TypeVar("Found")

"""Seconds after which what should show up will not."""

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--window-size=1280,1000",
)


class Browser:
    """One window."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, place: str = "") -> None:
        """The page afresh, nobody signed in."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{place}")

    def sign_in(self, client_id: str = "dev", secret: str = "dev-secret") -> None:
        self.fill("Client id", client_id)
        self.fill("Client secret", secret)
        self.press("Sign in")

    def go(self, *place: str) -> None:
        """To a page of the console, by its address."""
        self.driver.execute_script("location.hash = '#/' + arguments[0].map(encodeURIComponent).join('/')", [*place])

    def fill(self, label: str, text: str) -> None:
        field = self.find(f"//label[starts-with(normalize-space(), '{label}')]//input")
        field.clear()
        field.send_keys(text)

    def press(self, name: str) -> None:
        """A button, once it is there and can be pressed."""
        self.find(f"//button[normalize-space()='{name}' and not(@disabled)]").click()

    def find(self, xpath: str) -> WebElement:
        """What is to be seen at a place, as soon as it is there."""

        def look(driver: Chrome) -> WebElement | None:
            return next((one for one in driver.find_elements(By.XPATH, xpath) if one.is_displayed()), None)

        found = self._until(look, f"nothing at {xpath}")
        assert found is not None
        return found

    def see(self, text: str) -> None:
        """Wait until the page says so."""
        self._until(lambda _: text in self.text, f"the page does not say {text!r}")

    @property
    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def log(self) -> list[str]:
        """What the browser told its console since it was asked last."""
        told: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
        return [entry["message"] for entry in told]

    def _until(self, look: Callable[[Chrome], Found], otherwise: str) -> Found:
        waiting = WebDriverWait(self.driver, DEADLINE, 0.05, ignored_exceptions=[StaleElementReferenceException])
        try:
            return waiting.until(look)
        except TimeoutException:
            raise AssertionError(f"{otherwise}; it says: {self.text[:800]}") from None


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
