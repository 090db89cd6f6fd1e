"""What people do with the console, with real deliveries, in each size and colour scheme."""

from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from fotahook import OperatorClient

from .browser import Browser
from .conftest import Line, Receiver, Register

CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
HOSTILE = "<img src=x onerror=\"document.title='mine'\">"
BANNER = "//section[contains(@class, 'banner')]"


def progress(account: str, device: str, status: str, **more: str) -> dict[str, object]:
    """A message about the result of a device."""
    report = {"campaignId": CAMPAIGN, "deviceList": [{"deviceId": device, "status": status, **more}]}
    return {"accountName": account, "type": "upgradeProgress", "upgradeProgress": report}


def test_signing_in_is_refused_with_a_wrong_secret_and_survives_a_reload(window: Browser) -> None:
    window.open("#/accounts/all")
    window.sign_in(secret="wrong")
    window.see("The client is unknown or revoked, or its secret wrong.")
    assert "Accounts" not in window.text
    window.check()
    window.press("Sign in as dev")
    window.see("Sign out")
    window.driver.refresh()
    window.find("//nav[@aria-label='Accounts by state']/a[@aria-current and starts-with(., 'All')]")
    window.check()


def test_an_account_in_trouble_says_what_fails_why_and_what_to_do(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    register(account, receiver.url)
    receiver.status, receiver.body = 503, b"closed until six"
    for number in range(5):
        operator.publish(account, progress(account, f"device-{number}", "Accepted"), ordering_key=f"device-{number}")
    # The overview updates by itself.
    page.find(f"//table[caption='Accounts in trouble']//tr[.//td='503 service unavailable']//a[.='{account}']").click()
    page.find(f"{BANNER}//span[.='The receiver answers 503 Service Unavailable']")
    page.see("The receiver is overloaded or down for maintenance: check it.")
    page.see("closed until six")
    page.see("nothing is lost: 5 messages wait")
    page.find(f"{BANNER}//strong/time[@data-how='until']")
    assert "delivering" not in page.text
    page.check()
    page.press("Run doctor")
    page.find("//dialog//li[@class='bad']")
    page.see("Messages would not arrive.")
    page.check()
    page.press("Close")
    receiver.status = 200
    page.press("Try now")
    page.find("//h1/span[.='delivering']")
    assert "nothing is lost" not in page.text


def test_a_callback_is_registered_changed_taken_back_and_deregistered(
    page: Browser, operator: OperatorClient, receiver: Receiver, account: str
) -> None:
    page.go("accounts", "all")
    page.find("//input[@name='account']").send_keys(account, Keys.ENTER)
    page.see("It never had a callback or a message.")
    page.find("//summary[.='Register a callback']").click()
    for path in ("first", "second"):
        page.fill("New URL", receiver.url + path)
        page.press("Check and register")
        page.see("works")
        page.check()
        page.press("Register it")
        page.see(f"The callback is now {receiver.url}{path}.")
        page.find("//summary[.='Change or deregister']").click()
    page.press(f"Back to {receiver.url}first")
    page.press("Register it")
    page.see(f"The callback is now {receiver.url}first.")
    page.find("//table[caption='Changes of the callback, newest first']//button[.='Use again']")
    page.find("//summary[.='Change or deregister']").click()
    page.press("Deregister…")
    assert not page.find("//dialog//button[.='Deregister']").is_enabled()
    page.check()
    page.fill(f"Type {account} to confirm", account)
    page.press("Deregister")
    page.see("Deregistered: messages wait for a callback.")
    assert operator.account(account).callback is None
    for action in ("registered", "replaced", "deregistered"):
        page.find(f"//table[caption='Changes of the callback, newest first']//td[.='{action}']")


def test_limits_are_told_in_words_set_and_removed(
    page: Browser, operator: OperatorClient, register: Register, account: str
) -> None:
    register(account, "http://127.0.0.1:9/")
    page.go("account", account)
    page.find("//dd[starts-with(., '64 at once (service default)')]")
    page.find("//dd[starts-with(., 'no limit (service default)')]")
    page.find("//summary[.='Change the limits']").click()
    page.fill("deliveries, at once", "3")
    page.press("Change")
    page.see("Limits changed.")
    assert operator.account(account).limits.in_flight == 3
    page.find("//dd[starts-with(., '3 at once')]")
    page.find("//summary[.='Change the limits']").click()
    page.fill("deliveries, at once", "")
    page.press("Change")
    page.find("//dd[starts-with(., '64 at once (service default)')]")
    assert operator.account(account).limits.in_flight is None


def test_a_signing_key_is_shown_once_and_ended(page: Browser, register: Register, account: str) -> None:
    register(account, "http://127.0.0.1:9/")
    page.go("account", account)
    page.press("New HMAC key")
    secret = page.find("//p[@id='notice']/code").text
    assert secret.startswith("whsec_")
    page.check()
    page.driver.refresh()
    page.press("End…")
    assert secret not in page.driver.page_source
    page.press("End it")
    page.see("No HMAC key")


def test_what_was_given_up_is_counted_and_then_redelivered(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    register(account, receiver.url)
    receiver.status = 422
    for number in range(2):
        operator.publish(account, {"n": number})
    page.go("account", account)
    page.find(f"{BANNER}//span[.='2 messages were given up']")
    page.see("The receiver answers 422 Unprocessable Content")
    receiver.status = 200
    page.find("//summary[.='Redeliver many']").click()
    page.press("Count")
    page.see("2 dead messages will be sent again")
    assert receiver.received == 2
    page.check()
    page.press("Cancel")
    page.press("Redeliver…")
    page.press("Redeliver 2")
    page.see("2 messages redelivered.")
    # The page refreshes by itself.
    page.find("//span[.='dead']/following-sibling::strong[.='0']")
    page.find("//h1/span[.='delivering']")
    assert receiver.received == 4


def test_a_message_shows_its_way_its_attempts_and_its_body(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    register(account, receiver.url)
    receiver.status, receiver.body = 404, HOSTILE.encode()
    message = operator.publish(account, {"type": "upgradeProgress", "n": 1}, ordering_key="device-1")
    page.go("account", account)
    page.find("//table[caption='Messages, newest first']//a[.='device-1']").click()
    page.find("//h1[contains(., 'upgradeProgress')]/span[.='dead']")
    page.find(f"{BANNER}//span[.='The receiver answers 404 Not Found']")
    page.see("The receiver has nothing at this path")
    page.see("Delivery was given up: the receiver refused 1 attempt.")
    page.find("//span[@class='waterfall' and contains(@aria-label, 'first byte')]")
    page.see(f"webhook-id: {message.id}")
    page.see(HOSTILE)
    page.check()
    for name, done, copied in (
        ("Copy id", "The id copied.", message.id),
        ("Copy as curl", "The command copied.", f"curl '{receiver.url}'"),
    ):
        page.press(name)
        page.see(done)
        read = "navigator.clipboard.readText().then(arguments[0])"
        assert copied in page.driver.execute_async_script(read)
    page.press("Show body")
    page.see('"n": 1')
    receiver.status = 200
    page.press("Redeliver")
    page.find("//h1/span[.='delivered']")
    page.press("Redeliver as new")
    page.find("//p[@id='notice']/a").click()
    page.find(f"//dd/code[not(contains(., '{message.id}'))]")
    page.find("//h1/span[.='delivered']")
    assert receiver.received == 3


def test_a_campaign_shows_its_devices_its_failures_and_when_they_came(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    register(account, receiver.url)
    for number, status in enumerate(("UpgradeSuccess", "UpgradeFailed", "Accepted")):
        operator.publish(account, progress(account, f"99001390783557{number}", status, resultReason=f"reason {number}"))
    page.go("campaigns")
    page.find(f"//tr[.//a='{account}']//a[.='{CAMPAIGN}']").click()
    page.find("//div[@class='figures']//span[.='devices']/following-sibling::strong[.='3']")
    page.find("//div[@class='parts' and @aria-label='1 succeeded, 1 failed, 1 under way, 0 silent, 0 overdue']")
    page.find("//ul[@class='reasons']/li[.='1 reason 1']")
    page.press("failed 1")
    page.find("//table[caption='Devices' and not(.//td[.='990013907835570'])]//td[.='990013907835571']")
    page.fill("Device id", "990013907835572")
    page.press("all 3")
    page.press("Find")
    page.find("//table[caption='Devices' and not(.//td[.='990013907835571'])]//td[.='990013907835572']").click()


def test_a_test_message_is_sent_and_watched(
    page: Browser, register: Register, receiver: Receiver, account: str
) -> None:
    register(account, receiver.url)
    page.go("account", account)
    page.find("//a[.='Send a test' and contains(@class, 'button')]").click()
    page.press("Send")
    page.find(f"{BANNER}//span[.='It arrived']")
    assert receiver.received == 1
    Select(page.find("//select[@name='kind']")).select_by_visible_text("Pasted JSON")
    page.find("//textarea[@name='json']").send_keys('["no object"]')
    page.press("Send")
    page.see("The message must be one JSON object.")
    assert page.find("//input[@name='account']").get_property("value") == account


def test_live_can_be_paused_and_goes_on_without_a_gap_after_the_connection_was_lost(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str, line: Line
) -> None:
    register(account, receiver.url)
    page.go("live")
    first = operator.publish(account, {"type": "upgradeProgress"}).id
    page.find(f"//li[@data-event='attempt.finished' and .//a[@title='{first}']]")
    page.press("Pause")
    later = operator.publish(account, {"type": "upgradeProgress"}).id
    page.see("2 new")
    assert not page.driver.find_elements("xpath", f"//li[.//a[@title='{later}']]")
    page.press("Go on")
    page.find(f"//li[@data-event='attempt.finished' and .//a[@title='{later}']]")
    line.cut()
    page.see("connection lost, reconnecting; no event is missed")
    page.check()
    missed = [operator.publish(account, {"type": "upgradeProgress"}).id for _ in range(3)]
    line.heal()
    page.see("no event was missed")
    for one in missed:
        page.find(f"//li[@data-event='attempt.finished' and .//a[@title='{one}']]")
    assert page.driver.execute_script("return document.querySelector('#live').textContent") == "live"
    field = page.find("//input[@name='text']")
    field.send_keys(missed[0])
    page.find("//ol[count(li) = 2]")


def test_a_search_finds_each_kind_of_thing(page: Browser, operator: OperatorClient, account: str) -> None:
    device = account.replace("-", "")
    message = operator.publish(account, progress(account, device, "Accepted")).id
    field = page.find("//input[@name='q']")
    field.click()
    page.see("state:dead since:1h")
    for text, kind, found in (
        (account, "account", account),
        (message, "message", message),
        (device, "device", device),
        (CAMPAIGN[:9], "campaign", CAMPAIGN),
        (f"type:upgradeProgress {account}", "message", message),
        (f"state:pending since:1h {account}", "message", message),
        (f"until:2100-01-01T00:00:00Z {account}", "message", message),
    ):
        field.clear()
        field.send_keys(text)
        page.find(f"//ul[@id='found']//a[span[1]='{kind}' and contains(., '{found}')]")
    page.check()
    for text, answer in (
        ("0000000000-00404", "Nothing is called “0000000000-00404”"),
        ("type:noSuchType", "No message matches “type:noSuchType”"),
        ("state:d", "state:pending, state:delivered and state:dead"),
    ):
        field.clear()
        field.send_keys(text)
        page.see(answer)
    page.check()
    field.clear()
    field.send_keys(device, Keys.ENTER)
    page.find(f"//table[caption='Devices']//td[.='{device}']")


def test_the_keyboard_reaches_everything(page: Browser, register: Register, account: str) -> None:
    register(account, "http://127.0.0.1:9/")
    body = page.driver.find_element("tag name", "body")
    body.send_keys("ga")
    page.find("//h1[.='Accounts']")
    page.go("accounts", "all")
    row = page.find("//td/a")
    body.send_keys("jk")
    assert page.driver.switch_to.active_element == row
    row.send_keys("?")
    page.find("//dialog//h2[.='Keyboard shortcuts']")
    page.check()
    page.press("Close")
    page.find("//td/a").send_keys("r", Keys.ENTER)
    page.find("//div[@data-view='account']//h1")
    body.send_keys("/")
    assert page.driver.switch_to.active_element.get_attribute("name") == "q"
    page.find("//input[@name='q']").send_keys(Keys.ESCAPE)


def test_hostile_text_is_text(
    page: Browser, operator: OperatorClient, register: Register, receiver: Receiver, account: str
) -> None:
    account += HOSTILE.replace("/", "")
    receiver.status, receiver.body = 404, b"</pre><script>document.title='mine'</script>"
    register(account, f"{receiver.url}?'onerror=document.title='mine'")
    device = {"deviceId": HOSTILE, "status": "UpgradeFailed", "resultReason": HOSTILE}
    body = {"type": HOSTILE, "upgradeProgress": {"campaignId": HOSTILE, "deviceList": [device]}}
    message = operator.publish(account, body, ordering_key="'><img>")
    page.go("message", message.id)
    page.find("//h1/span[.='dead']")
    page.see(HOSTILE)
    page.press("Show body")
    page.see("</pre><script>")
    for view in (("account", account), ("campaigns",), ("campaign", account, HOSTILE), ("live",), ("accounts", "all")):
        page.go(*view)
        page.find(f"//main[not(@aria-busy)]/div[@data-view='{view[0]}']//h1")
        page.see(HOSTILE[:20])
    foreign = "return [document.title, document.querySelectorAll('main img, main script').length]"
    assert page.driver.execute_script(foreign) == ["fotahook", 0]
