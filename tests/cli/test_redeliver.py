"""`fotahook redeliver` against a running service."""

import json

import pytest

from fotahook.testing import Sandbox

from .conftest import CommandResult, Run, is_one_line

ACCOUNT = "0000123456-00001"


@pytest.fixture
def call(run: Run, sandbox: Sandbox) -> Run:
    sandbox.reset()
    sandbox.register(ACCOUNT)

    def call(*arguments: str) -> CommandResult:
        return run("redeliver", *arguments, "--base-url", sandbox.base_url, "--dev")

    return call


def delivered(sandbox: Sandbox, message: dict[str, object]) -> str:
    message_id = sandbox.publish(ACCOUNT, message)
    sandbox.wait_delivered(message_id)
    return message_id


def test_messages_are_sent_once_more_under_their_ids_or_as_new(call: Run, sandbox: Sandbox) -> None:
    one, other = delivered(sandbox, {"n": 1}), delivered(sandbox, {"n": 2})
    assert call(one, other).out == f"id\tsent as\n{one}\t{one}\n{other}\t{other}\n"
    sandbox.drain()
    assert len(sandbox.receiver.received) == 4
    printed = json.loads(call(one, "--as-new", "--json").out)
    assert (printed["id"], printed["sentAs"] > other) == (one, True)
    sandbox.drain()
    assert sandbox.receiver.received[-1].body == b'{"n":1}'


def test_one_that_is_refused_does_not_keep_the_others_back(call: Run, sandbox: Sandbox) -> None:
    sandbox.publish("held", {})
    message_id = delivered(sandbox, {})
    result = call("nothing", message_id)
    assert result.code == 4
    assert result.out.splitlines()[1:] == [f"{message_id}\t{message_id}"]
    assert is_one_line(result.err)
    assert result.err.startswith("fotahook: nothing: 404")


def test_the_refusal_of_a_single_id_is_one_line(call: Run, sandbox: Sandbox) -> None:
    result = call(sandbox.publish("held", {}))
    assert (result.code, result.out) == (4, "")
    assert is_one_line(result.err)
    assert "CONFLICT" in result.err


def test_those_of_an_account_are_counted_and_sent(call: Run, sandbox: Sandbox) -> None:
    for number in range(3):
        delivered(sandbox, {"n": number})
    meant = ("--account", ACCOUNT, "--state", "delivered")
    assert call(*meant, "--until", "1h").out.splitlines()[1] == f"{ACCOUNT}\tdelivered\t0\tno"
    assert json.loads(call(*meant, "--since", "1h", "--dry-run", "--json").out) == {
        "account": ACCOUNT,
        "state": "delivered",
        "count": 3,
        "dryRun": True,
    }
    assert len(sandbox.receiver.received) == 3
    assert call(*meant).out.splitlines()[1] == f"{ACCOUNT}\tdelivered\t3\tno"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--account", ACCOUNT),
        ("--account", ACCOUNT, "--state", "pending"),
        ("--account", ACCOUNT, "--state", "dead", "--as-new"),
        ("x", "--account", ACCOUNT, "--state", "dead"),
        ("x", "--state", "dead"),
        ("x", "--since", "1h"),
        ("x", "--dry-run"),
        ("--account", ACCOUNT, "--state", "dead", "--since", "never"),
    ],
    ids=" ".join,
)
def test_invalid_arguments_redeliver_nothing(call: Run, arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert (result.code, result.out) == (2, "")
    assert is_one_line(result.err)
