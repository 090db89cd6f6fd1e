"""`fotahook export` and `import`: every byte, in order, once, and never half a file."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from fotahook.store import open_store
from fotahook.store.records import NewMessage, Retention
from fotahook.testing import Sandbox

from .conftest import Run, is_one_line
from .processes import fotahook

ACCOUNT = "0000123456-00001"
COPY = "0000123456-00002"
THIRD = "0000123456-00003"
BODIES = [
    b'{ "type": "a", "n": 1.50 }',
    b'{\n  "type": "b",\r\n\t"text": "line\\nfeed" }\n',
    '{"ä": "\\ud800 \\u001b € 😀"}'.encode(),
    b"{}",
]
"""Messages that a tool which knows JSON would each like to write down in another way."""


def received(service: Sandbox, account: str) -> list[bytes]:
    """What is delivered to an account, in order."""
    service.register(account)
    service.drain()
    return [one.body for one in service.deliveries(account)]


def test_an_export_is_imported_byte_for_byte_in_order_and_once(call: Run, service: Sandbox, tmp_path: Path) -> None:
    for number in range(250):
        service.publish(ACCOUNT, BODIES[number % len(BODIES)], ordering_key="k")
    result = call("export", ACCOUNT, "messages.jsonl")
    assert result.out == f"account\tfile\texported\tleftOut\n{ACCOUNT}\tmessages.jsonl\t250\t0\n"
    lines = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    assert [line["body"].encode() for line in lines] == [BODIES[number % len(BODIES)] for number in range(250)]
    assert set(lines[0]) == {"id", "account", "body", "sha256", "type", "orderingKey", "acceptedAt"}
    assert call("import", "messages.jsonl", "--account", COPY).out == "published\tduplicates\trefused\n250\t0\t0\n"
    assert call("import", "messages.jsonl", "--account", COPY).out == "published\tduplicates\trefused\n0\t250\t0\n"
    assert received(service, COPY) == [line["body"].encode() for line in lines]
    keys = call("messages", "list", COPY, "--key", "k", "--limit", "0").out.splitlines()
    assert len(keys) == 251


def test_it_may_go_over_pipes(service: Sandbox) -> None:
    service.publish(ACCOUNT, BODIES[2])
    remote = ("--base-url", service.base_url, "--dev")
    exported = fotahook("export", ACCOUNT, *remote).stdout.encode()
    result = fotahook("import", "-", "--account", COPY, "--json", *remote, stdin=exported)
    printed = json.loads(result.stdout)
    assert (printed["line"], printed["duplicate"], result.stderr) == (1, False, "")
    assert received(service, COPY) == [BODIES[2]]


def test_filters_select_what_is_exported(call: Run, service: Sandbox) -> None:
    for kind in ("a", "b"):
        service.publish(ACCOUNT, {"type": kind}, kind)
    for flags in (("--type", "a"), ("--key", "a"), ("--type", "a", "--state", "pending", "--since", "1h")):
        (line,) = call("export", ACCOUNT, *flags).out.splitlines()
        assert json.loads(line)["type"] == "a"
    assert call("export", ACCOUNT, "--state", "dead").out == ""


def test_an_existing_file_is_overwritten_only_with_force_and_readable_by_its_owner_alone(
    call: Run, service: Sandbox, tmp_path: Path
) -> None:
    service.publish(ACCOUNT, {})
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    refused = call("export", ACCOUNT, "link.jsonl")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "fotahook: link.jsonl exists; give --force to overwrite it, or another name\n"
    assert (tmp_path / "real.jsonl").read_text() == "old"
    assert call("export", ACCOUNT, "link.jsonl", "--force", "--json").code == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.jsonl").stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"real.jsonl", "link.jsonl"}


def test_a_pipe_is_written_to_and_not_replaced(call: Run, service: Sandbox, tmp_path: Path) -> None:
    service.publish(ACCOUNT, {})
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert call("export", ACCOUNT, "pipe").code == 0
        assert b'"body":"{}"' in os.read(reading, 65536)
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    finally:
        os.close(reading)


@pytest.mark.parametrize("path", ["/body", "/accounts/"])
def test_an_export_cut_short_leaves_the_file_as_it_was(call: Run, service: Sandbox, tmp_path: Path, path: str) -> None:
    for _ in range(3):
        service.publish(ACCOUNT, {})
    (tmp_path / "m.jsonl").write_text("old")
    service.faults.answer_calls(500, times=50, path=path)
    result = call("export", ACCOUNT, "m.jsonl", "--force")
    assert result.code == 1
    assert is_one_line(result.err)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"m.jsonl": "old"}


def test_an_unwritable_file_is_reported_before_any_request(call: Run, service: Sandbox) -> None:
    result = call("export", ACCOUNT, "no/such/folder.jsonl")
    assert result.code == 1
    assert is_one_line(result.err)
    assert "no/such/folder.jsonl: No such file" in result.err


def test_messages_without_their_bytes_are_left_out_and_counted(run: Run, tmp_path: Path) -> None:
    with Sandbox(store=f"sqlite:///{tmp_path / 's.db'}") as sandbox:
        sandbox.register(ACCOUNT)
        sandbox.wait_delivered(sandbox.publish(ACCOUNT, {}))

        async def prune() -> None:
            store = await open_store(f"sqlite:///{tmp_path / 's.db'}", clock=lambda: sandbox.now() + 100)
            await store.tidy(Retention(seconds=0))
            await store.close()

        asyncio.run(prune())
        kept = sandbox.publish(ACCOUNT, {})
        remote = ("--base-url", sandbox.base_url, "--dev")
        assert run("export", ACCOUNT, "m.jsonl", *remote).out.splitlines()[1] == f"{ACCOUNT}\tm.jsonl\t1\t1"
        result = run("export", ACCOUNT, *remote)
    assert json.loads(result.out)["id"] == kept
    assert is_one_line(result.err)
    assert "left out 1" in result.err


def test_an_inbox_is_exported_too(run: Run, tmp_path: Path) -> None:
    async def receive() -> None:
        store = await open_store(f"sqlite:///{tmp_path / 'inbox.db'}")
        messages = [
            NewMessage(account=account, body=body, type="t", ordering_key="d1", consumers=("handlers",))
            for account in (ACCOUNT, "other")
            for body in BODIES
        ]
        await store.accept(messages)
        await store.close()

    asyncio.run(receive())
    result = run("export", ACCOUNT, "--inbox", "sqlite:///inbox.db", "--state", "pending")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["body"].encode() for line in lines] == BODIES
    assert {(line["type"], line["orderingKey"]) for line in lines} == {("t", "d1")}


@pytest.mark.parametrize(
    ("inbox", "complaint"), [("sqlite:///absent.db", "no such file"), ("mysql://x", "sqlite:///FILE")]
)
def test_a_missing_inbox_is_reported_and_not_created(run: Run, tmp_path: Path, inbox: str, complaint: str) -> None:
    result = run("export", ACCOUNT, "--inbox", inbox)
    assert result.code == 2
    assert is_one_line(result.err)
    assert complaint in result.err
    assert list(tmp_path.iterdir()) == []


# What cannot be imported


def test_invalid_lines_are_reported_and_the_others_imported(call: Run, service: Sandbox, tmp_path: Path) -> None:
    service.publish(ACCOUNT, {"n": 1})
    call("export", ACCOUNT, "m.jsonl")
    good = (tmp_path / "m.jsonl").read_text().strip()
    changed = json.dumps(json.loads(good) | {"body": '{"n":2}'})
    headless = json.dumps({name: value for name, value in json.loads(good).items() if name != "id"})
    keyed = json.dumps(json.loads(good) | {"id": "other", "orderingKey": "a b"})
    (tmp_path / "m.jsonl").write_text("\n".join([changed, "", headless, "noise", "[]", keyed, good, good]))
    result = call("import", "m.jsonl", "--account", COPY)
    assert result.code == 1
    assert result.out.splitlines()[1] == "1\t1\t5"
    complaints = result.err.splitlines()
    assert [line.partition(": INVALID_LINE: ")[0] for line in complaints] == [
        f"fotahook: m.jsonl, line {number}" for number in (1, 3, 4, 5, 6)
    ]
    assert "sha256" in complaints[0]


def test_a_refused_message_is_reported_by_its_line(call: Run, service: Sandbox, tmp_path: Path) -> None:
    service.publish(ACCOUNT, BODIES[1])
    service.publish(ACCOUNT, BODIES[3])
    call("export", ACCOUNT, "m.jsonl")
    result = call("import", "m.jsonl", "--account", "no/account")
    assert result.code == 1
    assert [line[:28] for line in result.err.splitlines()] == [f"fotahook: m.jsonl, line {n}: I" for n in (1, 2)]
    call("import", "m.jsonl")
    # The same ids with other bytes: somebody's own file.
    other = [json.loads(line)["id"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    service.publish(THIRD, BODIES[1])
    call("export", THIRD, "third.jsonl")
    line = json.loads((tmp_path / "third.jsonl").read_text())
    (tmp_path / "third.jsonl").write_text("\n".join(json.dumps(line | {"id": one}) for one in other))
    result = call("import", "third.jsonl", "--account", ACCOUNT)
    assert "line 2: CONFLICT: " in result.err


@pytest.mark.parametrize("command", [("export", ACCOUNT), ("import",), ("publish", ACCOUNT)], ids=" ".join)
def test_an_unknown_option_is_not_taken_for_a_file(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--al", "--dev")
    assert result.code == 2
    assert is_one_line(result.err)
    assert "--al" in result.err


# Files of lines


def test_a_line_that_is_too_long_is_reported(call: Run, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b"x" * (8 * 1024 * 1024 + 1))
    result = call("import", "m.jsonl")
    assert result.code == 1
    assert is_one_line(result.err)
    assert "line 1 has more than" in result.err
