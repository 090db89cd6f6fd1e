"""The listener as an ASGI app: what it answers, what is on disk then, and how it starts and stops."""

import asyncio
import contextlib
import functools
import logging
import math
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fotahook.contract import signing
from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context, Listener, Verification
from fotahook.listener.intake import BODY_LIMIT, SMALL_BODY, receive
from fotahook.listener.requests import RECENT_SECONDS
from fotahook.store import SqliteStore
from fotahook.store.records import Accepted, NewMessage, StoreError
from tests.deadlines import DEADLINE
from tests.modes import modes_bind
from tests.turns import counted_turns

from .conftest import NOW, PROGRESS, SECRET, SEED, Answer, Seen, by_hmac, reading, request, stored

Make = Callable[..., Listener]
NAN = float("nan")


class HungUp(Exception):
    """The sender goes away."""


# Taking messages


async def test_a_message_is_on_disk_when_it_is_answered(make: Make, inbox: str) -> None:
    """Seen through a connection of its own, while the handler has not begun."""
    listener, hold = make(), asyncio.Event()

    @listener.on_any
    async def handler(message: CallbackMessage) -> None:
        await hold.wait()

    async with listener.running():
        answer = await request(listener, PROGRESS[:10], PROGRESS[10:])
        kept = await stored(inbox, answer.json["id"])
        hold.set()
    assert (answer.status, answer.json["duplicate"]) == (200, False)
    assert (kept.body, kept.account, kept.deliveries[0].state) == (PROGRESS, "0000123456-00001", "pending")


async def test_a_handler_is_called_once_with_the_bytes(make: Make, inbox: str, seen: Seen) -> None:
    listener = make()

    @listener.on("upgradeProgress", status="InProgress")
    async def handler(message: CallbackMessage, context: Context) -> None:
        seen.add((message.raw, context))

    async with listener.running():
        answer = await request(listener, PROGRESS)
        await seen.wait(1)
    assert seen.items == [(PROGRESS, Context(id=answer.json["id"], attempt=1, received_at=NOW))]
    assert (await stored(inbox, answer.json["id"])).deliveries[0].state == "delivered"


