"""Hooks and the log, both without secrets."""

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import fotahook
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, BODY, OAUTH, USER, OpenSdk, Peer, opened, respond

SECRETS = ("token-1", "session-1", "a-client-secret", "a-password", "YW4taWQ6")


async def test_hooks_get_every_request_and_response_without_secrets(peer: Peer, open_sdk: OpenSdk) -> None:
    asked: list[fotahook.Request] = []
    got: list[fotahook.ApiResponse[None]] = []
    async with open_sdk(on_request=asked.append, on_response=got.append) as sdk:
        await sdk.call("register_callback", ACCOUNT, BODY)
        await sdk.do("logout")
        await sdk.do("revoke_token")
    paths = [request.url.removeprefix(peer.url + "/api/") for request in asked]
    assert paths == [
        "ts/v1/oauth2/token",
        "m2m/v1/session/login",
        f"fota/v2/callbacks/{ACCOUNT}",
        "m2m/v1/session/logout",
        "ts/v1/oauth2/revoke",
    ]
    assert [response.request for response in got] == asked
    assert [response.status_code for response in got] == [200] * 5
    assert asked[2].body == b'{"url":"' + BODY.url.encode() + b'"}'
    assert asked[2].headers["authorization"] == "***"
    assert got[2].raw_body.startswith(b'{"url"')
    assert got[2].data is None
    everything = repr([*asked, *got, *(vars_of(response) for response in got)])
    assert not [secret for secret in SECRETS if secret in everything]


def vars_of(response: fotahook.ApiResponse[None]) -> dict[str, object]:
    return {name: getattr(response, name) for name in response.__struct_fields__}


async def test_hooks_get_each_attempt_and_error_responses(peer: Peer, open_sdk: OpenSdk) -> None:
    got: list[fotahook.ApiResponse[None]] = []
    peer.routes["callbacks/"] = lambda _: respond(503, {"errorCode": "X", "errorMessage": "later"})
    async with open_sdk(on_response=got.append) as sdk:
        with pytest.raises(fotahook.ServerError) as caught:
            await sdk.call("list_registered_callbacks", ACCOUNT)
    tries = [response for response in got if response.is_error]
    assert len(tries) == 3
    assert tries[-1].errors == (str(caught.value),)
    assert not tries[-1].is_success


async def test_a_failing_hook_fails_only_its_call(peer: Peer, open_sdk: OpenSdk) -> None:
    def fail(response: fotahook.ApiResponse[None]) -> None:
        if "callbacks" in response.request.url and len(peer.calls) == 1:
            raise LookupError("mine")

    async with open_sdk(on_response=fail) as sdk:
        with pytest.raises(LookupError, match="mine"):
            await sdk.call("list_registered_callbacks", ACCOUNT)
        assert (await sdk.call("list_registered_callbacks", ACCOUNT)).is_success


async def test_the_log_has_a_line_for_each_request_and_no_secret(
    peer: Peer, open_sdk: OpenSdk, caplog: pytest.LogCaptureFixture
) -> None:
    peer.routes["session/logout"] = lambda _: [None]
    with caplog.at_level(logging.DEBUG):
        async with open_sdk(max_retries=0) as sdk:
            await sdk.call("register_callback", ACCOUNT, BODY)
            with pytest.raises(fotahook.ConnectionFailed):
                await sdk.do("logout")
    lines = [record.getMessage() for record in caplog.records if record.name == "fotahook.client"]
    # The connection had been kept, so the last request went out twice.
    assert len(lines) == 5
    assert lines[2].startswith(f"POST {peer.url}/api/fota/v2/callbacks/{ACCOUNT}: 200")
    assert lines[3].startswith(f"again on a new connection: POST {peer.url}/api/m2m/v1/session/logout: ")
    assert lines[4].startswith(f"failed after 2 attempts: POST {peer.url}/api/m2m/v1/session/logout: ")
    assert {record.levelno for record in caplog.records if record.name == "fotahook.client"} == {logging.DEBUG}
    assert not [secret for secret in SECRETS if secret in caplog.text]


