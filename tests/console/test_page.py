"""The console in a real browser: its pages, its actions, and its safety."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fotahook import Client, FotaV2CallbackRegistrationRequest, OperatorClient
from fotahook.service import DEV_CLIENT, DEV_USER

from ..cli.processes import Running, running
from .browser import Browser, browsing

HOSTILE = "<img src=x onerror=\"document.title='mine'\">"


class Receiver:
    """A receiver that answers a given status."""

    def __init__(self) -> None:
        self.status = 200
        self.received = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received += 1
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # One attempt, so that a refused message is dead at once.
    with running("serve", "--dev", "--port", "0", "--schedule", "0", cwd=tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def browser(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(service.url, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def operator(service: Running) -> Iterator[OperatorClient]:
    with OperatorClient(service.url, *DEV_CLIENT) as operator:
        yield operator


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def register(service: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator["Register"]:
    variables = {
        "THINGSPACE_BASE_URL": service.url,
        "THINGSPACE_OAUTH_OAUTH_CLIENT_ID": DEV_CLIENT[0],
        "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": DEV_CLIENT[1],
        "VZ_M2M_USERNAME": DEV_USER[0],
        "VZ_M2M_PASSWORD": DEV_USER[1],
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Client.from_environment() as client:
        yield Register(client)


class Register:
    """Registers callbacks."""

    def __init__(self, client: Client) -> None:
        self._callbacks = client.software_management_callbacks_v2

    def __call__(self, account: str, url: str) -> None:
        self._callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(url))


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    browser.open()
    browser.sign_in()
    browser.see("Accounts")
    return browser


def test_a_wrong_secret_is_refused_and_nothing_is_shown(browser: Browser) -> None:
    browser.open()
    browser.sign_in(secret="wrong")
    browser.see("secret")
    assert "Sign out" not in browser.text
    assert "Accounts" not in browser.text


def test_signing_in_shows_the_addressed_page_and_stores_nothing(browser: Browser) -> None:
    browser.open("#/accounts/all")
    browser.sign_in()
    browser.see("Sign out")
    browser.see("All")
    kept = "return [document.cookie, localStorage.length, sessionStorage.length, location.search, location.hash]"
    assert browser.driver.execute_script(kept) == ["", 0, 0, "", "#/accounts/all"]
    for leave in ("location.reload()", "location = 'about:blank'"):
        browser.driver.execute_script(leave)
        if "blank" in leave:
            browser.driver.back()
        browser.see("Client secret")
        assert "Sign out" not in browser.text


def test_signing_out_clears_the_page(signed_in: Browser) -> None:
    signed_in.press("Sign out")
    signed_in.see("Client secret")
    assert "Needs attention" not in signed_in.text


def test_a_failing_account_is_listed_with_its_reason(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("failing", receiver.url)
    receiver.status = 503
    message = operator.publish("failing", {"type": "upgradeProgress"}, ordering_key="device-1")
    signed_in.see("Accounts")
    # The page updates by itself.
    signed_in.find("//tr[.//a='failing']//span[.='waiting']")
    signed_in.find("//a[.='failing']").click()
    signed_in.see("http_503")
    signed_in.see("retry at")
    signed_in.find(f"//a[.='{message.id}']").click()
    signed_in.see("The endpoint failed")
    signed_in.see("The receiver is overloaded or down for maintenance: check it.")
    signed_in.find("//ul[@class='phases']/li[starts-with(., 'total')]")
    signed_in.press("Show body")
    signed_in.see('{"type":"upgradeProgress"}')


def test_the_last_hour_is_shown_as_numbers_and_bars(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("counted", receiver.url)
    message = operator.publish("counted", {"type": "upgradeProgress"})
    signed_in.go("message", message.id)
    signed_in.find("//span[@class='badge' and .='delivered']")
    totals = operator.stats().totals
    signed_in.go("accounts")
    signed_in.find(f"//section[@class='stats']//dt[.='delivered']/following-sibling::dd[.='{totals.delivered}']")
    heights = "return [...document.querySelectorAll('.stats rect')].map((bar) => Number(bar.getAttribute('height')))"
    bars = signed_in.driver.execute_script(heights)
    assert len(bars) == 60
    assert max(bars) == 40


def test_an_account_is_paused_and_resumed(signed_in: Browser, operator: OperatorClient, register: Register) -> None:
    register("steered", "http://127.0.0.1:9/")
    signed_in.go("account", "steered")
    signed_in.press("Pause")
    signed_in.see("Paused: nothing is sent until it is resumed.")
    assert operator.account("steered").lane.state == "paused"
    signed_in.press("Resume")
    signed_in.see("Resumed.")
    assert operator.account("steered").lane.state == "open"


def test_limits_are_set_and_removed(signed_in: Browser, operator: OperatorClient, register: Register) -> None:
    register("limited", "http://127.0.0.1:9/")
    signed_in.go("account", "limited")
    signed_in.see("Connected")
    signed_in.fill("In flight", "3")
    signed_in.press("Change")
    signed_in.see("Limits changed.")
    assert operator.account("limited").limits.in_flight == 3
    signed_in.fill("In flight", "")
    signed_in.press("Change")
    signed_in.see("Limits changed.")
    assert operator.account("limited").limits.in_flight is None


def test_dead_messages_are_counted_and_then_redelivered(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("refusing", receiver.url)
    receiver.status = 404
    one, two = (operator.publish("refusing", {"n": n}) for n in range(2))
    signed_in.go("account", "refusing")
    signed_in.find("//dt[.='Dead']/following-sibling::dd[.='2']")
    receiver.status = 200
    signed_in.press("Count")
    signed_in.see("2 dead messages will be redelivered")
    assert receiver.received == 2
    signed_in.find("//button[@class='first' and .='Redeliver']").click()
    signed_in.see("2 messages redelivered.")
    # The page refreshes by itself.
    signed_in.find("//dt[.='Dead']/following-sibling::dd[.='0']")
    signed_in.go("message", two.id)
    signed_in.find("//span[@class='badge' and .='delivered']")
    assert operator.message(one.id).deliveries[0].state == "delivered"


def test_one_message_is_redelivered_as_a_new_one(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("again", receiver.url)
    message = operator.publish("again", {"type": "first"})
    signed_in.go("message", message.id)
    signed_in.find("//span[@class='badge' and .='delivered']")
    signed_in.find("//input[@name='asNew']").click()
    signed_in.press("Redeliver")
    signed_in.find("//p[@id='notice']/a").click()
    signed_in.find(f"//h2[starts-with(., 'Message') and not(contains(., '{message.id}'))]")
    signed_in.find("//span[@class='badge' and .='delivered']")
    assert receiver.received == 2


def test_messages_are_filtered_by_state_and_type_and_paginated(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("long", receiver.url)
    operator.pause("long")
    for n in range(51):
        operator.publish("long", {"type": "odd" if n == 0 else "regular"})
    signed_in.go("account", "long")
    signed_in.see("regular")
    assert "odd" not in signed_in.text
    signed_in.press("Next →")
    signed_in.see("odd")
    signed_in.press("← Back")
    signed_in.see("regular")
    signed_in.fill("Type", "odd")
    signed_in.press("Find")
    signed_in.see("odd")
    assert "regular" not in signed_in.text


def test_events_appear_live(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("lively", receiver.url)
    signed_in.go("live")
    signed_in.see("Connected")
    message = operator.publish("lively", {"type": "upgradeProgress"})
    signed_in.find(f"//li[@data-event='message.accepted' and contains(., '{message.id}')]")
    signed_in.find(f"//li[@data-event='attempt.finished' and contains(., '{message.id}')]")


def test_the_callback_history_is_shown(signed_in: Browser, register: Register) -> None:
    register("moved", "http://127.0.0.1:9/old")
    register("moved", "http://127.0.0.1:9/new")
    signed_in.go("account", "moved")
    signed_in.see("Connected")
    signed_in.find("//summary").click()
    signed_in.find("//td[.='http://127.0.0.1:9/old']")
    signed_in.see("replaced")


def test_hostile_text_is_text(signed_in: Browser, operator: OperatorClient, register: Register) -> None:
    account = HOSTILE.replace("/", "")
    register(account, "http://127.0.0.1:9/")
    message = operator.publish(account, {"type": HOSTILE, "body": "</pre><script>document.title='mine'</script>"})
    signed_in.go("account", account)
    signed_in.see(account)
    signed_in.go("message", message.id)
    signed_in.press("Show body")
    signed_in.see("</pre><script>")
    signed_in.go("accounts", "all")
    signed_in.see(account)
    foreign = "return [document.title, document.querySelectorAll('main img, main script').length]"
    assert signed_in.driver.execute_script(foreign) == ["fotahook", 0]


def test_an_account_that_nobody_used_is_unknown_and_an_unusual_name_is_warned_of(
    signed_in: Browser, operator: OperatorClient, register: Register
) -> None:
    register("0000123456-00001", "http://127.0.0.1:9/")
    signed_in.go("account", "0000123456-00001")
    signed_in.see("Limits")
    assert "Unusual account name" not in signed_in.text
    signed_in.go("accounts")
    signed_in.fill("Go to account", "123456")
    signed_in.press("Show")
    signed_in.see("Unknown account")
    signed_in.see("Unusual account name")
    assert "Limits" not in signed_in.text


def test_times_are_utc(signed_in: Browser, operator: OperatorClient, register: Register) -> None:
    register("timed", "http://127.0.0.1:9/")
    message = operator.publish("timed", {"n": 1})
    accepted = operator.message(message.id).accepted_at
    signed_in.go("message", message.id)
    signed_in.see(f"{accepted:%Y-%m-%dT%H:%M:%SZ}")


def test_a_message_or_account_that_does_not_exist_is_an_error(signed_in: Browser) -> None:
    signed_in.go("account", "a" * 65)
    signed_in.see("Invalid account name format")
    signed_in.go("message", "01a20540-c2d0-7000-877f-40931f0d3f40")
    signed_in.see("no such message")


def test_an_unreachable_service_is_shown(tmp_path: Path, browser: Browser) -> None:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path) as other:
        elsewhere = Browser(browser.driver, other.url)
        elsewhere.open()
        elsewhere.sign_in()
        elsewhere.see("Sign out")
    elsewhere.go("accounts", "all")
    elsewhere.see("The service cannot be reached.")
    browser.open()


def test_no_page_violates_the_policy(browser: Browser) -> None:
    """The tests above have shown every page; the browser logs everything that the policy refuses."""
    assert [line for line in browser.log() if "Content Security Policy" in line] == []
