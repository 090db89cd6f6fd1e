"""`fotahook messages`, `why`, `accounts`, `pause` and `resume` against a running service."""

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fotahook.cli.shared import arguments
from fotahook.cli.shared.errors import UsageError
from fotahook.testing import Sandbox
from tests.deadlines import DEADLINE

from .conftest import Run, is_one_line

ACCOUNT = "0000123456-00001"
AWKWARD = '{ "type": "it\'s $HOME `x`",\n\t"ä": "\\u001b\\ud800", "n": 1.50 }\n\n'.encode()
"""A message that a shell, a table and a JSON tool would each like to change."""


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_messages_are_listed_newest_first_as_many_as_are_wanted(call: Run, service: Sandbox) -> None:
    ids = [service.publish(ACCOUNT, {"type": "t", "n": number}, "k") for number in range(3)]
    result = call("messages", "list", ACCOUNT, "--limit", "2")
    columns, *found = rows(result.out)
    assert columns == ["id", "state", "type", "ordering key", "attempts", "last outcome", "accepted"]
    assert [row[:6] for row in found] == [[one, "pending", "t", "k", "0", ""] for one in ids[:0:-1]]
    assert is_one_line(result.err)
    assert "--limit 0" in result.err
    everything = call("messages", "list", ACCOUNT, "--limit", "0")
    assert len(rows(everything.out)) == 4
    assert everything.err == ""


def test_pages_are_followed(call: Run, service: Sandbox) -> None:
    ids = [service.publish(ACCOUNT, {}) for _ in range(450)]
    result = call("messages", "list", ACCOUNT, "--limit", "0", "--json")
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == ids[::-1]
    assert len(rows(call("messages", "list", ACCOUNT, "--limit", "0").out)) == 451
    assert len(rows(call("messages", "list", ACCOUNT, "--limit", "201").out)) == 202


def test_only_the_wanted_messages_are_listed(call: Run, service: Sandbox) -> None:
    service.register(ACCOUNT)
    one = service.publish(ACCOUNT, {"type": "a"}, "k")
    service.wait_delivered(one)
    service.publish(ACCOUNT, {"type": "b"}, "other")

    def ids(*arguments: str) -> list[str]:
        return [row[0] for row in rows(call("messages", "list", ACCOUNT, *arguments).out)[1:]]

    assert ids("--type", "a") == ids("--key", "k") == [one]
    assert one in ids("--state", "delivered")
    assert ids("--state", "dead") == []
    assert len(ids("--since", "1h")) == len(ids("--until", "2999-01-01")) == 2
    assert ids("--until", "1h") == ids("--since", "2999-01-01") == []


def test_a_message_is_shown_with_its_attempts_and_fixes(call: Run, service: Sandbox) -> None:
    service.register(ACCOUNT)
    service.faults.answer_deliveries(500)
    message_id = service.publish(ACCOUNT, AWKWARD)
    service.drain()
    shown = call("messages", "show", message_id).out
    card, deliveries, attempts, answers = (rows(part) for part in shown.split("\n\n"))
    assert ["sha256", hashlib.sha256(AWKWARD).hexdigest()] in card
    assert deliveries[1][:3] == [ACCOUNT, "delivered", "2"]
    assert [row[:4:3] for row in attempts[1:]] == [["1", "500"], ["2", "200"]]
    assert answers[1][1] == service.receiver.url
    assert answers[1][3].endswith(".")
    assert answers[2][3] == ""
    shown = json.loads(call("messages", "show", message_id, "--json").out)
    assert [attempt["httpStatus"] for attempt in shown["attempts"]] == [500, 200]
    assert shown["deliveries"][0]["state"] == "delivered"


class OneAnswer(BaseHTTPRequestHandler):
    """Answers the first message of each connection, and ends it on the second."""

    protocol_version = "HTTP/1.1"
    answered = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.answered:
            self.close_connection = True
        else:
            self.answered = True
            self.send_response(204)
            self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_history_tells_that_a_message_was_sent_twice(call: Run, service: Sandbox) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OneAnswer) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.01)
        try:
            service.register(ACCOUNT, f"http://127.0.0.1:{server.server_address[1]}/")
            ids = [service.publish(ACCOUNT, {"n": number}, "k") for number in range(2)]
            service.drain()
        finally:
            server.shutdown()
    listed = [json.loads(call("messages", "show", one, "--json").out)["attempts"] for one in ids]
    assert [[attempt.get("resent") for attempt in attempts] for attempts in listed] == [[False], [True]]
    shown = call("messages", "show", ids[1]).out.split("\n\n")[2]
    assert rows(shown)[1][2] == "delivered, sent twice"


def test_a_value_cannot_break_its_row_or_steer_the_terminal(call: Run, service: Sandbox) -> None:
    message_id = service.publish(ACCOUNT, {"type": "a\tb\nc\x1b[2Jd"})
    (row,) = rows(call("messages", "list", ACCOUNT).out)[1:]
    assert row[0:3] == [message_id, "pending", "a b c [2Jd"]
    assert "\x1b" not in call("messages", "list", ACCOUNT, "--json").out


