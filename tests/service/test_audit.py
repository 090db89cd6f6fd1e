"""The audit log: who did what, when and from where; written with the change itself, and without secrets."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest

from fotahook.service import create_credential, grant, limits, revoke, rotate_secret
from fotahook.service.credentials import SCOPES, By
from fotahook.service.limits import MAX_ADDRESSES, RefusedLogins
from fotahook.store.records import AuditEntry, StoreUnavailable
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, CALLBACK, GRANT, LOGIN, MESSAGES, RESET, REVOKE, TOKEN, Api, ask, basic, client_of

CONSOLE_LOGIN = b'{"clientId": "dev", "clientSecret": "dev-secret"}'
PATH = f"/v1/accounts/{ACCOUNT}"
URL = b'{"url": "https://listener.example.com/path-that-is-secret?sig=s3cret"}'


async def logged(api: Api, headers: dict[str, str] | None = None, query: str = "") -> list[dict[str, str | None]]:
    """The entries, but for those about logins."""
    return [one for one in await every(api, headers, query) if ".login" not in str(one["action"])]


async def every(api: Api, headers: dict[str, str] | None = None, query: str = "") -> list[dict[str, str | None]]:
    answer = await api("GET", f"/v1/audit{query}", headers=headers or api.bearer)
    entries: list[dict[str, str | None]] = answer.json["entries"]
    return entries


async def test_every_change_is_in_the_audit_log_with_its_author(api: Api) -> None:
    message = (await api("POST", MESSAGES, b'{"body": "s3cret"}', api.bearer)).json["id"]
    done = [
        ("callback.register", await api("POST", CALLBACK, URL, api.both)),
        ("callback.register", await api("PUT", CALLBACK, URL, api.both)),
        ("callback.deregister", await api("DELETE", CALLBACK, headers=api.both)),
        ("account.pause", await api("POST", f"{PATH}/pause", headers=api.bearer)),
        ("account.resume", await api("POST", f"{PATH}/resume", headers=api.bearer)),
        ("account.limits", await api("PATCH", PATH, b'{"limits": {"inFlight": 3}}', api.bearer)),
        ("signing_key.create", await api("POST", f"{PATH}/signing-keys", headers=api.bearer)),
        ("user.password", await api("PUT", RESET, b'{"oldPassword": "dev-password"}', api.both)),
    ]
    assert [answer.status for _, answer in done] == [200] * 6 + [201, 200]
    key = done[6][1].json["id"]
    await api("DELETE", f"{PATH}/signing-keys/{key}", headers=api.bearer)
    entries = await logged(api)
    assert [entry["action"] for entry in reversed(entries)] == [*(action for action, _ in done), "signing_key.delete"]
    for entry in entries:
        assert entry["address"] == "127.0.0.1"
        assert entry["actor"] in ("dev", "dev/dev")
        assert entry["account"] == (None if entry["action"] == "user.password" else ACCOUNT)
    assert (entries[0]["subject"], entries[1]["subject"]) == (key, "dev")
    assert entries[-1]["detail"] == "https://listener.example.com"
    assert entries[-6]["detail"] == "in_flight=3"
    text = msgspec.json.encode(entries).decode()
    for secret in (
        "s3cret",
        done[6][1].json["secret"],
        done[7][1].json["newPassword"],
        api.bearer["Authorization"][7:],
    ):
        assert secret not in text
    assert message not in text


async def test_credentials_are_audited_wherever_they_are_changed(api: Api) -> None:
    by = By("admin root", "host-1")
    secret = await create_credential(
        api.store, "client", "app", accounts=["1"], scopes=["read"], networks=["192.0.2.0/24"], by=by, clock=api.clock
    )
    await grant(api.store, "client", "app", accounts=None, networks=[], by=by)
    secrets = [secret, await rotate_secret(api.store, "app", overlap=1, by=by, clock=api.clock) or ""]
    await api(
        "POST",
        REVOKE,
        GRANT + b"&token=" + (await api.token(basic("app", secrets[1]))).encode(),
        basic("app", secrets[1]),
    )
    await revoke(api.store, "client", "app", by=by)
    entries = await logged(api)
    assert [(entry["action"], entry["detail"]) for entry in reversed(entries)] == [
        ("client.create", "accounts=1 scopes=read networks=192.0.2.0/24"),
        ("client.grant", "accounts=all scopes=read"),
        ("client.rotate", ""),
        ("token.revoke", ""),
        ("client.revoke", ""),
    ]
    assert [entry["actor"] for entry in reversed(entries)] == ["admin root"] * 3 + ["app", "admin root"]
    assert not any(each in str(entries) for each in secrets)


async def test_redeliveries_are_audited_and_refused_ones_are_not(api: Api) -> None:
    message = (await api("POST", MESSAGES, b"{}", api.bearer)).json["id"]
    assert (await api("POST", f"/v1/messages/{message}/redeliver", headers=api.bearer)).status == 409
    dry = b'{"state": "dead", "dryRun": true}'
    assert (await api("POST", f"{PATH}/redeliver", dry, api.bearer)).status == 200
    assert await logged(api) == []
    copied = await api("POST", f"/v1/messages/{message}/redeliver", b'{"asNew": true}', api.bearer)
    assert copied.status == 202
    [entry] = await logged(api)
    assert (entry["action"], entry["account"], entry["subject"]) == ("message.redeliver", ACCOUNT, message)


async def test_a_change_that_fails_leaves_no_entry(api: Api) -> None:
    assert (await api("DELETE", CALLBACK, headers=api.both)).status == 200  # nothing was registered
    assert (await api("POST", CALLBACK, b'{"url": "ftp://x"}', api.both)).status == 400
    assert (await api("DELETE", f"{PATH}/signing-keys/none", headers=api.bearer)).status == 404
    assert await logged(api) == []


async def test_a_client_sees_the_entries_of_its_accounts_alone(api: Api) -> None:
    for account in ("mine", "theirs"):
        for _ in range(3):
            await api("POST", f"/v1/accounts/{account}/pause", headers=api.bearer)
    await create_credential(api.store, "client", "app", scopes=SCOPES, clock=api.clock)
    mine = await client_of(api, accounts=["mine"])
    assert {entry["account"] for entry in await logged(api, mine)} == {"mine"}
    assert len(await logged(api, mine, "?account=mine")) == 3
    assert (await api("GET", "/v1/audit?account=theirs", headers=mine)).error == (404, "NOT_FOUND")
    assert {entry["account"] for entry in await logged(api)} == {"mine", "theirs", None}
    assert {entry["account"] for entry in await logged(api, query="?account=theirs")} == {"theirs"}
    pages = [await api("GET", "/v1/audit?limit=2&account=mine", headers=mine)]
    pages.append(await api("GET", f"/v1/audit?limit=2&account=mine&cursor={pages[0].json['cursor']}", headers=mine))
    assert [len(page.json["entries"]) for page in pages] == [2, 1]
    assert pages[1].json["cursor"] is None


@pytest.mark.parametrize("query", ["?cursor=!", "?limit=0", "?account=%00", "?what=1"])
async def test_an_invalid_query_is_refused(api: Api, query: str) -> None:
    assert (await api("GET", f"/v1/audit{query}", headers=api.bearer)).error == (400, "INVALID_PARAMETER")


async def logins(api: Api) -> list[dict[str, str | None]]:
    return [one for one in await every(api, query="?limit=200") if "login" in str(one["action"])]


async def until_logged(api: Api, **expected: str | None) -> list[dict[str, str | None]]:
    """The entries about logins, once the newest has these values."""
    deadline = time.monotonic() + DEADLINE
    while not (found := await logins(api)) or not expected.items() <= found[0].items():
        assert time.monotonic() < deadline, found[:1]
        await asyncio.sleep(0.01)
    return found


async def test_logins_that_succeed_are_audited(api: Api) -> None:
    assert (await api("POST", "/console/login", CONSOLE_LOGIN, {"Fotahook-Console": "1"})).status == 200
    found = [(one["action"], one["actor"], one["subject"], one["address"]) for one in await logins(api)]
    assert found == [
        ("console.login", "dev", "dev", "127.0.0.1"),
        ("user.login", "dev", "dev", "127.0.0.1"),
        ("client.login", "dev", "dev", "127.0.0.1"),
    ]
    # The same token again is no login.
    await api("POST", TOKEN, GRANT, basic("dev", "dev-secret"))
    assert len(await logins(api)) == len(found)


async def test_refused_logins_are_audited_without_what_was_sent(api: Api) -> None:
    wrong = b'{"username": "%b", "password": "s3cret"}'
    await api("POST", LOGIN, wrong % b"my-password-in-the-wrong-field", api.bearer)
    for _ in range(7):
        await api("POST", LOGIN, wrong % b"dev", api.bearer)
    await api("POST", TOKEN, GRANT, basic("dev", "s3cret"))
    await api("POST", TOKEN, GRANT, basic("nobody-s3cret", "s3cret"))
    await api("POST", TOKEN, GRANT, {"Authorization": "Basic s3cret"})
    await api("POST", "/console/login", CONSOLE_LOGIN.replace(b"dev-secret", b"s3cret"), {"Fotahook-Console": "1"})
    found = await until_logged(api, action="login.refused", detail="wrong=10 locked=2", actor="dev", subject="")
    assert [one["action"] for one in found].count("login.refused") == 1
    text = msgspec.json.encode(found)
    assert b"s3cret" not in text
    assert b"my-password" not in text
    # Another address, and another minute, have entries of their own.
    await ask(api.app, "POST", TOKEN, GRANT, basic("dev", "s3cret"), client="192.0.2.7")
    await until_logged(api, action="login.refused", detail="wrong=1", address="192.0.2.7", subject="dev", actor="")
    api.clock.advance(60)
    await api("POST", TOKEN, GRANT, basic("dev", "s3cret"))
    found = await until_logged(api, action="login.refused", detail="wrong=1", address="127.0.0.1")
    assert [one["action"] for one in found].count("login.refused") == 3


async def test_a_login_from_a_network_that_is_not_granted_is_audited(api: Api) -> None:
    secret = await create_credential(api.store, "client", "app", networks=["192.0.2.0/24"], clock=api.clock)
    assert (await api("POST", TOKEN, GRANT, basic("app", secret))).status == 403
    await until_logged(api, action="login.refused", detail="network=1", subject="app")


async def test_refused_logins_from_a_crowd_of_addresses_share_an_entry(api: Api) -> None:
    for number in range(MAX_ADDRESSES + 50):
        await ask(api.app, "POST", TOKEN, GRANT, basic("dev", "s3cret"), client=f"10.0.{number}.1")
    await until_logged(api, action="login.refused", address="others", detail="wrong=50")
    entries = await api.store.audit(limit=1000)
    assert sum(one.action == "login.refused" for one in entries) == MAX_ADDRESSES + 1


async def test_refused_logins_wait_for_a_store_that_is_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    write, away = api.store.write_audit, True

    async def write_when_back(entries: Sequence[AuditEntry]) -> list[int]:
        nonlocal away
        if away:
            away = False
            refused.count("wrong", "192.0.2.1")
            raise StoreUnavailable("away")
        return await write(entries)

    monkeypatch.setattr(api.store, "write_audit", write_when_back)
    monkeypatch.setattr(limits, "WRITE_SECONDS", 0.0)
    refused = RefusedLogins(api.store, api.clock)
    refused.count("wrong", "192.0.2.1")
    refused.count("wrong", "192.0.2.2")
    await until_logged(api, action="login.refused", detail="wrong=1", address="192.0.2.2")
    assert [one["detail"] for one in await logins(api) if one["address"] == "192.0.2.1"] == ["wrong=2"]
