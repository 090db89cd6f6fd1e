"""The audit log: who did what, when and from where; written with the change itself, and without secrets."""

import msgspec
import pytest

from fotahook.service import SCOPES, By, create_credential, grant, revoke, rotate_secret

from .conftest import ACCOUNT, CALLBACK, GRANT, MESSAGES, RESET, REVOKE, Api, basic, client_of

PATH = f"/v1/accounts/{ACCOUNT}"
URL = b'{"url": "https://listener.example.com/path-that-is-secret?sig=s3cret"}'


async def logged(api: Api, headers: dict[str, str] | None = None, query: str = "") -> list[dict[str, str | None]]:
    entries: list[dict[str, str | None]] = (await api("GET", f"/v1/audit{query}", headers=headers or api.bearer)).json[
        "entries"
    ]
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
    assert entries[-6]["detail"] == "in_flight=3 per_second=None"
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
