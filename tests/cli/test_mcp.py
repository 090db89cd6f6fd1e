"""`fotahook mcp`, called by the client of the protocol's own authors over stdio, as an agent calls it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fotahook.listener.ledger import expect
from fotahook.store import open_store
from fotahook.testing import Sandbox

from .processes import FOTAHOOK, environment, fotahook

if TYPE_CHECKING:
    from mcp import Client

ACCOUNT = "0000123456-00001"
READS = {"accounts", "account", "messages", "message", "attempts", "why", "search", "stats"}
WRITES = {"redeliver", "redeliver_all", "pause", "resume"}


@asynccontextmanager
async def agent(sandbox: Sandbox, *flags: str, cwd: Path) -> AsyncIterator["Client"]:
    # Imported here: it is large, and every worker collects this module.
    from mcp import Client, StdioServerParameters

    command, *arguments = (*FOTAHOOK, "mcp", "--base-url", sandbox.base_url, "--local", *flags)
    started = StdioServerParameters(command=command, args=arguments, env=environment(), cwd=cwd)
    async with Client(started) as client:
        yield client


async def call(client: "Client", tool: str, **arguments: object) -> dict[str, object]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refusal(client: "Client", tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return json.dumps([part.model_dump(mode="json") for part in result.content])


async def test_an_agent_finds_out_why_a_message_is_late(service: Sandbox, tmp_path: Path) -> None:
    service.register(ACCOUNT)
    service.faults.answer_deliveries(500, times=9)
    message_id = service.publish(ACCOUNT, {"type": "upgradeProgress"}, ordering_key="990013907835573")
    service.drain()
    async with agent(service, cwd=tmp_path) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == READS
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all("Call this" in (tool.description or "") for tool in tools)
        assert "third parties" in (client.instructions or "")
        listed = (await call(client, "messages", account=ACCOUNT, state="dead"))["messages"]
        assert isinstance(listed, list)
        assert [(found["id"], found["orderingKey"]) for found in listed] == [(message_id, "990013907835573")]
        assert (await call(client, "message", message_id=message_id))["type"] == "upgradeProgress"
        attempts = (await call(client, "attempts", message_id=message_id))["result"]
        assert isinstance(attempts, list)
        assert {attempt["httpStatus"] for attempt in attempts} == {500}
        assert (await call(client, "why", message_id=message_id))["state"] == "dead"
        assert (await call(client, "account", account="0000999999-00009"))["known"] is False
        found = (await call(client, "search", text="state:dead type:upgradeProgress"))["messages"]
        assert isinstance(found, list)
        assert [each["id"] for each in found] == [message_id]
        assert "totals" in await call(client, "stats")
        assert "accounts" in await call(client, "accounts", state="trouble", limit=5)
        assert await call(client, "messages", account=ACCOUNT, since="2999-01-01T00:00:00Z") == {
            "messages": [],
            "cursor": None,
        }


async def test_what_is_refused_is_told_in_words(service: Sandbox, tmp_path: Path) -> None:
    async with agent(service, cwd=tmp_path) as client:
        assert "no such message" in await refusal(client, "why", message_id="nothing")
        assert "limit" in await refusal(client, "accounts", limit=0)
        assert "since" in await refusal(client, "messages", account=ACCOUNT, since="2026-01-01T00:00:00")
        assert "account" in await refusal(client, "account", account="")
        for tool in WRITES:
            assert "Unknown tool" in await refusal(client, tool, account=ACCOUNT)


async def test_writes_are_there_only_where_they_are_allowed(service: Sandbox, tmp_path: Path) -> None:
    service.register(ACCOUNT)
    message_id = service.publish(ACCOUNT, {})
    service.wait_delivered(message_id)
    async with agent(service, "--allow-writes", cwd=tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READS | WRITES
        for name in WRITES:
            annotations = tools[name].annotations
            assert annotations is not None
            assert annotations.read_only_hint is False
        lane = (await call(client, "pause", account=ACCOUNT))["lane"]
        assert isinstance(lane, dict)
        assert lane["state"] == "paused"
        await call(client, "resume", account=ACCOUNT)
        flags = {"account": ACCOUNT, "state": "delivered"}
        assert await call(client, "redeliver_all", **flags) == {"result": 1}
        assert await call(client, "redeliver_all", **flags, dry_run=False) == {"result": 1}
        service.wait_delivered(message_id)
        again = await call(client, "redeliver", message_id=message_id, as_new=True)
        assert again["id"] != message_id


async def test_the_ledger_of_an_inbox_is_a_tool_where_one_is_named(service: Sandbox, tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path / 'inbox.db'}")
    await expect(store, ACCOUNT, "c-1", ["990013907835573", "990013907835574"], "2999-01-01")
    await store.close()
    async with agent(service, "--inbox", "sqlite:///inbox.db", cwd=tmp_path) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS | {"ledger"}
        found = await call(client, "ledger", account=ACCOUNT, campaign="c-1")
        assert (found["silent"], found["reported"]) == (2, 0)


def test_an_inbox_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = fotahook("mcp", "--local", "--inbox", "sqlite:///absent.db", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such file" in done.stderr


def test_without_credentials_it_does_not_start(tmp_path: Path) -> None:
    done = fotahook("mcp", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no credentials: set THINGSPACE_OAUTH" in done.stderr


@pytest.mark.parametrize("flags", [("--local",), ("--local", "--allow-writes")])
def test_it_ends_with_its_input(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = fotahook("mcp", *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