async def test_other_requests_go_on_between_long_bodies(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[tuple[int, str]]()

    def parse(headers: object, body: bytes, **options: Any) -> NewMessage:
        message = receive({}, body, **options)
        parsed.append((turns(), message.account))
        return message

    monkeypatch.setattr("fotahook.listener.requests.receive", parse)
    listener = make()
    async with listener.running():
        long = b'{"accountName": "%b", "a": "' + b"x" * SMALL_BODY + b'"}'
        greedy = [request(listener, long % b"greedy", client="192.0.2.1") for _ in range(8)]
        with counted_turns() as turns:
            await asyncio.gather(*greedy, request(listener, long % b"modest", client="192.0.2.2"))
    # No two in one turn, and the one of another sender is the second.
    assert len({turn for turn, _ in parsed}) == len(parsed) == 9
    assert [account for _, account in parsed].index("modest") == 1


@pytest.mark.parametrize("headers", [{}, {"webhook-id": "msg-1"}])
async def test_duplicates_are_dropped(make: Make, inbox: str, seen: Seen, headers: dict[str, str]) -> None:
    listener = make()
    listener.on_any(seen.add)
    async with listener.running():
        first, *others = [await request(listener, PROGRESS, headers=headers) for _ in range(3)]
        concurrent = await asyncio.gather(*(request(listener, PROGRESS, headers=headers) for _ in range(20)))
        await seen.wait(1)
    assert {(answer.status, answer.json["id"], answer.json["duplicate"]) for answer in (*others, *concurrent)} == {
        (200, first.json["id"], True)
    }
    assert len(seen.items) == 1
    assert (await stored(inbox, first.json["id"])).duplicates == 22


async def test_copies_from_different_addresses_at_the_same_moment_are_one_message(
    make: Make, inbox: str, seen: Seen
) -> None:
    """As ThingSpace sends them when an answer takes four seconds."""
    listener = make()
    listener.on_any(seen.add)
    tries = [b'{"callbackCount": %d, "maxCallbackThreshold": 4, "upgradeProgress": {"id": "c"}}' % n for n in (1, 2)]
    async with listener.running():
        answers = await asyncio.gather(
            request(listener, tries[0], client="3.87.163.45"), request(listener, tries[1], client="34.216.81.234")
        )
        await seen.wait(1)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(seen.items) == 1
    first = next(body for body, answer in zip(tries, answers, strict=True) if not answer.json["duplicate"])
    assert (await stored(inbox, answers[0].json["id"])).body == first


async def test_the_senders_user_agent_is_logged_at_debug(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    listener = make()
    with caplog.at_level(logging.DEBUG, "fotahook.listener"):
        async with listener.running():
            answer = await request(listener, PROGRESS, headers={"User-Agent": "Verizon's callback service\x1b"})
    (line,) = (message for message in caplog.messages if "User-Agent" in message)
    assert line.startswith(f"stored message {answer.json['id']} from 192.0.2.1, User-Agent: Verizon's callback service")
    assert line.isprintable()


@pytest.mark.parametrize(("options", "window"), [({}, 3600.0), ({"dedupe_window": 90.0}, 90.0)])
async def test_equal_bytes_without_an_id_are_a_duplicate_within_the_window(
    make: Make, seen: Seen, options: dict[str, float], window: float
) -> None:
    duplicates = []
    # Each in a run of its own: what is known is on disk.
    for now in (NOW, NOW + window - 0.25, NOW + window, NOW + window):
        listener = make(clock=functools.partial(float, now), **options)
        listener.on_any(seen.add)
        async with listener.running():
            duplicates.append((await request(listener, PROGRESS)).json["duplicate"])
    assert duplicates == [False, True, False, True]


async def test_a_window_of_0_accepts_duplicates_without_an_id(make: Make) -> None:
    listener = make(dedupe_window=0)
    async with listener.running():
        answers = await asyncio.gather(*(request(listener, PROGRESS) for _ in range(3)))
        named = [await request(listener, PROGRESS, headers={"webhook-id": "a"}) for _ in range(2)]
    assert [answer.json["duplicate"] for answer in (*answers, *named)] == [False, False, False, False, True]


async def test_an_id_with_different_bytes_is_a_conflict(make: Make, seen: Seen) -> None:
    listener = make()
    listener.on_any(seen.add)
    async with listener.running():
        assert (await request(listener, PROGRESS, headers={"webhook-id": "a"})).status == 200
        answer = await request(listener, PROGRESS + b" ", headers={"webhook-id": "a"})
        await seen.wait(1)
    assert answer.error == (409, "MESSAGE_REFUSED")
    assert len(seen.items) == 1


async def test_signed_messages_only_where_a_key_is_configured(make: Make, seen: Seen) -> None:
    listener = make(secrets=[signing.format_secret(bytes(24)), signing.format_secret(SECRET)])
    listener.on_any(seen.add)
    async with listener.running():
        assert (await request(listener, PROGRESS)).error == (401, "MESSAGE_REFUSED")
        refused = await request(listener, PROGRESS, headers=by_hmac(PROGRESS, key=b"another key of 24 bytes."))
        assert refused.error == (401, "MESSAGE_REFUSED")
        late = await request(listener, PROGRESS, headers=by_hmac(PROGRESS, timestamp=int(NOW) - 400))
        assert "400 s old" in late.json["errorMessage"]
        assert (await request(listener, PROGRESS, headers=by_hmac(PROGRESS))).status == 200
        assert (await request(listener, PROGRESS, headers=by_hmac(PROGRESS))).json["duplicate"]
        await seen.wait(1)
    assert len(seen.items) == 1


async def test_header_names_are_read_in_any_case_and_once_only(make: Make) -> None:
    listener = make(secrets=[signing.format_secret(SECRET)])
    headers = [(name.title(), value) for name, value in by_hmac(PROGRESS).items()]
    async with listener.running():
        assert (await request(listener, PROGRESS, headers=headers)).status == 200
        twice = await request(listener, PROGRESS, headers=[*headers, ("WEBHOOK-ID", "msg-2")])
    assert twice.error == (400, "MESSAGE_REFUSED")
    assert "the header webhook-id is repeated" in twice.json["errorMessage"]


async def test_forwarded_addresses_count_only_behind_a_trusted_proxy(make: Make) -> None:
    """The peer of these requests is 192.0.2.1."""
    forwarded = [("X-Forwarded-For", "203.0.113.5"), ("x-forwarded-for", "198.51.100.7")]
    for options, headers, status in (
        ({"sources": ["192.0.2.0/24"]}, [], 200),
        ({"sources": ["198.51.100.7/32"]}, [], 403),
        ({"sources": ["198.51.100.7/32"]}, forwarded, 403),
        ({"sources": ["198.51.100.7/32"], "trusted_proxies": ["192.0.2.1/32"]}, forwarded, 200),
        ({"sources": ["203.0.113.5/32"], "trusted_proxies": ["192.0.2.1/32"]}, forwarded, 403),
        ({"trusted_proxies": ["192.0.2.1/32"]}, forwarded, 200),
    ):
        listener = make(**options)
        async with listener.running():
            assert (await request(listener, PROGRESS, headers=headers)).status == status


async def test_a_message_from_another_network_is_rejected_before_its_body_is_read(make: Make) -> None:
    answer = await request(make(sources=["198.51.100.0/24"]), asyncio.Event())
    assert answer.error == (403, "MESSAGE_REFUSED")
    assert "192.0.2.1" in answer.json["errorMessage"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "is missing"),
        (by_hmac(b"", timestamp=int(NOW) - 400), "400 s old"),
        (by_hmac(b"") | {"webhook-signature": " ".join([f"v1a,{'A' * 85}A=="] * 44)}, "more than 4 signatures"),
    ],
)
async def test_a_message_whose_signature_cannot_be_right_is_rejected_before_its_body_is_read(
    make: Make, headers: dict[str, str], reason: str
) -> None:
    answer = await request(make(public_keys=[signing.format_public_key(SEED)]), asyncio.Event(), headers=headers)
    assert answer.error == (401, "MESSAGE_REFUSED")
    assert reason in answer.json["errorMessage"]


async def test_a_password_and_a_signature_can_both_be_required(make: Make) -> None:
    listener = make(basic=("user", "hunter2"), secrets=[signing.format_secret(SECRET)])
    good, bad = (b'{"username": "user", "password": "%s"}' % password for password in (b"hunter2", b"hunter3"))
    async with listener.running():
        assert (await request(listener, good)).status == 401
        assert (await request(listener, bad, headers=by_hmac(bad))).status == 401
        assert (await request(listener, good, headers=by_hmac(good))).status == 200


