"""The console in a real browser: its pages, its actions, and its safety."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import urllib3

from fotahook import Client, FotaV2CallbackRegistrationRequest, OperatorClient
from fotahook.service import DEV_CLIENT, DEV_USER

from ..cli.processes import Running, running
from .browser import Browser, browsing

HANDLERS = """
import fotahook

listener = fotahook.Listener()


@listener.on("upgradeProgress")
def handle(message):
    raise RuntimeError("not in our books")
"""
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
    browser.press("Sign in as dev")
    browser.see("Sign out")
    return browser


def test_a_wrong_secret_is_refused_and_nothing_is_shown(browser: Browser) -> None:
    browser.open()
    browser.sign_in(secret="wrong")
    browser.see("The client is unknown or revoked, or its secret wrong.")
    assert "Sign out" not in browser.text
    assert "Accounts" not in browser.text


def test_a_reload_keeps_the_session_and_the_page_and_no_script_can_read_the_session(browser: Browser) -> None:
    browser.open("#/accounts/all")
    browser.sign_in()
    browser.see("Sign out")
    browser.driver.refresh()
    browser.find("//nav[@aria-label='Accounts by state']/a[@aria-current='page' and starts-with(., 'All')]")
    kept = "return [document.cookie, localStorage.length, sessionStorage.length, location.search, location.hash]"
    assert browser.driver.execute_script(kept) == ["", 0, 0, "", "#/accounts/all"]
    (cookie,) = browser.driver.get_cookies()
    assert cookie["name"] == "__Host-fotahook"
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")


def test_signing_out_ends_the_session_on_the_service(signed_in: Browser) -> None:
    (cookie,) = signed_in.driver.get_cookies()
    signed_in.press("Sign out")
    signed_in.see("Client secret")
    assert "Overview" not in signed_in.text
    signed_in.driver.add_cookie({name: cookie[name] for name in ("name", "value", "path", "secure")})
    signed_in.driver.refresh()
    signed_in.see("Client secret")


def test_the_cookie_alone_is_not_enough(signed_in: Browser) -> None:
    call = "return fetch(arguments[0], {method: arguments[1], headers: arguments[2]}).then((answer) => answer.status)"
    for path, method in (("/v1/accounts", "GET"), ("/v1/accounts/steered/pause", "POST"), ("/console/logout", "POST")):
        status = signed_in.driver.execute_script(call, path, method, {})
        assert status in (400, 401), (path, status)
    assert signed_in.driver.execute_script(call, "/v1/accounts", "GET", {"Fotahook-Console": "1"}) == 200


def test_an_account_in_trouble_says_what_fails_first(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("failing", receiver.url)
    receiver.status = 503
    for number in range(5):
        operator.publish("failing", {"type": "upgradeProgress"}, ordering_key=f"device-{number}")
    signed_in.go("overview")
    # The page updates by itself.
    signed_in.find("//section[contains(@class, 'trouble')]//a[.='failing']").click()
    signed_in.find("//section[contains(@class, 'trouble')]//span[.='The receiver answers 503']")
    signed_in.see("The receiver is overloaded or down for maintenance: check it.")
    signed_in.see("Next try")
    signed_in.see("nothing is lost: 5 messages wait")
    assert "delivering" not in signed_in.text
    receiver.status = 200
    signed_in.press("Try now")
    signed_in.find("//h1/span[.='delivering']")
    assert "nothing is lost" not in signed_in.text


def test_a_message_shows_its_status_attempts_and_body(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("refused", receiver.url)
    receiver.status = 404
    message = operator.publish("refused", {"type": "upgradeProgress", "n": 1}, ordering_key="device-1")
    signed_in.go("account", "refused")
    signed_in.find("//table[caption='Messages, newest first']//a[.='device-1']").click()
    signed_in.find("//h1[contains(., 'upgradeProgress')]/span[.='dead']")
    signed_in.see("Delivery was given up: the receiver refused 1 attempt.")
    signed_in.find("//span[@class='waterfall' and contains(@aria-label, 'first byte')]")
    signed_in.press("Show body")
    signed_in.see('"n": 1')
    receiver.status = 200
    signed_in.press("Redeliver")
    signed_in.find("//h1/span[.='delivered']")
    signed_in.press("Redeliver as new")
    signed_in.find("//p[@id='notice']/a").click()
    signed_in.find(f"//dd/code[not(contains(., '{message.id}'))]")
    signed_in.find("//h1/span[.='delivered']")
    assert receiver.received == 3


def test_the_last_hour_is_shown_as_numbers_and_bars(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("counted", receiver.url)
    message = operator.publish("counted", {"type": "upgradeProgress"})
    signed_in.go("message", message.id)
    signed_in.find("//h1/span[.='delivered']")
    totals = operator.stats().totals
    signed_in.go("overview")
    signed_in.find(f"//div[@class='figures']//span[.='delivered']/following-sibling::strong[.='{totals.delivered}']")
    signed_in.find(
        "//div[@class='figures']//span[.='delivered after, p50 / p99']/following-sibling::strong[contains(., ' ms')]"
    )
    assert signed_in.driver.execute_script("return document.querySelectorAll('.bars g').length") == 60


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
    signed_in.fill("At once", "3")
    signed_in.press("Change")
    signed_in.see("Limits changed.")
    assert operator.account("limited").limits.in_flight == 3
    signed_in.see("at most 3")
    signed_in.fill("At once", "")
    signed_in.press("Change")
    signed_in.see("the service default")
    assert operator.account("limited").limits.in_flight is None


def test_the_callback_is_deregistered_after_its_account_is_typed_and_used_again_from_the_history(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("moved", "http://127.0.0.1:9/old")
    register("moved", receiver.url)
    signed_in.go("account", "moved")
    signed_in.find("//summary[.='Change or deregister']").click()
    signed_in.press("Deregister…")
    assert not signed_in.find("//dialog//button[.='Deregister']").is_enabled()
    signed_in.fill("Type moved to confirm", "moved")
    signed_in.press("Deregister")
    signed_in.see("Deregistered: messages wait for a callback.")
    assert operator.account("moved").callback is None
    for action in ("registered", "replaced", "deregistered"):
        signed_in.find(f"//table[caption='Changes of the callback, newest first']//td[.='{action}']")


def test_dead_messages_are_counted_and_then_redelivered(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("refusing", receiver.url)
    receiver.status = 404
    one, two = (operator.publish("refusing", {"n": n}) for n in range(2))
    signed_in.go("account", "refusing")
    signed_in.find("//span[.='dead']/following-sibling::strong[.='2']")
    receiver.status = 200
    signed_in.find("//summary[.='Redeliver many']").click()
    signed_in.press("Count")
    signed_in.see("2 dead messages will be sent again")
    assert receiver.received == 2
    signed_in.press("Redeliver 2")
    signed_in.see("2 messages redelivered.")
    # The page refreshes by itself.
    signed_in.find("//span[.='dead']/following-sibling::strong[.='0']")
    signed_in.go("message", two.id)
    signed_in.find("//h1/span[.='delivered']")
    assert operator.message(one.id).deliveries[0].state == "delivered"


def test_messages_are_filtered_by_state_and_type_and_paginated(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("long", receiver.url)
    operator.pause("long")
    for n in range(21):
        operator.publish("long", {"type": "odd" if n == 0 else "regular"})
    signed_in.go("account", "long")
    signed_in.find("//td[.='regular']")
    assert "odd" not in signed_in.text
    signed_in.press("Older →")
    signed_in.find("//td[.='odd']")
    signed_in.press("← Newer")
    signed_in.find("//td[.='regular']")
    signed_in.find("//form[@aria-label='Filter messages']/input[@name='type']").send_keys("odd")
    signed_in.press("Find")
    signed_in.find("//td[.='odd']")
    assert "regular" not in signed_in.text


def test_the_live_page_begins_with_what_just_happened_and_can_be_paused(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("lively", receiver.url)
    before = operator.publish("lively", {"type": "upgradeProgress"})
    signed_in.driver.refresh()
    signed_in.see("Sign out")
    signed_in.go("live")
    signed_in.find(f"//li[@data-event='message.accepted' and .//a[@title='{before.id}']]")
    signed_in.press("Pause")
    later = operator.publish("lively", {"type": "upgradeProgress"})
    signed_in.see(" new")
    assert not signed_in.driver.find_elements("xpath", f"//li[.//a[@title='{later.id}']]")
    signed_in.press("Go on")
    signed_in.find(f"//li[@data-event='attempt.finished' and .//a[@title='{later.id}']]")


def test_focus_and_typed_text_survive_updates(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("typing", receiver.url)
    signed_in.go("account", "typing")
    field = signed_in.find("//form[@aria-label='Filter messages']/input[@name='key']")
    field.send_keys("device")
    message = operator.publish("typing", {"type": "upgradeProgress"}, ordering_key="device-9")
    signed_in.find(f"//a[@title='{message.id}']")
    assert signed_in.driver.switch_to.active_element == field
    assert field.get_property("value") == "device"


def test_the_keyboard_reaches_everything(signed_in: Browser, register: Register) -> None:
    register("0000123456-00001", "http://127.0.0.1:9/")
    page = signed_in.driver.find_element("tag name", "body")
    page.send_keys("ga")
    signed_in.find("//h1[.='Accounts']")
    signed_in.go("accounts", "all")
    signed_in.find("//td/a")
    page.send_keys("j")
    assert signed_in.driver.switch_to.active_element == signed_in.find("//td/a")
    signed_in.driver.switch_to.active_element.send_keys("?")
    signed_in.find("//dialog//h2[.='Keyboard shortcuts']")
    signed_in.press("Close")
    page.send_keys("/")
    assert signed_in.driver.switch_to.active_element.get_attribute("name") == "q"


def test_a_test_message_is_sent_and_watched(signed_in: Browser, register: Register, receiver: Receiver) -> None:
    register("0000123456-00002", receiver.url)
    signed_in.go("send", "0000123456-00002")
    signed_in.press("Send")
    signed_in.find("//section[h2='Your message']//span[.='delivered']")
    assert receiver.received == 1


def test_a_campaign_shows_its_devices_and_a_search_finds_them(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    account, campaign = "0000123456-00003", "60b5d639-ccdc-4db8-8824-069bd94c95bf"
    register(account, receiver.url)
    for number, status in enumerate(("UpgradeSuccess", "UpgradeFailed", "Accepted")):
        device = {"deviceId": f"99001390783557{number}", "status": status, "resultReason": f"reason {number}"}
        progress = {"campaignId": campaign, "deviceList": [device]}
        operator.publish(account, {"accountName": account, "type": "upgradeProgress", "upgradeProgress": progress})
    signed_in.go("campaigns")
    signed_in.find(f"//tr[.//a='{account}']//a[.='{campaign}']").click()
    signed_in.find("//div[@class='figures']//span[.='devices']/following-sibling::strong[.='3']")
    signed_in.see("1 reason 1")
    signed_in.press("failed")
    signed_in.find("//td[.='990013907835571']")
    signed_in.find("//table[caption='Devices' and not(.//td[.='990013907835570'])]")
    signed_in.find("//input[@name='q']").send_keys("990013907835572")
    signed_in.find("//ul[@id='found']//a[contains(., 'device') and contains(., 'Accepted')]").click()
    signed_in.find("//table[caption='Devices']//td[.='990013907835572']")
    signed_in.find("//input[@name='q']").clear()
    signed_in.find("//input[@name='q']").send_keys("no such thing")
    signed_in.see("Nothing is called “no such thing”")


def test_the_search_explains_its_filters_and_finds_messages_by_them(
    signed_in: Browser, operator: OperatorClient
) -> None:
    account = "0000123456-00007"
    message = operator.publish(account, {"type": "aRareType"})
    field = signed_in.find("//input[@name='q']")
    field.click()
    signed_in.see("state:dead since:1h")
    field.send_keys("state:d")
    signed_in.see("state:pending, state:delivered and state:dead")
    field.clear()
    field.send_keys(f"type:aRareType state:pending since:1h {account[:9]}")
    signed_in.find(f"//ul[@id='found']//a[contains(., 'message') and contains(., '{message.id}')]").click()
    signed_in.find(f"//*[contains(text(), '{message.id}')]")
    field = signed_in.find("//input[@name='q']")
    field.clear()
    field.send_keys("type:noSuchType")
    signed_in.see("No message matches “type:noSuchType”")


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
    signed_in.go("live")
    signed_in.see(account)
    foreign = "return [document.title, document.querySelectorAll('main img, main script').length]"
    assert signed_in.driver.execute_script(foreign) == ["fotahook", 0]


def test_an_account_that_nobody_used_is_unknown_and_an_unusual_name_is_warned_of(
    signed_in: Browser, register: Register
) -> None:
    register("0000123456-00001", "http://127.0.0.1:9/")
    signed_in.go("account", "0000123456-00001")
    signed_in.see("Limits")
    assert "Unusual account name" not in signed_in.text
    signed_in.go("account", "123456")
    signed_in.see("Unknown account")
    signed_in.see("Unusual account name")
    assert "Limits" not in signed_in.text


def test_times_are_relative_and_exact_by_one_clock(
    signed_in: Browser, operator: OperatorClient, register: Register
) -> None:
    register("timed", "http://127.0.0.1:9/")
    message = operator.publish("timed", {"n": 1})
    accepted = operator.message(message.id).accepted_at
    signed_in.go("message", message.id)
    signed_in.press("local time")
    signed_in.see(f"{accepted:%Y-%m-%d %H:%M:%S} UTC")
    signed_in.press("UTC")


def test_a_message_or_account_that_does_not_exist_is_an_error(signed_in: Browser) -> None:
    signed_in.go("account", "a" * 65)
    signed_in.see("Invalid account name format")
    signed_in.go("message", "01a20540-c2d0-7000-877f-40931f0d3f40")
    signed_in.see("Not found")
    signed_in.see("no such message")


def test_an_empty_store_shows_how_to_fill_it_and_an_unreachable_service_is_shown(
    tmp_path: Path, browser: Browser
) -> None:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path) as other:
        elsewhere = Browser(browser.driver, other.url)
        elsewhere.open()
        elsewhere.press("Sign in as dev")
        elsewhere.see("fotahook simulate 0000123456-00001")
    elsewhere.see("connection lost, reconnecting; no event is missed")
    elsewhere.go("accounts", "all")
    elsewhere.see("The service cannot be reached.")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844), (360, 800)])
def test_every_page_is_accessible_and_fits_its_window(
    browser: Browser,
    operator: OperatorClient,
    register: Register,
    receiver: Receiver,
    *,
    width: int,
    height: int,
    dark: bool,
) -> None:
    account, campaign = "0000123456-00004", "60b5d639-ccdc-4db8-8824-069bd94c95bf"
    register(account, receiver.url)
    receiver.status = 503
    device = {"deviceId": "990013907835573", "status": "UpgradeFailed", "resultReason": "DownloadFailedNetwork"}
    progress = {"campaignId": campaign, "deviceList": [device]}
    body = {"accountName": account, "type": "upgradeProgress", "upgradeProgress": progress}
    message = operator.publish(account, body, ordering_key="990013907835573")
    views = (
        ("overview",), ("accounts", "all"), ("account", account), ("message", message.id), ("campaigns",),
        ("campaign", account, campaign), ("live",), ("send",),
    )  # fmt: skip
    with browser.showing(width, height, dark=dark):
        browser.open()
        assert browser.accessibility_violations() == []
        browser.press("Sign in as dev")
        browser.see("Sign out")
        for view in views:
            browser.go(*view)
            browser.find(f"//main[not(@aria-busy)]/div[@data-view='{view[0]}']//h1")
            assert browser.accessibility_violations() == [], view
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.driver.execute_script(overflow) == 0, view
    operator.pause(account)


def test_a_listeners_inbox_has_a_page_too(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    body = msgspec.json.encode(
        {
            "accountName": "0000123456-00001",
            "type": "upgradeProgress",
            "upgradeProgress": {"campaignId": "c-1", "deviceList": [{"deviceId": "d-1", "status": "UpgradeFailed"}]},
        }
    )
    with running("listen", "handlers:listener", "--port", "0", "--console-port", "0", cwd=tmp_path) as listener:
        urllib3.request("POST", listener.url, body=body, headers={"Content-Type": "application/json"})
        (line,) = (line for line in listener.log.read_text().splitlines() if line.startswith("fotahook console "))
        _, _, url, client, secret = line.split()
        page = Browser(browser.driver, url.rstrip("/"))
        page.open()
        page.see("The listener's inbox.")
        page.sign_in(client.partition("=")[2], secret.partition("=")[2])
        page.see("Sign out")
        assert "Send a test" not in page.text
        page.go("account", "0000123456-00001")
        page.find("//td//span[.='handler error']")
        assert "Callback history" not in page.text
        page.find("//table[caption='Messages, newest first']//td/a").click()
        page.see("RuntimeError: not in our books")
        page.go("campaign", "0000123456-00001", "c-1")
        page.find("//td/span[.='UpgradeFailed']")
        agent = {"User-Agent": "Verizon's callback service"}
        urllib3.request("POST", listener.url, body=body, headers=agent)
        urllib3.request("POST", listener.url, body=b"no JSON", headers=agent)
        page.go("sender")
        page.find("//div[span='repetitions dropped']/strong[.='1']")
        page.find("//tr[td='stored']/td[.='1']")
        page.find("//tr[td='refused with 400']/td[.='1']")
        page.find("//tr[td='127.0.0.1']/td[.='3']")
        page.find("//tr[td=\"Verizon's callback service\"]/td[.='2']")
        page.find("//tr[td='up to 0.1 s' or td='up to 1 s']")
        assert page.accessibility_violations() == []
        assert secret not in page.driver.page_source
    browser.open()


def test_no_page_violates_the_policy(browser: Browser) -> None:
    """The tests above have shown every page; the browser logs everything that the policy refuses."""
    assert [line for line in browser.log() if "Content Security Policy" in line] == []