async def test_hooks_of_the_asynchronous_client_may_be_coroutine_functions(peer: Peer) -> None:
    seen: list[str] = []

    async def watch_request(request: fotahook.Request) -> None:
        seen.append(request.method)

    async def watch_response(response: fotahook.ApiResponse[None]) -> None:
        seen.append(str(response.status_code))

    async with opened("async", peer.url, None, on_request=watch_request, on_response=watch_response) as sdk:
        await sdk.call("list_registered_callbacks", ACCOUNT)
    assert seen == ["POST", "200", "POST", "200", "GET", "200"]


@pytest.mark.parametrize("name", ["on_request", "on_response"])
def test_the_blocking_clients_refuse_coroutine_functions_at_once(name: str) -> None:
    async def watch(_: object) -> None: ...

    hooks: dict[str, Any] = {name: watch}
    with pytest.raises(TypeError, match=f"{name} is a coroutine function"):
        fotahook.Client(**hooks)
    with pytest.raises(TypeError, match=f"{name} is a coroutine function"):
        fotahook.OperatorClient("http://127.0.0.1:1", "i", "s", **hooks)


def test_a_hook_that_returns_an_awaitable_to_a_thread_is_an_error(peer: Peer) -> None:
    async def later() -> None: ...

    with (
        fotahook.Client(
            thingspace_oauth_credentials=OAUTH,
            vz_m2m_token_credentials=USER,
            base_url=peer.url,
            on_request=lambda _: later(),
        ) as client,
        pytest.raises(TypeError, match="Client takes plain functions"),
    ):
        client.login()


LOGGING = """
import sys, fotahook
client = fotahook.Client(base_url=sys.argv[1], max_retries=1,
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "a-secret"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("u", "p"))
try:
    client.callbacks.list_registered_callbacks("a")
except fotahook.ServerError as error:
    print(error.attempts, error.request_id)
"""


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 0), ("", 0)])
def test_a_variable_switches_the_log_on(peer: Peer, level: str, lines: int) -> None:
    peer.routes["callbacks/"] = lambda _: respond(503, headers="Retry-After: 0\r\nX-Request-Id: r-1\r\n")
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, peer.url],
        env={**os.environ, "FOTAHOOK_LOG": level},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout == "2 r-1\n"
    logged = done.stderr.splitlines()
    assert len(logged) == lines
    if lines:
        where = f"503 for GET {peer.url}/api/fota/v2/callbacks/a"
        assert "retrying in " in logged[2]
        assert f"(1 of 1): {where}" in logged[2]
        assert f"failed after 2 attempts: {where}" in logged[3]


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """What a program's own set-up of OpenTelemetry exports."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


async def test_spans_are_made_and_the_active_one_is_continued(
    peer: Peer, open_sdk: OpenSdk, exporter: InMemorySpanExporter
) -> None:
    exporter.clear()
    failing = iter([respond(503, headers="Retry-After: 0\r\n")])
    usual = peer.routes["callbacks/"]
    peer.routes["callbacks/"] = lambda seen: next(failing, None) or usual(seen)
    async with open_sdk() as sdk:
        await sdk.do("login")
        with trace.get_tracer("test").start_as_current_span("the caller's") as span:
            await sdk.call("list_registered_callbacks", ACCOUNT)
    made = [one for one in exporter.get_finished_spans() if one.name == "GET"]
    assert [one.attributes["http.response.status_code"] for one in made if one.attributes] == [503, 200]
    assert [one.attributes["http.request.resend_count"] for one in made if one.attributes] == [0, 1]
    assert all(one.context and one.context.trace_id == span.get_span_context().trace_id for one in made)
    for one, call in zip(made, peer.calls, strict=True):
        assert one.context is not None
        assert call.headers["traceparent"].startswith(f"00-{one.context.trace_id:032x}-{one.context.span_id:016x}-")
    assert made[0].status.status_code is trace.StatusCode.ERROR
