"""`fotahook publish` against a running service."""

import io
import json
from pathlib import Path

import pytest

from fotahook.client import OperatorClient
from fotahook.contract.messages import MESSAGE_LIMIT
from fotahook.testing import Sandbox

from .conftest import Run, is_one_line

ACCOUNT = "0000123456-00001"


def test_a_file_is_published_byte_for_byte(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    body = b'{ "type":"upgradeProgress",\n "x": 1.50 }\n'
    (tmp_path / "m.json").write_bytes(body)
    arguments = ("publish", ACCOUNT, "m.json", "--ordering-key", "d1", "--idempotency-key", "k1", "--json")
    first, again = (json.loads(run(*arguments, "--base-url", sandbox.base_url, "--dev").out) for _ in range(2))
    assert again == {"id": first["id"], "duplicate": True}
    assert first["duplicate"] is False
    with OperatorClient(sandbox.base_url, "dev", "dev-secret", proxy="") as client:
        state = client.message(first["id"])
    assert (state.size, state.type, state.ordering_key) == (len(body), "upgradeProgress", "d1")


def test_a_message_comes_from_stdin_too(run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ((ACCOUNT, "-"), (ACCOUNT,)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
        result = run("publish", *arguments, "--base-url", sandbox.base_url, "--dev")
        assert result.code == 0
        assert result.out.splitlines()[0] == "id\tduplicate"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 2),
        (b"{", 2),
        (b'{"a": "\xff"}', 2),
        (b'{"a": "' + b"x" * MESSAGE_LIMIT + b'"}', 2),
        (b"[1]", 4),  # JSON, and yet not what the service takes
    ],
    ids=["empty", "cut off", "not UTF-8", "too large", "no object"],
)
def test_an_invalid_message_is_refused(run: Run, sandbox: Sandbox, tmp_path: Path, content: bytes, code: int) -> None:
    (tmp_path / "m.json").write_bytes(content)
    result = run("publish", ACCOUNT, "m.json", "--base-url", sandbox.base_url, "--dev")
    assert result.code == code
    assert is_one_line(result.err)


def test_a_file_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    for name in ("absent.json", str(tmp_path)):
        result = run("publish", ACCOUNT, name, "--dev")
        assert result.code == 1
        assert is_one_line(result.err)
        assert name in result.err


def test_an_invalid_key_is_refused(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b"{}")
    result = run("publish", ACCOUNT, "m.json", "--ordering-key", "a b", "--base-url", sandbox.base_url, "--dev")
    assert result.code == 2
    assert "ordering_key" in result.err


# --batch


def test_a_batch_is_published_line_by_line(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    lines = [
        b'{"message": { "n": 1.50 }, "orderingKey": "d1", "idempotencyKey": "k"}',
        b'{"account": "other", "message": {"n": 2}}',
        b"",
        b'{"message": { "n": 1.50 }, "orderingKey": "d1", "idempotencyKey": "k"}',
    ]
    (tmp_path / "m.ndjson").write_bytes(b"\r\n".join(lines))
    arguments = ("publish", ACCOUNT, "m.ndjson", "--batch", "--base-url", sandbox.base_url, "--dev")
    result = run(*arguments)
    assert (result.code, result.out, result.err) == (0, "published\tduplicates\trefused\n2\t1\t0\n", "")
    sandbox.register(ACCOUNT)
    sandbox.register("other")
    sandbox.drain()
    assert {one.account: one.body for one in sandbox.deliveries()} == {ACCOUNT: b'{ "n": 1.50 }', "other": b'{"n": 2}'}
    printed = [json.loads(line) for line in run(*arguments, "--json").out.splitlines()]
    assert [(line["line"], line["duplicate"]) for line in printed] == [(1, True), (2, False), (4, True)]


def test_more_than_one_batch_is_published(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    (tmp_path / "m.ndjson").write_bytes(
        b'{"message": {}}\n' * 2001 + b'{"message": {"x": "%s"}}\n' % (b"y" * 200_000) * 25
    )
    result = run("publish", ACCOUNT, "m.ndjson", "--batch", "--base-url", sandbox.base_url, "--dev")
    assert result.out.splitlines()[1] == "2026\t0\t0"


def test_refused_lines_are_reported_and_the_others_published(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    lines = [b"{}", b'{"message": [], "typo": 1}', b'{"message": []}', b'{"message": {}}', b"\xff"]
    (tmp_path / "m.ndjson").write_bytes(b"\n".join(lines))
    arguments = ("publish", ACCOUNT, "m.ndjson", "--batch", "--base-url", sandbox.base_url, "--dev")
    result = run(*arguments)
    assert result.code == 1
    assert result.out.splitlines()[1] == "1\t0\t4"
    assert [line.split(": ")[1] for line in result.err.splitlines()] == [f"m.ndjson, line {n}" for n in (1, 2, 5, 3)]
    printed = {line["line"]: line for line in map(json.loads, run(*arguments, "--json").out.splitlines())}
    assert printed[3]["errorCode"] == "INVALID_PARAMETER"
    assert printed[4]["duplicate"] is False


def test_an_interrupted_batch_reports_what_was_published(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "m.ndjson").write_bytes(b'{"message": {}}\n' * 1001)
    sandbox.publish(ACCOUNT, {})
    arguments = ("publish", ACCOUNT, "m.ndjson", "--batch", "--base-url", "http://127.0.0.1:9", "--dev")
    result = run(*arguments)
    assert (result.code, result.out) == (3, "published\tduplicates\trefused\n0\t0\t0\n")
    assert is_one_line(result.err)


def test_keys_are_the_lines_own(run: Run) -> None:
    result = run("publish", ACCOUNT, "m.ndjson", "--batch", "--ordering-key", "k", "--dev")
    assert result.code == 2
    assert is_one_line(result.err)
