"""The console's screenshots in docs/static, from a service with a fleet in it. Run by `make docs`."""

import http.server
import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.processes import running
from tests.console.browser import Browser, browsing

from fotahook import Client, OperatorClient, SessionCredentials, ThingspaceOauthCredentials
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.testing.simulator.campaign import upgrade_progress

STATIC = Path(__file__).parents[1] / "static"
CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
WIDTH, HEIGHT = 1400, 900
ACCOUNTS = [f"0000123456-{number:05d}" for number in range(1, 9)]
FAILING, REFUSING = ACCOUNTS[6], ACCOUNTS[2]
REASONS = ("DownloadFailedNetwork", "InstallFailedLowBattery")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, _receivers() as address, _browser(Path(name)) as browser:
        message = _fill(browser.url, address)
        for view, place in {
            "overview": ("overview",),
            "account": ("account", FAILING),
            "message": ("message", message),
            "campaign": ("campaign", ACCOUNTS[0], CAMPAIGN),
            "live": ("live",),
        }.items():
            browser.go(*place)
            browser.see("live")
            browser.find("//main[not(@aria-busy)]//h1")
            if view == "live":
                browser.find("//ol[@class='events']/li")
            browser.driver.save_screenshot(str(STATIC / f"console-{view}.png"))


@contextmanager
def _browser(folder: Path) -> Iterator[Browser]:
    with (
        running("serve", "--dev", "--port", "0", cwd=folder) as service,
        browsing(service.url, folder / "profile") as browser,
    ):
        browser.driver.set_window_size(WIDTH, HEIGHT)
        browser.open()
        browser.press("Sign in as dev")
        browser.see("Sign out")
        yield browser


@contextmanager
def _receivers() -> Iterator[str]:
    """The address of receivers: paths /503 and /404 answer so, all others 200."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = int(self.path[1:]) if self.path[1:].isdigit() else 200
            body = b'{"error": "the database is down for maintenance"}' if status == 503 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _fill(url: str, address: str) -> str:
    """Publish results of a campaign to every account; the id of a message that was refused."""
    chance = random.Random(7)
    credentials = ThingspaceOauthCredentials(*DEV_CLIENT), SessionCredentials(*DEV_USER)
    with (
        Client(
            thingspace_oauth_credentials=credentials[0], vz_m2m_token_credentials=credentials[1], base_url=url
        ) as client,
        OperatorClient(url, *DEV_CLIENT) as operator,
    ):
        for account in ACCOUNTS:
            path = {FAILING: "/503", REFUSING: "/404"}.get(account, "/fota")
            client.software_management_callbacks_v2.register_callback(account, address + path)
        published = []
        for number in range(400):
            failed = chance.random() < 0.08
            account = ACCOUNTS[number % len(ACCOUNTS)]
            message = upgrade_progress(
                account=account,
                device=f"9900139{chance.randrange(10**8):08d}",
                campaign=CAMPAIGN,
                status="UpgradeFailed" if failed else "UpgradeSuccess",
                reason=chance.choice(REASONS) if failed else "DownloadInstallSucceeded",
            )
            published.append(operator.publish(account, message).id)
    return published[ACCOUNTS.index(REFUSING)]


if __name__ == "__main__":
    main()
