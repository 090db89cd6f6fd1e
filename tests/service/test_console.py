"""The calls that the console needs besides the operator's: its session, an account's last attempts, checks, numbers."""

import asyncio
import functools

import msgspec
import pytest
from starlette.types import ASGIApp

from fotahook.contract.operator import Attempt, Checks, Latency, Phases
from fotahook.service import Settings, build_app
from fotahook.service.metrics import latency_of
from fotahook.service.operator import accounts
from fotahook.store.views import to_datetime
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, CALLBACK, MESSAGES, URL, Answer, Api, ask, client_of
from .serving import SECRET_KEY

PATH = f"/v1/accounts/{ACCOUNT}"
PAGE = {"Fotahook-Console": "1"}
DEV = msgspec.json.encode({"clientId": "dev", "clientSecret": "dev-secret"})


def cookie_of(answer: Answer) -> dict[str, str]:
    """The headers of the page's next request."""
    value = (answer.header("set-cookie") or "").partition(";")[0]
    return {**PAGE, "Cookie": value}


async def test_a_session_begins_with_a_login_and_ends_with_a_logout(api: Api) -> None:
    login = await api("POST", "/console/login", DEV, PAGE)
    assert login.status == 200
    attributes = (login.header("set-cookie") or "").split("; ")
    assert {*attributes[1:]} == {"Max-Age=3600", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"}
    session = (await api("GET", "/console/session", b"", cookie_of(login))).json
    assert session == {
        "signedIn": True, "client": "dev", "scopes": login.json["scopes"], "kind": "service", "dev": True,
        "limits": {
            "inFlight": None, "perSecond": None, "pendingMessages": 1_000_000, "pendingBytes": 4 * 1024**3,
            "publishesPerSecond": 20_000, "changesPerHour": 1_000,
        },
    }  # fmt: skip
    assert (await api("GET", "/v1/accounts", b"", cookie_of(login))).status == 200
    logout = await api("POST", "/console/logout", b"", cookie_of(login))
    assert "Max-Age=0" in (logout.header("set-cookie") or "")
    assert (await api("GET", "/v1/accounts", b"", cookie_of(login))).status == 401
    assert (await api("GET", "/console/session", b"", cookie_of(login))).json["signedIn"] is False
    assert (await api("POST", "/console/logout", b"", PAGE)).json["signedIn"] is False


async def test_a_wrong_secret_is_refused_without_the_browsers_own_dialog(api: Api) -> None:
    wrong = msgspec.json.encode({"clientId": "dev", "clientSecret": "wrong"})
    answer = await api("POST", "/console/login", wrong, PAGE)
    assert answer.error == (401, "INVALID_CREDENTIALS")
    assert answer.header("www-authenticate") is None
    assert answer.header("set-cookie") is None


async def test_the_cookie_counts_with_the_pages_header_alone(api: Api) -> None:
    cookie = {"Cookie": cookie_of(await api("POST", "/console/login", DEV, PAGE))["Cookie"]}
    assert (await api("GET", "/v1/accounts", b"", cookie)).error == (401, "MISSING_CREDENTIALS")
    assert (await api("POST", "/console/logout", b"", cookie)).error == (400, "INVALID_PARAMETER")
    assert (await api("POST", "/console/login", DEV)).error == (400, "INVALID_PARAMETER")
    assert (await api("GET", "/v1/accounts", b"", {**cookie, **PAGE})).status == 200


async def test_the_session_of_a_limited_client_is_limited(api: Api) -> None:
    await api.store.drop_credentials("client", ["dev"])
    assert (await api("GET", "/console/session", b"", PAGE)).json["dev"] is False


async def test_over_its_rate_limit_a_session_is_refused(api: Api) -> None:
    login = await api("POST", "/console/login", DEV, PAGE)
    app = build_app(api.store, Settings(secret_key=SECRET_KEY, clock=api.clock, requests_per_minute=1))
    answers = [await ask(app, "GET", "/console/session", b"", cookie_of(login)) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]


async def test_an_accounts_last_attempts(api: Api) -> None:
    await api("POST", CALLBACK, msgspec.json.encode({"url": URL}), api.both)
    published = await api("POST", MESSAGES, b"{}", api.bearer)
    answer = await api("GET", f"{PATH}/attempts?limit=5", b"", api.bearer)
    assert answer.json == {"attempts": []}
    assert (await api("GET", f"{PATH}/attempts?limit=0", b"", api.bearer)).error == (400, "INVALID_PARAMETER")
    assert published.status == 202


async def test_a_callback_is_registered_and_removed_by_a_client_alone(api: Api) -> None:
    answer = await api("PUT", f"{PATH}/callback", msgspec.json.encode({"url": URL}), api.bearer)
    assert answer.json == {"url": URL}
    history = (await api("GET", f"{PATH}/callbacks", b"", api.bearer)).json["history"]
    assert [(one["action"], one["actor"]) for one in history] == [("registered", "dev")]
    assert (await api("PUT", f"{PATH}/callback", b'{"url": "ftp://x"}', api.bearer)).error == (400, "INVALID_PARAMETER")
    assert (await api("PUT", f"{PATH}/callback", b"{}", api.bearer)).error == (400, "INVALID_PARAMETER")
    assert (await api("DELETE", f"{PATH}/callback", b"", api.bearer)).json == {"success": True}
    assert (await api("GET", PATH, b"", api.bearer)).json["callback"] is None


async def test_stats_of_one_account_with_its_backlog(api: Api) -> None:
    await api("POST", MESSAGES, b"{}", api.bearer)
    await api("POST", "/v1/accounts/other/messages", b"{}", api.bearer)
    of_one = (await api("GET", f"/v1/stats?account={ACCOUNT}", b"", api.bearer)).json
    assert (of_one["totals"]["accepted"], of_one["backlog"]["pending"]) == (1, 1)
    assert of_one["backlog"]["oldestAcceptedAt"] is not None
    of_all = (await api("GET", "/v1/stats", b"", api.bearer)).json
    assert (of_all["totals"]["accepted"], of_all["backlog"]["pending"]) == (2, 2)
    assert of_all["accounts"] == {"open": 0, "waiting": 0, "held": 2, "paused": 0, "trouble": 2}
    mine = await client_of(api, [ACCOUNT])
    of_mine = (await api("GET", "/v1/stats", b"", mine)).json
    assert (of_mine["backlog"]["pending"], of_mine["accounts"]["held"]) == (1, 1)
    assert of_mine["latency"] == {"p50": None, "p99": None}
    assert (await api("GET", "/v1/stats?account=other", b"", mine)).error == (404, "NOT_FOUND")


async def test_overviews_are_kept_for_a_moment_and_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.service.limits._MAX_ENTRIES", 10)

    async def pending(account: str = ACCOUNT) -> int:
        found: int = (await api("GET", f"/v1/stats?account={account}", b"", api.bearer)).json["backlog"]["pending"]
        return found

    assert await pending() == 0
    await api("POST", MESSAGES, b"{}", api.bearer)
    assert await pending() == 0
    for number in range(10):
        await pending(f"account-{number}")
    assert await pending() == 1


def test_latency_is_of_deliveries_alone() -> None:
    def attempt(milliseconds: float, error: str | None = None) -> tuple[float, Attempt]:
        began, phases = to_datetime(10.0), Phases(total=milliseconds)
        return 9.999, Attempt(1, began, "", error_code=error, phases=phases)

    assert latency_of([]) == Latency()
    assert latency_of([attempt(5, "http_503")]) == Latency()
    times = latency_of([attempt(float(number)) for number in range(100)] + [attempt(9999, "http_503")])
    assert times.p50 == pytest.approx(51)
    assert times.p99 == pytest.approx(100)


async def test_a_service_that_sends_nothing_checks_nothing(api: Api) -> None:
    answer = await api("POST", f"{PATH}/check", b'{"url": "http://127.0.0.1:9/"}', api.bearer)
    assert answer.error == (409, "CONFLICT")


async def test_a_receiver_is_checked_and_a_wrong_url_refused(checking: ASGIApp, api: Api) -> None:
    path = f"{PATH}/check"
    assert (await ask(checking, "POST", path, b"", api.bearer)).error == (409, "CONFLICT")
    assert (await ask(checking, "POST", path, b'{"url": "ftp://x"}', api.bearer)).error == (400, "INVALID_PARAMETER")
    answer = await ask(checking, "POST", path, b'{"url": "http://127.0.0.1:9/"}', api.bearer)
    checks = msgspec.json.decode(answer.body, type=Checks)
    assert (checks.url, checks.result) == ("http://127.0.0.1:9/", "fail")
    assert [one.check for one in checks.checks] == ["url", "port", "addresses", "connection"]
    await api.store.register(ACCOUNT, "http://127.0.0.1:9/", actor="test")
    assert msgspec.json.decode((await ask(checking, "POST", path, b"", api.bearer)).body, type=Checks) == checks


async def test_a_client_checks_one_receiver_at_a_time_and_holds_up_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "CHECK_PLACES", 2)
    began, goes_on = asyncio.Semaphore(0), asyncio.Event()

    async def hang(url: str, account: str) -> Checks:
        began.release()
        await goes_on.wait()
        return Checks(url=url, result="pass", checks=[])

    app = build_app(api.store, Settings(secret_key=SECRET_KEY, check_receiver=hang, clock=api.clock))
    clients = [api.bearer, *[await client_of(api) for _ in range(2)]]

    async def check(client: dict[str, str]) -> Answer:
        return await ask(app, "POST", f"{PATH}/check", b'{"url": "https://example.com/"}', client)

    async with asyncio.timeout(DEADLINE):
        running = [asyncio.create_task(check(client)) for client in clients[:2]]
        for _ in running:
            await began.acquire()
        for client in (clients[0], clients[2]):
            refused = await check(client)
            assert refused.error == (503, "BUSY")
            assert "check" in refused.json["errorMessage"]
        goes_on.set()
        assert [(await each).status for each in running] == [200, 200]
        assert (await check(clients[2])).status == 200


@pytest.fixture
def checking(api: Api) -> ASGIApp:
    """A service that can send."""
    from fotahook.contract.addresses import EVERYWHERE
    from fotahook.delivery.doctor import check_receiver
    from fotahook.delivery.sender import SenderSettings

    sender = SenderSettings(secret_key=SECRET_KEY, allowed_networks=EVERYWHERE)
    settings = Settings(
        secret_key=SECRET_KEY,
        allow_http=True,
        allowed_networks=EVERYWHERE,
        check_receiver=functools.partial(check_receiver, sender=sender, allow_http=True),
        clock=api.clock,
    )
    return build_app(api.store, settings)
