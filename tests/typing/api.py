"""What users write, as the type checker sees it. Checked by mypy, never run."""

import asyncio
from collections.abc import Mapping
from typing import Any, assert_type

import fotahook

body = fotahook.FotaV2CallbackRegistrationRequest("https://example.com/listener")
oauth = fotahook.ThingspaceOauthCredentials("id", "secret", oauth_token=fotahook.OauthToken("token", expiry=1.0))
session = fotahook.SessionCredentials("user", "password")
static = fotahook.VZM2mTokenCredentials("token")


def watch_request(request: fotahook.Request) -> None:
    assert_type(request.method, str)
    assert_type(request.headers["accept"], str)
    assert_type(request.body, bytes | None)


def watch_response(response: fotahook.ApiResponse[None]) -> None:
    assert_type(response.errors, tuple[str, ...])


def provide(last: fotahook.OauthToken | None) -> fotahook.OauthToken:
    return last or fotahook.OauthToken("token")


async def provide_later(last: fotahook.OauthToken | None) -> fotahook.OauthToken:
    return last or fotahook.OauthToken("token")


fotahook.ThingspaceOauthCredentials("id", "secret", oauth_token_provider=provide, oauth_on_token_update=print)
fotahook.ThingspaceOauthCredentials("id", "secret", oauth_token_provider=provide_later)

client = fotahook.Client(
    thingspace_oauth_credentials=oauth,
    vz_m2m_token_credentials=session,
    environment=fotahook.Environment.MOCK,
    base_url=None,
    timeout=5,
    max_retries=0,
    proxy="",
    ca_file="ca.pem",
    client_cert=("cert.pem", "key.pem"),
    on_request=watch_request,
    on_response=watch_response,
)
assert_type(fotahook.Client.from_environment(timeout=3.0, vz_m2m_token_credentials=static), fotahook.Client)
assert_type(fotahook.AsyncClient.from_environment(dotenv_path=".env"), fotahook.AsyncClient)

with client as opened:
    assert_type(opened, fotahook.Client)
    callbacks = opened.software_management_callbacks_v2
    assert_type(callbacks, fotahook.SoftwareManagementCallbacksV2Controller)
    listed = callbacks.list_registered_callbacks("0000123456-00001", timeout=1, max_retries=1)
    assert_type(listed, fotahook.ApiResponse[fotahook.CallbackSummary | None])
    if listed.data is not None:
        assert_type(listed.data.url, str | None)
    registered = callbacks.register_callback(account="0000123456-00001", body=body)
    assert_type(registered.data, fotahook.FotaV2CallbackRegistrationResult)
    assert_type(callbacks.update_callback("a", body).data, fotahook.FotaV2CallbackRegistrationResult)
    assert_type(opened.callbacks.update_callback("a", "https://x").data.to_dict()["url"], Any)
    assert_type(fotahook.CallbackSummary.from_dict({"url": "x"}), fotahook.CallbackSummary)
    assert_type(callbacks.deregister_callback("a").data.success, bool)
    assert_type(listed.headers, fotahook.Headers)
    as_mapping: Mapping[str, str] = listed.headers
    assert_type(opened.campaigns_v2.get_campaign_information("a", "c").data, fotahook.CampaignSoftware)
    reports = opened.software_management_reports_v2
    assert_type(reports.get_campaign_device_status("a", "c", timeout=1).data, fotahook.V2CampaignDevice)
    for device in reports.iter_campaign_devices("a", "c"):
        assert_type(device, fotahook.V2DeviceStatus)
    checked_in = opened.server_logging.get_device_check_in_history("a", "d").data
    assert_type(checked_in, list[fotahook.CheckInHistoryItem])
    callbacks.list_registered_callbacks(123456)  # type: ignore[arg-type]  # an int loses leading zeros
    callbacks.register_callback("a", {"url": "x"})  # type: ignore[arg-type]  # the model, not a dict
    callbacks.register_callback("a", body, 5)  # type: ignore[call-arg]  # options go by keyword

try:
    client.login()
    client.logout()
    client.revoke_token()
except fotahook.FotaV2ResultException as error:
    assert_type(error.error_code, str | None)
    assert_type(error.request, fotahook.Request | None)
except fotahook.LoginRefused as error:
    assert_type(error.raw_body, bytes)
except (fotahook.TransportError, fotahook.ResponseError) as error:
    assert_type(str(error), str)


async def asynchronous() -> None:
    async with fotahook.AsyncClient(thingspace_oauth_credentials=oauth, vz_m2m_token_credentials=session) as client:
        callbacks = client.software_management_callbacks_v2
        listed = await callbacks.list_registered_callbacks("a")
        assert_type(listed.data, fotahook.CallbackSummary | None)
        async for device in client.software_management_reports_v2.iter_campaign_devices("a", "c"):
            assert_type(device, fotahook.V2DeviceStatus)
        await client.logout()
        task = asyncio.create_task(client.callbacks.register_callback("a", "https://example.com/listener"))
        assert_type(await task, fotahook.ApiResponse[fotahook.FotaV2CallbackRegistrationResult])
        assert_type(client.with_options(timeout=1), fotahook.AsyncClient)
    async with fotahook.AsyncOperatorClient("http://127.0.0.1:8080", "id", "secret") as operator:
        assert_type(await operator.publish("a", {"type": "x"}), fotahook.Published)
        assert_type(await operator.stats(5, timeout=1.0), fotahook.Stats)
        publishing = asyncio.create_task(operator.publish("a", {"type": "x"}))
        assert_type(await publishing, fotahook.Published)
        async for message in operator.messages("a", state="dead"):
            assert_type(message, fotahook.MessageState)
        assert_type(await operator.accounts(state="trouble").page(), fotahook.AccountPage)
        async for event in operator.events("a", after="cursor"):
            assert_type(event, fotahook.Event)


with fotahook.OperatorClient("http://127.0.0.1:8080", "id", "secret", timeout=1) as operator:
    assert_type(operator.publish("a", b"{}", ordering_key="k", idempotency_key="i"), fotahook.Published)
    assert_type(operator.account("a"), fotahook.AccountState)
    assert_type(operator.message("m"), fotahook.MessageState)
    assert_type(operator.attempts("m"), list[fotahook.Attempt])
    assert_type(operator.stats(), fotahook.Stats)
    assert_type(operator.events(timeout=1.0), fotahook.EventStream)
    assert_type(next(operator.events()), fotahook.Event)
    assert_type(list(operator.messages("a")), list[fotahook.MessageState])
    assert_type(operator.messages("a").page(), fotahook.MessagePage)
    operator.messages("a", state="lost")  # type: ignore[arg-type]  # no such state
    operator.publish("a", "text")  # type: ignore[arg-type]  # bytes or a mapping