async def test_bodies_under_way_have_a_budget_and_each_sender_a_share(make: Make) -> None:
    listener = make()
    half = b"x" * (BODY_LIMIT // 2)
    async with listener.running():
        rest = asyncio.Event()
        stalled = [asyncio.create_task(request(listener, half, rest, b"", client="192.0.2.1")) for _ in range(100)]
        refused: set[asyncio.Task[Answer]] = set()
        while len(refused) < 100 - 64:
            done, _ = await asyncio.wait({*stalled} - refused, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        assert {task.result().error for task in refused} == {(503, "MESSAGE_REFUSED")}
        assert (await request(listener, half, client="192.0.2.1")).status == 503
        # Small ones need no room of their own.
        assert (await request(listener, PROGRESS, client="192.0.2.1")).status == 200
        assert (await request(listener, half, client="192.0.2.2")).status == 400
        rest.set()
        assert {(await task).status for task in stalled if task not in refused} == {400}
        assert (await request(listener, half, client="192.0.2.1")).status == 400


# Refusing


@pytest.mark.parametrize(
    ("method", "path", "error", "allow"),
    [
        ("POST", "/other", (404, "NOT_FOUND"), None),
        ("GET", "/other", (404, "NOT_FOUND"), None),
        ("POST", "/hooks/secret/more", (404, "NOT_FOUND"), None),
        ("POST", "/", (404, "NOT_FOUND"), None),
        ("GET", "/hooks/secret", (405, "METHOD_NOT_ALLOWED"), "POST"),
        ("PUT", "/hooks/secret", (405, "METHOD_NOT_ALLOWED"), "POST"),
        ("OPTIONS", "/hooks/secret/", (405, "METHOD_NOT_ALLOWED"), "POST"),
        # A sender pointed at the wrong path must not believe that its message was taken.
        ("POST", "/healthz", (405, "METHOD_NOT_ALLOWED"), "GET, HEAD"),
    ],
)
async def test_wrong_paths_and_methods_are_json_errors_without_the_right_path(
    make: Make, method: str, path: str, error: tuple[int, str], allow: str | None
) -> None:
    answer = await request(make(path="/hooks/secret"), PROGRESS, method=method, path=path)
    assert answer.error == error
    assert answer.headers.get("allow") == allow
    assert "secret" not in answer.body.decode()


async def test_posts_to_another_path_are_logged_once_a_minute_without_the_path(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    moments = [NOW]
    listener = make(path="/hooks/secret", clock=lambda: moments[-1])
    for moment, lines in ((NOW, 1), (NOW + 59, 1), (NOW + 60, 2), (NOW + 119, 2), (NOW - 3600, 3)):
        moments.append(moment)
        for method in ("POST", "GET"):
            assert (await request(listener, PROGRESS, method=method, path="/hooks/secre")).status == 404
        assert len(caplog.records) == lines
    counted = [record.getMessage().partition(" since")[0].rpartition("(")[2] for record in caplog.records]
    assert counted == ["1", "2", "2"]
    assert "secre" not in caplog.text


@pytest.mark.parametrize(
    ("configured", "asked"),
    [("/a", "/a"), ("/a", "/a/"), ("/a/", "/a"), ("/", "/"), ("/ü", "/ü"), ("/%C3%BC%20/x%3Fy/", "/ü /x?y")],
)
async def test_a_path_is_found_as_servers_decode_it_with_a_slash_at_the_end_or_without(
    make: Make, configured: str, asked: str
) -> None:
    listener = make(path=configured)
    async with listener.running():
        assert (await request(listener, PROGRESS, path=asked)).status == 200


async def test_invalid_json_is_rejected_and_logged_without_its_bytes(
    make: Make, inbox: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await request(make(), b"password=hunter2")
    assert answer.error == (400, "MESSAGE_REFUSED")
    assert "rejected a message with 400 from 192.0.2.1: the body is not JSON" in caplog.text
    assert "hunter2" not in caplog.text + answer.body.decode()
    # Nothing to store: the inbox was not even opened.
    assert not Path(inbox.removeprefix("sqlite:///")).exists()


async def test_a_body_with_a_content_length_that_is_too_long_is_not_read(make: Make) -> None:
    never = asyncio.Event()
    answer = await request(make(), never, headers={"content-length": str(BODY_LIMIT + 1)})
    assert answer.error == (413, "MESSAGE_REFUSED")
    assert answer.headers["connection"] == "close"
    longer = await request(make(), never, headers={"content-length": "9" * 5000}, http_version="2")
    assert longer.error == (413, "MESSAGE_REFUSED")
    assert "connection" not in longer.headers


async def test_a_body_without_a_content_length_is_read_up_to_the_limit(make: Make) -> None:
    never = asyncio.Event()
    answer = await request(make(), b" " * BODY_LIMIT, b" ", never, headers={"content-length": "garbage"})
    assert answer.error == (413, "MESSAGE_REFUSED")


async def test_a_body_that_does_not_arrive_in_time_is_408(make: Make) -> None:
    answer = await request(make(body_timeout=0.001), b"{", asyncio.Event())
    assert answer.error == (408, "REQUEST_TIMEOUT")
    assert "within 0.001 s" in answer.json["errorMessage"]


async def test_the_body_timeout_can_be_configured_until_the_inbox_is_open(make: Make) -> None:
    listener = make(body_timeout=3600)
    assert (await request(listener, b"{")).status == 400
    listener.configure(body_timeout=0.001)
    assert listener.settings.body_timeout == 0.001
    assert (await request(listener, b"{", asyncio.Event())).status == 408


def test_the_body_timeout_works_in_one_event_loop_after_the_other(make: Make) -> None:
    listener = make(body_timeout=0.05)
    for _ in range(2):
        # A timer that is still set ends with its loop.
        assert asyncio.run(request(listener, b"{")).error == (400, "MESSAGE_REFUSED")
        assert asyncio.run(request(listener, b"{", asyncio.Event())).error == (408, "REQUEST_TIMEOUT")


async def test_a_request_in_another_event_loop_does_not_affect_the_body_timeout_in_this_one(make: Make) -> None:
    listener = make(body_timeout=2, accept_timeout=0.1)
    async with listener.running():
        stalled = asyncio.create_task(request(listener, b"{", asyncio.Event()))
        await asyncio.sleep(0)
        elsewhere = await asyncio.to_thread(asyncio.run, request(listener, PROGRESS))
        assert elsewhere.error == (503, "INBOX_AWAY")
        assert not stalled.done()
        # Not by the deadline that the request of the test has, which would end it with the same answer.
        ended, _ = await asyncio.wait({stalled}, timeout=DEADLINE / 2)
        assert {task.result().error for task in ended} == {(408, "REQUEST_TIMEOUT")}


async def test_a_body_that_is_cut_off_is_not_stored(make: Make, inbox: str) -> None:
    """By its sender or by the server, of which only the latter knows."""
    answer = await request(make(), b"{}", HungUp())
    assert answer.error == (400, "MESSAGE_REFUSED")
    assert answer.json["errorMessage"] == "the body ended before it was complete"
    assert not Path(inbox.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("client", "forwarded", "sender"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.5, 198.51.100.7", "198.51.100.7"),
        ("192.0.2.9", "198.51.100.7", "192.0.2.9"),  # no proxy that is trusted
        ("192.0.2.1", "nobody", "192.0.2.1"),
        ("evil\n\x1b[31m" + "x" * 500, None, "evil [31m" + "x" * 90 + "…"),
        (None, None, "an unknown address"),
    ],
)
async def test_the_log_of_a_rejection_has_the_sender(
    make: Make, caplog: pytest.LogCaptureFixture, client: str | None, forwarded: str | None, sender: str
) -> None:
    listener = make(secrets=[signing.format_secret(SECRET)], trusted_proxies=["192.0.2.1/32"])
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert (await request(listener, PROGRESS, headers=headers, client=client)).status == 401
    assert f"rejected a message with 401 from {sender}: " in caplog.messages[-1]
    twice = [("webhook-id", "a"), ("webhook-id", "b")]
    assert (await request(listener, PROGRESS, headers=twice)).status == 400
    assert "rejected a message with 400 from 192.0.2.1: " in caplog.messages[-1]


@pytest.mark.parametrize(
    ("damage", "error"),
    [("drop table pending", (503, "INBOX_AWAY")), ("pragma max_page_count = 1", (507, "INBOX_FULL"))],
)
async def test_a_message_that_cannot_be_stored_is_an_error(
    make: Make, inbox: str, damage: str, error: tuple[int, str], caplog: pytest.LogCaptureFixture, seen: Seen
) -> None:
    """The sender learns only that; where and why stands in the log."""
    listener = make(accept_timeout=DEADLINE if error[0] == 507 else 0.5)
    listener.on_any(seen.add)
    async with listener.running():
        handling = await listener._inbox.open()
        assert isinstance(handling.store, SqliteStore)
        await handling.store._writer.run(lambda db: db.execute(damage))
        answer = await request(listener, b'"' + b"x" * 100_000 + b'"')
        # On a busy machine the time may be over before the reason is known.
        while "SQLite" not in caplog.text:
            answer = await request(listener, b'"' + b"x" * 100_000 + b'"')
    assert answer.error == error
    assert answer.headers.get("retry-after") == ("5" if error[0] == 503 else None)
    assert "SQLite" not in answer.body.decode()
    assert seen.items == []


async def test_a_message_that_finds_no_room_fails_alone(make: Make) -> None:
    """Messages that arrive together are stored together."""
    listener = make()
    async with listener.running():
        handling = await listener._inbox.open()
        assert isinstance(handling.store, SqliteStore)

        def leave_little_room(db: sqlite3.Connection) -> None:
            (pages,) = db.execute("pragma page_count").fetchone().values()
            db.execute(f"pragma max_page_count = {pages + 30}")

        await handling.store._writer.run(leave_little_room)
        bodies = (b"1", b'"' + b"x" * 500_000 + b'"', b"2")
        answers = await asyncio.gather(*(request(listener, body) for body in bodies))
    assert [answer.status for answer in answers] == [200, 507, 200]


async def test_an_inbox_that_is_away_is_tried_until_it_is_back(make: Make, tmp_path: Path) -> None:
    """ThingSpace sends a message that was answered with 503 once more at most."""
    (tmp_path / "inbox.db").mkdir()
    listener = make()
    answering = asyncio.create_task(request(listener, PROGRESS))
    # It may also be tried for the first time only afterwards.
    await asyncio.sleep(0)
    (tmp_path / "inbox.db").rmdir()
    assert (await answering).status == 200
    await listener._inbox.close()


async def test_a_message_keeps_its_time_beside_one_whose_time_is_over(make: Make) -> None:
    """They may have waited together for the messages before them."""
    listener = make()
    now = asyncio.get_running_loop().time()
    async with listener.running():
        arrived = [(NewMessage(account="a", body=b"1"), now - DEADLINE), (NewMessage(account="a", body=b"2"), now)]
        assert [type(one) for one in await listener._inbox._store(arrived)] == [Accepted, Accepted]


async def test_an_inbox_that_does_not_respond_is_answered_with_503_in_time(make: Make, inbox: str) -> None:
    listener = make(accept_timeout=0.2)
    async with listener.running():
        with contextlib.closing(sqlite3.connect(inbox.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("begin immediate")
            assert (await request(listener, PROGRESS)).error == (503, "INBOX_AWAY")
        again = make()
    async with again.running():
        assert (await request(again, PROGRESS)).status == 200


# Health


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_is_read_with_get_or_head_before_and_after_the_first_message(make: Make, method: str) -> None:
    listener = make(path="/hooks")
    assert (await request(listener, method=method, path="/healthz")).json == {"status": "ok"}
    async with listener.running():
        assert (await request(listener, method=method, path="/healthz")).status == 200


async def test_health_is_bad_when_messages_are_no_longer_handled(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages are still taken: they are handled after a restart."""
    listener = make()

    async def broken(self: object, limit: int, seconds: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SqliteStore, "lease", broken)
    async with listener.running():
        dispatching = (await listener._inbox.open()).dispatching
        assert dispatching is not None
        await asyncio.wait({dispatching})
        answer = await request(listener, method="GET", path="/healthz")
        taken = await request(listener, PROGRESS)
    assert answer.error == (503, "NOT_HANDLING")
    assert taken.status == 200
    assert "messages are stored but no longer handled" in caplog.text


@pytest.fixture
def looked_at_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health tries the inbox each time that it is asked for, and soon gives up."""
    monkeypatch.setattr("fotahook.store.base.CHECK_SECONDS", 0.0)
    monkeypatch.setattr("fotahook.store.sqlite.connection.BUSY_SECONDS", 0.01)


async def health(listener: Listener) -> Answer:
    return await request(listener, method="GET", path="/healthz")


@pytest.mark.usefixtures("looked_at_always")
async def test_health_is_bad_while_the_inbox_is_locked(
    make: Make, inbox: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before anybody's message has failed, and with nobody sending any."""
    listener = make()
    async with listener.running():
        with contextlib.closing(sqlite3.connect(inbox.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("begin immediate")
            for answer in [await health(listener) for _ in range(2)]:
                assert (answer.error, answer.headers["retry-after"]) == ((503, "INBOX_AWAY"), "5")
                assert "inbox.db" not in answer.body.decode()
        assert (await health(listener)).json == {"status": "ok"}
    (line,) = (message for message in caplog.messages if message.startswith("the inbox is unavailable"))
    assert line.endswith("inbox.db: database is locked (SQLITE_BUSY); another process holds it: let that one end")


@pytest.mark.usefixtures("looked_at_always")
async def test_health_is_bad_for_a_while_after_a_message_found_no_room(make: Make) -> None:
    now = [NOW]
    listener = make(clock=lambda: now[0])
    large = b'"' + b"x" * 100_000 + b'"'
    async with listener.running():
        handling = await listener._inbox.open()
        assert isinstance(handling.store, SqliteStore)
        await handling.store._writer.run(lambda db: db.execute("pragma max_page_count = 1"))
        for later in (RECENT_SECONDS, -1.0):
            assert (await request(listener, large)).error == (507, "INBOX_FULL")
            assert (await health(listener)).error == (503, "INBOX_FULL")
            # A load balancer that stopped sending begins again; a clock set back makes no difference.
            now[0] += later
            assert (await health(listener)).status == 200
        assert (await request(listener, large)).status == 507
        await handling.store._writer.run(lambda db: db.execute("pragma max_page_count = 1000000"))
        assert (await health(listener)).status == 503
        assert (await request(listener, large)).status == 200
        assert (await health(listener)).status == 200


async def test_health_is_bad_after_a_message_could_not_open_the_inbox(make: Make, tmp_path: Path) -> None:
    (tmp_path / "inbox.db").mkdir()
    listener = make(accept_timeout=0.1)
    assert (await health(listener)).status == 200
    assert (await request(listener, PROGRESS)).status == 503
    assert (await health(listener)).error == (503, "INBOX_AWAY")


# Handling


async def test_a_handler_that_fails_is_retried(make: Make, inbox: str, seen: Seen) -> None:
    listener = make()

    @listener.on_any
    def handler(message: CallbackMessage, context: Context) -> None:
        if context.attempt < 3:
            raise ValueError(f"attempt {context.attempt}")
        loop.call_soon_threadsafe(seen.add, context.attempt)

    loop = asyncio.get_running_loop()
    async with listener.running():
        answer = await request(listener, PROGRESS)
        assert await seen.wait(1) == [3]
    async with reading(inbox) as store:
        attempts = await store.attempts(answer.json["id"])
    assert [attempt.error_code for attempt in attempts] == ["handler_error", "handler_error", None]
    assert "ValueError: attempt 2" in (attempts[1].excerpt or "")


async def test_a_message_that_fails_on_every_attempt_is_dead(make: Make, inbox: str, seen: Seen) -> None:
    """And lets the next one of its campaign through."""
    listener = make(schedule=(0.0, 0.0))

    @listener.on_any
    async def handler(message: CallbackMessage, context: Context) -> None:
        if message.extra.get("poison"):
            raise ValueError
        seen.add(context.id)

    async with listener.running():
        poison = await request(listener, b'{"poison": true, "campaign": {"id": "c"}}')
        good = await request(listener, b'{"campaign": {"id": "c"}}')
        assert await seen.wait(1) == [good.json["id"]]
    placement = (await stored(inbox, poison.json["id"])).deliveries[0]
    assert (placement.state, placement.attempts) == ("dead", 2)


async def test_a_handler_that_hangs_holds_up_no_other_campaign(make: Make, seen: Seen) -> None:
    listener = make()
    hangs, let_go = asyncio.Event(), asyncio.Event()

    @listener.on_any
    async def handle(message: CallbackMessage) -> None:
        if message.campaign_id == "c-1":
            hangs.set()
            await let_go.wait()
        seen.add(message.campaign_id)

    async with listener.running():
        await request(listener, PROGRESS)
        await hangs.wait()
        for campaign in (b"c-2", b"c-3", b"c-4"):
            await request(listener, PROGRESS.replace(b"c-1", campaign))
        assert sorted(await seen.wait(3)) == ["c-2", "c-3", "c-4"]
        let_go.set()
        assert (await seen.wait(4))[-1] == "c-1"


async def test_messages_about_one_device_are_handled_in_the_order_of_their_arrival(make: Make, seen: Seen) -> None:
    listener = make()

    @listener.on_any
    async def handler(message: CallbackMessage, context: Context) -> None:
        number = message.extra["n"]
        if number == 0 and context.attempt < 3:
            raise ValueError
        await asyncio.sleep(0)
        seen.add(number)

    async with listener.running():
        for number in range(10):
            body = b'{"n": %d, "upgradeProgress": {"deviceList": [{"deviceId": "d"}]}}' % number
            assert (await request(listener, body)).status == 200
        assert await seen.wait(10) == list(range(10))


async def test_handlers_may_be_added_while_the_listener_runs(make: Make, seen: Seen) -> None:
    listener = make()
    async with listener.running():
        listener.on_any(seen.add)
        await request(listener, PROGRESS)
        await seen.wait(1)


# Starting and stopping


async def test_closing_waits_for_running_handlers(make: Make, inbox: str, seen: Seen) -> None:
    listener, begun, hold = make(), asyncio.Event(), asyncio.Event()

    @listener.on_any
    async def handler(message: CallbackMessage) -> None:
        begun.set()
        await hold.wait()
        seen.add("done")

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(listener.running())
        answer = await request(listener, PROGRESS)
        await begun.wait()
        closing = asyncio.create_task(stack.aclose())
        await asyncio.sleep(0)
        # It can no longer be known whether a message that comes now would be stored.
        assert (await request(listener, b"{}")).error == (503, "INBOX_AWAY")
        assert not closing.done()
        hold.set()
        await closing
    assert seen.items == ["done"]
    assert (await stored(inbox, answer.json["id"])).deliveries[0].state == "delivered"


async def test_messages_that_were_not_handled_are_handled_after_a_restart(make: Make, seen: Seen) -> None:
    first, begun = make(), asyncio.Event()

    @first.on_any
    async def stuck(message: CallbackMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    await request(first, PROGRESS)
    await begun.wait()
    # As if the process had died: what is in hand is never settled.
    dispatching = (await first._inbox.open()).dispatching
    assert dispatching is not None
    dispatching.cancel()
    await asyncio.wait({dispatching})
    await first._inbox.close()

    second = make()
    second.on_any(seen.add)
    async with second.running():
        (message,) = await seen.wait(1)
    assert message.raw == PROGRESS


async def test_a_message_whose_handler_does_not_end_stays_pending(make: Make, inbox: str) -> None:
    listener, begun = make(), asyncio.Event()

    @listener.on_any
    async def stuck(message: CallbackMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with listener.running():
        answer = await request(listener, PROGRESS)
        await begun.wait()
        # Closing waits for no longer than an attempt may take and this.
        listener._inbox.margin = -listener.settings.handler_timeout - 1
    assert (await stored(inbox, answer.json["id"])).deliveries[0].state == "pending"


async def test_the_inbox_is_opened_by_the_first_message_where_no_lifespan_is_sent(make: Make, seen: Seen) -> None:
    listener = make()
    listener.on_any(seen.add)
    bodies = [b'{"n": %d}' % number for number in range(20)]
    answers = await asyncio.gather(*(request(listener, body) for body in bodies))
    assert {answer.status for answer in answers} == {200}
    assert sorted(message.raw for message in await seen.wait(20)) == sorted(bodies)
    await listener._inbox.close()


async def test_a_first_sender_that_goes_away_does_not_stop_the_opening_for_others(make: Make) -> None:
    listener = make()
    first = asyncio.create_task(request(listener, b"1"))
    second = asyncio.create_task(request(listener, b"2"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert listener._inbox.opening is not None
    first.cancel()
    assert (await second).status == 200
    await listener._inbox.close()


async def test_opening_the_inbox_is_retried(make: Make, tmp_path: Path, inbox: str) -> None:
    (tmp_path / "inbox.db").mkdir()
    listener = make(accept_timeout=0.1)
    answers = await asyncio.gather(*(request(listener, PROGRESS) for _ in range(3)))
    assert {answer.error for answer in answers} == {(503, "INBOX_AWAY")}
    assert str(tmp_path) not in answers[0].body.decode()
    (tmp_path / "inbox.db").rmdir()
    while (await request(listener, PROGRESS)).status != 200:
        pass
    await listener._inbox.close()


async def test_a_listener_may_run_again(make: Make, seen: Seen) -> None:
    listener = make()
    listener.on_any(seen.add)
    for number in range(3):
        async with listener.running() as same:
            assert same is listener
            await request(listener, b"%d" % number)
            await seen.wait(number + 1)
    await listener._inbox.close()
    assert len(seen.items) == 3


def test_one_listener_serves_one_event_loop_after_the_other(make: Make, seen: Seen) -> None:
    """Made outside of any loop, as in a module; loops that end without a word are those of some test clients."""
    listener = make()
    listener.on_any(lambda message: seen.add(message.raw))
    for number in range(3):
        answers = asyncio.run(several(listener, number))
        assert {answer.status for answer in answers} == {200}
    asyncio.run(finish(listener, seen))
    assert {b"[%d, %d]" % (number, other) for number in range(3) for other in range(3)} == set(seen.items)


async def test_an_inbox_that_another_loop_left_open_and_cannot_be_closed_is_logged(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener = make()
    closes, close = [], SqliteStore.close

    async def close_and_fail_once(store: SqliteStore) -> None:
        await close(store)
        closes.append(store)
        if len(closes) == 1:
            raise RuntimeError("attached to a different loop")

    monkeypatch.setattr(SqliteStore, "close", close_and_fail_once)
    await asyncio.to_thread(lambda: asyncio.run(request(listener, PROGRESS)))
    assert (await request(listener, PROGRESS)).json["duplicate"]
    await listener._inbox.close()
    assert "could not be closed" in caplog.text
    assert len(closes) == 2


async def several(listener: Listener, number: int) -> list[Answer]:
    return await asyncio.gather(*(request(listener, b"[%d, %d]" % (number, other)) for other in range(3)))


async def finish(listener: Listener, seen: Seen) -> None:
    async with listener.running():
        # What was in hand when a loop ended is handled twice.
        while len(set(seen.items)) < 9:
            await seen.wait(len(seen.items) + 1)


async def test_two_loops_at_once_are_refused(make: Make) -> None:
    listener = make(accept_timeout=0.1)
    async with listener.running():
        answer = await asyncio.to_thread(lambda: asyncio.run(request(listener, PROGRESS)))
    assert answer.error == (503, "INBOX_AWAY")


async def lifespan(app: ASGIApp) -> AsyncIterator[Message]:
    """The app's side of the lifespan protocol; each step of the iteration sends the next event."""
    inward, outward = asyncio.Queue[Message](), asyncio.Queue[Message]()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    task = asyncio.ensure_future(app(scope, inward.get, outward.put))
    for event in ("startup", "shutdown"):
        inward.put_nowait({"type": f"lifespan.{event}"})
        async with asyncio.timeout(DEADLINE):
            yield await outward.get()
    await task


async def test_the_lifespan_opens_and_closes_the_inbox(make: Make, seen: Seen) -> None:
    listener = make()
    listener.on_any(seen.add)
    events = lifespan(listener)
    assert await anext(events) == {"type": "lifespan.startup.complete"}
    assert listener._inbox.opening is not None
    await request(listener, PROGRESS)
    await seen.wait(1)
    assert await anext(events) == {"type": "lifespan.shutdown.complete"}
    assert listener._inbox.opening is None
    assert await anext(events, None) is None
    assert len(seen.items) == 1


@pytest.mark.parametrize(
    ("inbox", "reason"),
    [
        ("sqlite:////nowhere/at/all/inbox.db", "cannot open the store /nowhere/at/all/inbox.db"),
        ("mysql://x", "not the URL of a store"),
        ("sqlite:////proc/version", "/proc/version"),
    ],
)
async def test_a_failed_start_says_why(inbox: str, reason: str) -> None:
    listener = Listener(inbox)
    answer = await anext(lifespan(listener))
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("the listener cannot start: ")
    assert reason in answer["message"]
    with pytest.raises((StoreError, ValueError), match=reason):
        async with listener.running():
            pass


async def test_a_read_only_inbox_fails_at_the_start(make: Make, inbox: str) -> None:
    """Or every message would be refused, by a listener that seems well."""
    file = Path(inbox.removeprefix("sqlite:///"))
    async with make().running():
        pass
    file.chmod(0o444)
    with modes_bind():
        answer = await anext(lifespan(make()))
    assert answer["type"] == "lifespan.startup.failed"
    assert f"cannot open the store {file}: " in answer["message"]
    assert f"the right to write to {file}" in answer["message"]


async def test_a_second_process_on_an_inbox_logs_that_it_stands_by(
    make: Make, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fotahook.delivery")
    first, second = make(), make()
    first.on_any(lambda message: seen.add("first"))
    second.on_any(lambda message: seen.add("second"))
    async with contextlib.AsyncExitStack() as beside:
        async with first.running():
            await request(first, PROGRESS)
            await seen.wait(1)
            await beside.enter_async_context(second.running())
            while not any("takes over when that one ends" in message for message in caplog.messages):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await request(second, b"{}")
        assert await seen.wait(2) == ["first", "second"]
    records = [record for record in caplog.records if record.name == "fotahook.delivery"]
    assert {record.levelno for record in records} == {logging.INFO}
    assert "stop it" not in caplog.text


async def test_missing_verification_is_logged_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    proofs: list[dict[str, Any]] = [
        {"secrets": [signing.format_secret(SECRET)]},
        {"sources": ["192.0.2.0/24"]},
        {"basic": ("user", "password")},
        {"path": "/in/0123456789abcdef"},
    ]
    open_to_all = [{"path": "/in"}, {"path": "/in/%C3%BC%C3%A4%C3%B6"}]
    for options in [*open_to_all, *proofs]:
        listener = make(**options)
        for _ in range(2):
            async with listener.running():
                await request(listener, PROGRESS, path="/in")
    warnings = [record for record in caplog.records if "senders are not verified" in record.getMessage()]
    assert [record.levelno for record in warnings] == [logging.WARNING] * len(open_to_all)


async def test_a_web_socket_is_closed(make: Make) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await make()({"type": "websocket"}, asyncio.Queue().get, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    with pytest.raises(ValueError, match="not smtp"):
        await make()({"type": "smtp"}, asyncio.Queue().get, send)


# Configuring


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"path": "callbacks"}, "a path must begin with /"),
        ({"path": ""}, "a path must begin with /"),
        ({"path": "/healthz"}, "the path /healthz is reserved"),
        ({"path": "/healthz/"}, "the path /healthz is reserved"),
        ({"path": "/%68ealthz"}, "the path /healthz is reserved"),
        ({"path": "/x?y"}, r"percent-encode '\?' in '/x\?y'"),
        ({"path": "/x#y"}, "percent-encode '#'"),
        ({"path": "/a b"}, "percent-encode ' ' in"),
        ({"path": "/a\n"}, r"percent-encode '\\n' in"),
        ({"secrets": ["whsec_AAAA"]}, "24 to 64 bytes"),
        ({"public_keys": ["whpk_AAAA"]}, "32 bytes"),
        ({"handler_timeout": 0}, "above 0"),
        ({"body_timeout": 0}, "body_timeout must be a number of seconds above 0"),
        ({"body_timeout": float("nan")}, "body_timeout must be a number of seconds above 0"),
        ({"schedule": ()}, "at least one"),
        ({"schedule": (0, -1)}, "each of 0 seconds or more"),
        ({"dedupe_window": -1}, "dedupe_window must be a number of seconds"),
        ({"dedupe_window": NAN}, "dedupe_window must be a number of seconds"),
        ({"handler_timeout": NAN}, "handler_timeout must be a number of seconds above 0"),
        ({"handler_timeout": math.inf}, "handler_timeout must be a number of seconds above 0"),
        ({"body_timeout": -1}, "body_timeout must be a number of seconds above 0"),
        ({"body_timeout": NAN}, "body_timeout must be a number of seconds above 0"),
        ({"keep_days": -1}, "keep_days must be a number of days, 0 or more"),
        ({"keep_days": NAN}, "keep_days must be a number of days, 0 or more"),
        ({"schedule": (0, NAN)}, "schedule must have at least one delay, each of 0"),
        ({"schedule": (0, math.inf)}, "schedule must have at least one delay, each of 0"),
    ],
)
def test_invalid_settings_raise_value_error(make: Make, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"handler_timeout": "30"}, "handler_timeout must be a number, not str"),
        ({"body_timeout": None}, "body_timeout must be a number, not NoneType"),
        ({"keep_days": True}, "keep_days must be a number, not bool"),
        ({"dedupe_window": "x"}, "dedupe_window must be a number, not str"),
        ({"schedule": 5}, "schedule must be a list"),
        ({"schedule": (0, "5")}, "each delay in schedule must be a number, not str"),
        ({"secrets": (5,)}, "secrets must have only strings, and one of them is int"),
        ({"secrets": "whsec_x"}, "secrets must be a list"),
        ({"public_keys": 5}, "public_keys must be a list"),
        ({"sources": [None]}, "sources must have only strings"),
        ({"path": 5}, "path must be a string, not int"),
    ],
)
def test_settings_of_the_wrong_type_raise_type_error(make: Make, options: dict[str, object], reason: str) -> None:
    with pytest.raises(TypeError, match=f"^{reason}"):
        make(**options)


def test_an_inbox_must_be_a_string(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="inbox must be a string, not PosixPath"):
        Listener(tmp_path)  # type: ignore[arg-type]  # what is tried here
    with pytest.raises(ValueError, match="inbox is empty"):
        Listener("")
    with pytest.raises(ValueError, match="inbox is empty"):
        Listener().configure(inbox="")


@pytest.mark.parametrize("asked", [{"kind": 5}, {"status": b"x"}, {"account": 123456}])
def test_the_filters_of_a_handler_must_be_strings(make: Make, asked: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be a string, not"):
        make().on(**asked)


async def test_configure_replaces_what_it_is_given(make: Make, tmp_path: Path) -> None:
    listener = make(path="/a", secrets=[signing.format_secret(SECRET)])
    before = listener.settings.inbox
    listener.configure()
    assert (listener.settings.path, listener.settings.inbox) == ("/a", before)
    listener.configure(path="/b", inbox=f"sqlite:///{tmp_path}/other.db", dedupe_window=60)
    assert (listener.settings.path, listener.settings.inbox) == ("/b", f"sqlite:///{tmp_path}/other.db")
    async with listener.running():
        assert (await request(listener, PROGRESS, path="/b")).status == 401
        assert (await request(listener, PROGRESS, path="/b", headers=by_hmac(PROGRESS))).status == 200
        with pytest.raises(RuntimeError, match="is running"):
            listener.configure(path="/c")
    with pytest.raises(ValueError, match="must begin with /"):
        listener.configure(path="c", verification=Verification.parse(secrets=[signing.format_secret(bytes(24))]))
    listener.configure(verification=Verification.parse(secrets=[signing.format_secret(bytes(24))]))
    async with listener.running():
        assert (await request(listener, b"{}", path="/b", headers=by_hmac(b"{}"))).status == 401


# Mounting


@pytest.mark.parametrize("mounted_at", ["/hooks", "/a/hooks/"])
async def test_mounted_in_an_app_it_finds_its_path_below_the_mount(make: Make, seen: Seen, mounted_at: str) -> None:
    listener = make()
    listener.on_any(seen.add)
    app = Starlette(routes=[Mount(mounted_at, listener)])
    mount = mounted_at.rstrip("/")
    assert (await request(app, PROGRESS, path=f"{mount}/")).status == 200
    assert (await request(app, PROGRESS, path=f"{mount}/other")).error == (404, "NOT_FOUND")
    assert (await request(app, method="GET", path=f"{mount}/healthz")).status == 200
    assert (await request(app, PROGRESS, path=f"{mount}/", root_path="/proxy")).json["duplicate"]
    await seen.wait(1)
    await listener._inbox.close()


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/in", 200),
        ("/root", "/root/in", 200),
        ("/root/", "/root/in", 200),
        ("/root", "/in", 200),  # hosts that take it off themselves
        ("/in", "/in", 404),
        ("/in", "/in/in", 200),
        ("/i", "/in", 200),  # only the beginning of a name
    ],
)
async def test_the_root_path_is_taken_off_where_the_path_begins_with_it(
    make: Make, root_path: str, path: str, status: int
) -> None:
    listener = make(path="/in")

    async def with_root(scope: Scope, receive: Receive, send: Send) -> None:
        await listener({**scope, "root_path": root_path}, receive, send)

    assert (await request(with_root, PROGRESS, path=path)).status == status
    await listener._inbox.close()


# Behind a real server


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The app behind uvicorn on a port of its own; requests before it is ready wait in the socket's queue."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, lifespan="on", ws="none", http="httptools", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_behind_a_server_messages_are_taken_refused_and_handled(make: Make, seen: Seen) -> None:
    listener = make(path="/hooks")
    listener.on_any(seen.add)
    async with served(listener) as base, aiohttp.ClientSession(base) as session:
        async with session.post("/hooks", data=PROGRESS, headers={"Content-Type": "text/plain"}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
        async with session.post("/hooks", data=pieces(b"[", b"1", b"]")) as answer:
            assert answer.status == 200
        async with session.post("/hooks", data=pieces(*[b" " * 65536] * 17)) as answer:
            assert answer.status == 413
        async with session.post("/hooks", data=PROGRESS) as answer:
            assert (await answer.json())["duplicate"]
        async with session.head("/healthz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with session.get("/hooks") as answer:
            assert answer.status == 405
        raw = [message.raw for message in await seen.wait(2)]
    assert raw == [PROGRESS, b"[1]"]


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_server_whose_listener_cannot_start_says_why_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    config = uvicorn.Config(Listener("sqlite:////nowhere/inbox.db"), lifespan="on", ws="none", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with pytest.raises(SystemExit):
        await server.startup()
    assert "the listener cannot start: cannot open the store /nowhere/inbox.db" in caplog.text
    assert "Traceback" not in caplog.text
