"""The console in a real browser: its session, and how its pages behave."""

from pathlib import Path

from fotahook import OperatorClient

from ..cli.processes import running
from .browser import Browser
from .conftest import Receiver, Register

CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"


def test_a_reload_keeps_the_session_and_the_page_and_no_script_can_read_the_session(browser: Browser) -> None:
    browser.open("#/accounts/all")
    browser.sign_in()
    browser.see("Sign out")
    browser.driver.refresh()
    browser.find("//nav[@aria-label='Accounts by state']/a[@aria-current and starts-with(., 'All')]")
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
    signed_in.find("//form[@aria-label='Filter messages']//input[@name='type']").send_keys("odd")
    signed_in.press("Find")
    signed_in.find("//td[.='odd']")
    assert "regular" not in signed_in.text


def test_focus_and_typed_text_survive_updates(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver
) -> None:
    register("typing", receiver.url)
    signed_in.go("account", "typing")
    field = signed_in.find("//form[@aria-label='Filter messages']//input[@name='key']")
    field.send_keys("device")
    message = operator.publish("typing", {"type": "upgradeProgress"}, ordering_key="device-9")
    signed_in.find(f"//a[@title='{message.id}']")
    assert signed_in.driver.switch_to.active_element == field
    assert field.get_property("value") == "device"


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


def test_every_page_fits_the_narrowest_window(
    signed_in: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    register(account, receiver.url)
    receiver.status = 503
    device = {"deviceId": "990013907835573", "status": "UpgradeFailed", "resultReason": "DownloadFailedNetwork"}
    progress = {"campaignId": CAMPAIGN, "deviceList": [device]}
    body = {"accountName": account, "type": "upgradeProgress", "upgradeProgress": progress}
    message = operator.publish(account, body, ordering_key="990013907835573")
    views = (
        ("overview",), ("accounts", "all"), ("account", account), ("message", message.id), ("campaigns",),
        ("campaign", account, CAMPAIGN), ("live",), ("send",),
    )  # fmt: skip
    with signed_in.showing(360, 800):
        for view in views:
            signed_in.go(*view)
            signed_in.find(f"//main[not(@aria-busy)]/div[@data-view='{view[0]}']//h1")
            signed_in.check()
    operator.pause(account)