def test_the_body_is_printed_byte_for_byte(call: Run, service: Sandbox) -> None:
    message_id = service.publish(ACCOUNT, AWKWARD)
    assert call("messages", "show", message_id, "--body").out.encode() == AWKWARD


@pytest.mark.usefixtures("curl")
def test_the_curl_command_posts_the_bytes_of_the_delivery(call: Run, service: Sandbox) -> None:
    message_id = service.publish(ACCOUNT, AWKWARD)
    refused = call("messages", "show", message_id, "--as", "curl")
    assert refused.code == 1
    assert "register a callback" in refused.err
    service.register(ACCOUNT)
    service.wait_delivered(message_id)
    command = call("messages", "show", message_id, "--as", "curl").out
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=DEADLINE)
    delivered, again = service.receiver.received
    assert again.body == delivered.body == AWKWARD
    for name in ("content-type", "webhook-id", "fotahook-account", "user-agent"):
        assert again.headers[name] == delivered.headers[name]


def test_a_message_is_printed_in_one_way(call: Run) -> None:
    result = call("messages", "show", "x", "--body", "--json")
    assert result.code == 2
    assert is_one_line(result.err)


def test_it_says_why(call: Run, service: Sandbox) -> None:
    message_id = service.publish(ACCOUNT, {})
    assert rows(call("why", message_id).out)[1][:2] == ["pending", "held"]
    shown = json.loads(call("why", message_id, "--json").out)
    assert (shown["id"], shown["state"], shown["reasons"][0]["code"]) == (message_id, "pending", "held")


@pytest.mark.parametrize("command", [("messages", "show"), ("why",)], ids=" ".join)
def test_an_unknown_message_is_reported(call: Run, command: tuple[str, ...]) -> None:
    result = call(*command, "nothing")
    assert result.code == 4
    assert is_one_line(result.err)
    assert "check the id" in result.err


def test_an_account_is_shown_paused_and_resumed(call: Run, service: Sandbox) -> None:
    service.register(ACCOUNT, "http://127.0.0.1:9/")
    assert rows(call("accounts", "show", ACCOUNT).out)[1][:2] == [ACCOUNT, "open"]
    assert rows(call("pause", ACCOUNT).out)[1][:2] == [ACCOUNT, "paused"]
    assert json.loads(call("resume", ACCOUNT, "--json").out)["lane"]["state"] == "open"
    service.publish("held", {})
    assert [row[0] for row in rows(call("accounts", "list").out)[1:]] == [ACCOUNT, "held"]
    (shown,) = call("accounts", "list", "--state", "trouble", "--json").out.splitlines()
    assert json.loads(shown)["account"] == "held"


# Points in time

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T10:00:00Z", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("2026-11-24T10:00:00+02:00", datetime(2026, 11, 24, 8, tzinfo=UTC)),
        ("90s", datetime(2026, 11, 25, 11, 58, 30, tzinfo=UTC)),
        ("30m", datetime(2026, 11, 25, 11, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 25, 10, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 18, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_date_a_time_or_how_long_ago(text: str, meant: datetime) -> None:
    assert arguments.parse_time("--since", text, NOW) == meant


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "999999999d", "2026-13-01", "-1h"])
def test_an_invalid_time_is_refused_with_valid_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since .*: give 2026-11-25"):
        arguments.parse_time("--since", text, NOW)


def test_an_account_that_was_never_used_is_unknown(call: Run, service: Sandbox) -> None:
    for command, state in ((("accounts", "show"), "unknown"), (("pause",), "paused"), (("resume",), "unknown")):
        result = call(*command, "0000999999-00009")
        assert rows(result.out)[1][:2] == ["0000999999-00009", state]
        assert result.err == (
            "fotahook: account '0000999999-00009' is unknown: it never had a callback or a message; check the name\n"
        )
    service.publish(ACCOUNT, {})
    assert call("accounts", "show", ACCOUNT).err == ""


@pytest.mark.parametrize("command", [("messages", "list"), ("export",), ("redeliver", "--state", "dead", "--account")])
def test_an_empty_result_of_an_account_that_was_never_used_says_so(
    call: Run, service: Sandbox, command: tuple[str, ...]
) -> None:
    assert call(*command, "0000999999-00009").err == (
        "fotahook: account '0000999999-00009' is unknown: it never had a callback or a message; check the name\n"
    )
    service.register(ACCOUNT)
    assert call(*command, ACCOUNT).err == ""


def test_an_unusual_account_name_is_warned_of(call: Run, service: Sandbox) -> None:
    service.publish("123456", {})
    for command in (("accounts", "show"), ("messages", "list"), ("export",)):
        result = call(*command, "123456")
        assert result.code == 0
        assert result.err.startswith("fotahook: account '123456': ThingSpace's accounts are usually ten digits, a dash")


def test_an_account_without_a_limit_of_its_own_shows_the_services_default(call: Run, service: Sandbox) -> None:
    service.publish(ACCOUNT, {})
    columns, row = rows(call("accounts", "show", ACCOUNT).out)
    assert dict(zip(columns, row, strict=True))["in-flight limit"] == "service default"
