"""Quotas of one account: what it takes is bounded, refused in words, and nobody else's."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from fotahook.contract.signing import parse_secret
from fotahook.service import Settings, build_app
from fotahook.service import limits as module
from fotahook.service.errors import NOT_COUNTED, ApiError
from fotahook.service.limits import AccountQuotas
from fotahook.store.records import Health, LaneVerdict, Limits, NewMessage, StoreUnavailable
from tests.deadlines import DEADLINE
from tests.store.conftest import settled

from .conftest import ACCOUNT, CALLBACK, CHEAP, MESSAGES, URL, Answer, Api, client_of
from .serving import SECRET_KEY

PATH = f"/v1/accounts/{ACCOUNT}"
OTHER = "/v1/accounts/other/messages"
REGISTER = msgspec.json.encode({"url": URL})


@pytest.fixture
def limited(api: Api, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    """The service with some quotas, which counts again whenever it needs to."""
    monkeypatch.setattr(module, "RECOUNT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_DUTY", 0)

    def limit(**quotas: int) -> Api:
        settings = Settings(secret_key=SECRET_KEY, password_cost=CHEAP, clock=api.clock, quotas=AccountQuotas(**quotas))
        api.app = build_app(api.store, settings)
        return api

    return limit


async def publish(api: Api, body: bytes = b"{}", path: str = MESSAGES) -> Answer:
    return await api("POST", path, body, api.bearer)


async def test_undelivered_messages_are_limited_and_delivered_ones_make_room(limited: Callable[..., Api]) -> None:
    api = limited(pending_messages=3)
    assert [(await publish(api)).status for _ in range(3)] == [202] * 3
    refused = await publish(api)
    assert refused.error == (507, "QUOTA_REACHED")
    assert "has 3 undelivered messages, which is its quota; nothing was saved" in refused.json["errorMessage"]
    lines = b"".join(b'{"account": "%b", "message": {}}\n' % name for name in (ACCOUNT.encode(), b"other"))
    first, second = (await api("POST", "/v1/messages", lines, api.bearer)).lines
    assert (first["errorCode"], set(second)) == ("QUOTA_REACHED", {"id", "duplicate"})
    # Not the neighbour's affair.
    assert (await publish(api, path=OTHER)).status == 202
    await api.store.register(ACCOUNT, URL, actor="test")
    [lease] = await api.store.lease(1, 30)
    deliveries = await api.store.fetch(lease, 1)
    await api.store.settle(lease, [settled(each) for each in deliveries], LaneVerdict(health=Health()), keep=0)
    assert [(await publish(api)).status for _ in range(2)] == [202, 507]
    # Another process, or this one after a restart, counts what is there.
    assert (await publish(limited(pending_messages=3))).status == 507
    assert (await publish(limited(pending_messages=0))).status == 202


async def test_a_message_over_the_quota_is_refused_before_it_is_parsed(limited: Callable[..., Api]) -> None:
    api = limited(pending_messages=1)
    assert [(await publish(api, body)).status for body in (b"{", b"{}", b"{")] == [400, 202, 507]


async def test_bytes_of_undelivered_messages_are_limited(limited: Callable[..., Api]) -> None:
    api, body = limited(pending_bytes=1000), b'{"x": "%b"}' % (b"y" * 400)
    assert [(await publish(api, body)).status for _ in range(3)] == [202, 202, 507]
    assert (await publish(api, b"{}")).status == 202
    assert "1000 bytes" in (await publish(api, body)).json["errorMessage"]


async def test_a_copy_takes_room_as_any_message(limited: Callable[..., Api]) -> None:
    api = limited(pending_messages=1)
    message = (await publish(api)).json["id"]
    copied = await api("POST", f"/v1/messages/{message}/redeliver", b'{"asNew": true}', api.bearer)
    assert copied.error == (507, "QUOTA_REACHED")


async def test_counting_goes_in_short_looks(limited: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    api = limited()
    for _ in range(5):
        await publish(api)
    monkeypatch.setattr(module, "COUNT_STEP", 2)
    assert [(await publish(limited(pending_messages=6))).status for _ in range(2)] == [202, 507]


async def test_an_account_at_its_quota_is_not_counted_all_the_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, usage, now = 0, api.store.pending_usage, 0.0

    async def count(account: str, *, after: int, limit: int) -> object:
        nonlocal counted
        counted += 1
        return await usage(account, after=after, limit=limit)

    await publish(api)
    monkeypatch.setattr(api.store, "pending_usage", count)
    quotas = module.Quotas(AccountQuotas(pending_messages=1), api.store, api.clock, lambda: now)
    for moment, expected in ((0.0, 1), (0.5, 1), (2.0, 2)):
        now = moment
        refused = await asyncio.gather(*(quotas.publish(ACCOUNT, 2) for _ in range(5)), return_exceptions=True)
        assert all("1 undelivered messages" in str(error) for error in refused)
        assert counted == expected


class Counted:
    """Quotas over a store that counts how often it was asked, each time for so many seconds of the clock."""

    def __init__(self, api: Api, monkeypatch: pytest.MonkeyPatch, quotas: AccountQuotas, seconds: float = 0.0) -> None:
        self.asked, self.now, usage = list[str](), 0.0, api.store.pending_usage

        async def count(account: str, *, after: int, limit: int) -> object:
            self.asked.append(account)
            self.now += seconds
            return await usage(account, after=after, limit=limit)

        monkeypatch.setattr(api.store, "pending_usage", count)
        self.quotas = module.Quotas(quotas, api.store, api.clock, lambda: self.now)

    async def publish(self, account: str) -> int:
        """The status that publishing would have."""
        try:
            await self.quotas.publish(account, 2)
        except ApiError as error:
            return error.status
        return 202


async def test_the_account_that_published_longest_ago_is_forgotten(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACCOUNTS", 2)
    counted = Counted(api, monkeypatch, AccountQuotas())
    for account in ("a", "b", "a", "c", "a", "b"):
        assert await counted.publish(account) == 202
    assert counted.asked == ["a", "b", "c", "b"]


async def test_as_many_accounts_as_there_may_be_are_counted_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(api, monkeypatch, AccountQuotas())

    async def none(account: str, *, after: int, limit: int) -> tuple[int, int, int]:
        counted.asked.append(account)
        return 0, 0, 0

    monkeypatch.setattr(api.store, "pending_usage", none)
    for _ in range(2):
        for number in range(20_000):
            await counted.quotas.publish(str(number), 2)
    assert len(counted.asked) == 20_000
    assert module.MAX_ACCOUNTS >= 100_000


async def test_counting_many_accounts_takes_a_twentieth_of_the_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(api, monkeypatch, AccountQuotas(), seconds=0.125)
    for number in range(1000):
        assert await counted.publish(str(number)) == 202
    # A second of counting may come at once.
    assert len(counted.asked) == 9
    for number in range(1000):
        counted.now += 1.0
        assert await counted.publish(str(number)) == 202
    took = 0.125 * len(counted.asked)
    assert 0.95 * counted.now / 20 < took < counted.now / 20 + 1.25


async def test_failed_counts_take_a_twentieth_of_the_time_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(api, monkeypatch, AccountQuotas())

    async def fail(account: str, *, after: int, limit: int) -> object:
        counted.asked.append(account)
        counted.now += 2.0
        raise StoreUnavailable("away")

    monkeypatch.setattr(api.store, "pending_usage", fail)
    with pytest.raises(StoreUnavailable):
        await counted.publish("a")
    assert await counted.publish("a") == 202
    assert counted.asked == ["a"]


async def test_an_account_that_is_not_counted_yet_takes_its_quota_and_is_asked_to_wait(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(api, monkeypatch, AccountQuotas(pending_messages=2), seconds=2.0)
    assert await counted.publish("first") == 202
    assert [await counted.publish(ACCOUNT) for _ in range(3)] == [202, 202, 503]
    assert counted.asked == ["first"]
    with pytest.raises(ApiError, match="BUSY") as refused:
        await counted.quotas.publish(ACCOUNT, 2)
    # Forty seconds behind the count, and a second of counting, twenty, may come at once.
    assert refused.value.headers == {"Retry-After": "20"}
    counted.now += 20.0
    # Nothing of it was stored, so the quota is not reached.
    assert [await counted.publish(ACCOUNT) for _ in range(3)] == [202, 202, 507]
    assert counted.asked == ["first", ACCOUNT]


async def test_a_count_holds_up_its_own_account_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(api, monkeypatch, AccountQuotas(pending_messages=1))
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def hang(account: str, *, after: int, limit: int) -> tuple[int, int, int]:
        began.set()
        await goes_on.wait()
        return 1, 2, 1

    monkeypatch.setattr(api.store, "pending_usage", hang)
    async with asyncio.timeout(DEADLINE):
        first = asyncio.create_task(counted.publish("a"))
        await began.wait()
        assert await counted.publish("b") == 202
        second = asyncio.create_task(counted.publish("a"))
        await asyncio.sleep(0)
        assert not second.done()
        goes_on.set()
        assert (await first, await second) == (507, 507)


async def test_a_known_idempotency_key_is_answered_while_nothing_is_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch, limited: Callable[..., Api]
) -> None:
    headers = {**api.bearer, "Idempotency-Key": "k"}
    first = await api("POST", MESSAGES, b"{}", headers)
    limited(pending_messages=1)
    monkeypatch.setattr(module.Quotas, "publish", refuse_to_count)
    again = await api("POST", MESSAGES, b"{}", headers)
    assert (again.status, again.json) == (202, {"id": first.json["id"], "duplicate": True})
    assert (await publish(api)).error == (503, "BUSY")


async def refuse_to_count(quotas: module.Quotas, account: str, size: int) -> None:
    raise NOT_COUNTED(seconds=1)


async def test_messages_per_second_are_limited_for_an_account(limited: Callable[..., Api]) -> None:
    api = limited(publishes_per_second=1)
    answers = [await publish(api) for _ in range(61)]
    assert [answer.status for answer in answers] == [202] * 60 + [429]
    assert answers[-1].error == (429, "TOO_MANY_REQUESTS")
    assert answers[-1].header("retry-after") == "1"
    assert (await publish(api, path=OTHER)).status == 202
    api.clock.advance(1)
    assert (await publish(api)).status == 202


async def test_changes_of_an_account_are_limited(limited: Callable[..., Api]) -> None:
    api = limited(changes_per_hour=6)
    calls = [
        ("PUT", CALLBACK, REGISTER),
        ("DELETE", CALLBACK, b""),
        ("PUT", f"{PATH}/callback", REGISTER),
        ("POST", f"{PATH}/pause", b""),
        ("PATCH", PATH, b'{"limits": {"inFlight": 1}}'),
        ("POST", f"{PATH}/signing-keys", b""),
    ]
    for method, path, body in calls:
        assert (await api(method, path, body, api.both)).status in (200, 201)
    history = await api.store.callback_history(ACCOUNT, 99)
    for method, path, body in calls:
        assert (await api(method, path, body, api.both)).error == (429, "TOO_MANY_REQUESTS"), path
    assert await api.store.callback_history(ACCOUNT, 99) == history
    assert (await api("POST", "/v1/accounts/other/pause", headers=api.bearer)).status == 200
    api.clock.advance(600)
    answer = await api("POST", f"{PATH}/signing-keys", headers=api.bearer)
    assert parse_secret(answer.json["secret"])


async def test_a_known_idempotency_key_is_answered_at_full_quota_too(limited: Callable[..., Api]) -> None:
    api = limited(pending_messages=1)
    headers = {**api.bearer, "Idempotency-Key": "k"}
    first = await api("POST", MESSAGES, b"{}", headers)
    again = await api("POST", MESSAGES, b"{}", headers)
    assert (again.status, again.json) == (202, {"id": first.json["id"], "duplicate": True})
    assert (await api("POST", MESSAGES, b'{"other": 1}', headers)).error == (409, "CONFLICT")
    assert (await publish(api)).error == (507, "QUOTA_REACHED")
    unknown = await api("POST", MESSAGES, b"{}", {**api.bearer, "Idempotency-Key": "new"})
    assert unknown.error == (507, "QUOTA_REACHED")
    line = b'{"account": "%b", "message": %b, "idempotencyKey": "k"}\n'
    lines = [line % (ACCOUNT.encode(), body) for body in (b"{}", b'{"other": 1}')]
    known, other = (await api("POST", "/v1/messages", b"".join(lines), api.bearer)).lines
    assert known == {"id": first.json["id"], "duplicate": True}
    assert other["errorCode"] == "CONFLICT"


async def test_an_account_may_have_quotas_of_its_own(limited: Callable[..., Api]) -> None:
    api = limited(pending_messages=1)
    assert [(await publish(api)).status for _ in range(2)] == [202, 507]
    own = {"pendingMessages": 3, "pendingBytes": 1000, "publishesPerSecond": 7, "changesPerHour": 9}
    changed = await api("PATCH", PATH, msgspec.json.encode({"limits": own}), api.bearer)
    assert changed.json["limits"] == {"inFlight": None, "perSecond": None, **own}
    assert [(await publish(api)).status for _ in range(3)] == [202, 202, 507]
    assert (await publish(api, b'{"x": "%b"}' % (b"y" * 1000))).error == (507, "QUOTA_REACHED")
    assert (await publish(api, path=OTHER)).status == 202
    assert (await publish(api, path=OTHER)).status == 507
    changed = await api("PATCH", PATH, b'{"limits": {"pendingMessages": null, "perSecond": 5}}', api.bearer)
    assert changed.json["limits"] == {"inFlight": None, **own, "perSecond": 5.0, "pendingMessages": None}
    assert (await publish(api)).status == 507
    assert (await api("PATCH", PATH, b'{"limits": {"pendingBytes": -1}}', api.bearer)).status == 400
    assert (await api("PATCH", PATH, b'{"limits": {"pendingMessages": 0}}', api.bearer)).status == 200
    assert (await publish(api)).status == 202
    # Another process, or this one after a restart, reads them with its first request.
    assert (await publish(limited(pending_messages=1))).status == 202


async def test_the_rates_of_an_account_may_be_its_own(limited: Callable[..., Api]) -> None:
    api = limited(publishes_per_second=1, changes_per_hour=4)
    await api("PATCH", PATH, b'{"limits": {"publishesPerSecond": 2, "changesPerHour": 12}}', api.bearer)
    assert [(await publish(api)).status for _ in range(121)] == [202] * 120 + [429]
    assert [(await publish(api, path=OTHER)).status for _ in range(61)] == [202] * 60 + [429]
    pauses = [(await api("POST", f"{PATH}/pause", headers=api.bearer)).status for _ in range(10)]
    # A change before counts as much as it did then: a quarter of the hour.
    assert pauses == [200] * 9 + [429]


async def test_another_process_applies_an_accounts_quotas_within_a_second(api: Api) -> None:
    now = 0.0
    quotas = module.Quotas(AccountQuotas(), api.store, api.clock, lambda: now)

    async def publish() -> None:
        await quotas.read()
        await quotas.publish(ACCOUNT, 2)

    await publish()
    await api.store.set_limits(ACCOUNT, Limits(pending_messages=1))
    await api.store.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    await publish()
    now = module.READ_SECONDS
    with pytest.raises(ApiError, match="QUOTA_REACHED"):
        await publish()


async def test_a_client_of_some_accounts_may_lower_their_quotas_and_not_raise_them(api: Api) -> None:
    tenant = await client_of(api, accounts=[ACCOUNT], scopes=("operate",))

    async def change(**limits: int | None) -> int:
        return (await api("PATCH", PATH, msgspec.json.encode({"limits": limits}), tenant)).status

    assert await change(pendingMessages=5, inFlight=3) == 200
    assert await change(pendingMessages=6) == await change(pendingMessages=None) == await change(pendingBytes=0) == 403
    assert await change(pendingMessages=4, inFlight=4) == 200
    assert (await api("PATCH", PATH, b'{"limits": {"pendingMessages": null}}', api.bearer)).status == 200
