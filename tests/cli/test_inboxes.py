"""`fotahook messages` and `redeliver` on the inbox of a listener, in place of a service."""

import asyncio
import json
from pathlib import Path

import pytest

from fotahook import CallbackMessage, Listener
from fotahook.listener import receive
from fotahook.listener.intake import Verification
from fotahook.store import open_store
from tests.deadlines import DEADLINE

from .conftest import CommandResult, Run, is_one_line

ACCOUNT = "0000123456-00001"
INBOX = "sqlite:///inbox.db"
BODIES = [b'{"accountName": "0000123456-00001", "type": "t", "n": %d}' % number for number in range(3)]


class Handlers:
    """A listener whose handler refuses some messages."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self.handled: list[bytes] = []
        self._left = 0

    def receive(self, *bodies: bytes, handle: int = 0) -> None:
        """Store these, and run until they and so many others have been shown to the handler."""
        self._left = len(bodies) + handle
        asyncio.run(self._receive(bodies))

    async def _receive(self, bodies: tuple[bytes, ...]) -> None:
        listener = Listener(INBOX, schedule=(0.0,))
        done = asyncio.Event()

        @listener.on_any
        async def handle(message: CallbackMessage) -> None:
            self._left -= 1
            if self._left == 0:
                done.set()
            if message.raw in self.refused:
                raise RuntimeError("the database is away")
            self.handled.append(message.raw)

        async with listener.running(), asyncio.timeout(DEADLINE):
            store = await listener._inbox.store()
            await store.accept([receive({}, body, verification=Verification(), now=0.0) for body in bodies])
            await done.wait()


@pytest.fixture
def call(run: Run) -> Run:
    def call(*arguments: str) -> CommandResult:
        return run(*arguments, "--inbox", INBOX)

    return call


@pytest.fixture
def handlers(call: Run) -> Handlers:
    """One message of three is dead."""
    handlers = Handlers()
    handlers.refused = {BODIES[1]}
    handlers.receive(*BODIES)
    return handlers


def dead(call: Run) -> list[str]:
    result = call("messages", "list", ACCOUNT, "--state", "dead", "--json")
    return [json.loads(line)["id"] for line in result.out.splitlines()]


@pytest.mark.usefixtures("handlers")
def test_dead_messages_are_listed_and_shown_with_their_traceback(call: Run) -> None:
    assert len(call("messages", "list", ACCOUNT).out.splitlines()) == 4
    assert len(call("messages", "list", ACCOUNT, "--limit", "2", "--type", "t").out.splitlines()) == 3
    (message_id,) = dead(call)
    shown = call("messages", "show", message_id).out
    assert "handlers\tdead\t1" in shown
    assert "\t\tRuntimeError: the database is away\t" in shown
    assert shown.splitlines()[-1] == "RuntimeError: the database is away"
    assert "\nHandlers._receive.<locals>.handle\nTraceback (most recent call last):\n" in shown
    shown = json.loads(call("messages", "show", message_id, "--json").out)
    assert (shown["deliveries"][0]["state"], shown["attempts"][0]["errorCode"]) == ("dead", "handler_error")
    assert call("messages", "show", message_id, "--body").out.encode() == BODIES[1]


def test_messages_without_an_account_are_listed_under_the_empty_name(call: Run) -> None:
    Handlers().receive(b'{"type": "nobody\'s"}', BODIES[0])
    assert json.loads(call("messages", "list", "", "--json").out)["type"] == "nobody's"


def test_it_is_handled_once_its_handler_is_mended(call: Run, handlers: Handlers) -> None:
    (message_id,) = dead(call)
    assert call("redeliver", message_id).out == f"id\tsent as\n{message_id}\t{message_id}\n"
    assert dead(call) == []
    handlers.refused = set()
    handlers.receive(handle=1)
    assert handlers.handled == [BODIES[0], BODIES[2], BODIES[1]]


def test_all_that_are_dead_are_counted_and_redelivered_although_no_listener_runs(call: Run, handlers: Handlers) -> None:
    wanted = ("redeliver", "--account", ACCOUNT, "--state", "dead")
    assert json.loads(call(*wanted, "--dry-run", "--json").out)["count"] == 1
    assert json.loads(call(*wanted, "--until", "1h", "--json").out)["count"] == 0
    assert len(dead(call)) == 1
    assert json.loads(call(*wanted, "--since", "1h", "--json").out)["count"] == 1
    assert dead(call) == []
    handlers.refused = set()
    handlers.receive(handle=1)
    assert handlers.handled[-1] == BODIES[1]


def test_a_pending_or_unknown_message_is_not_redelivered(call: Run, handlers: Handlers) -> None:
    (message_id,) = dead(call)
    call("redeliver", message_id)
    result = call("redeliver", "nothing", message_id)
    assert (result.code, result.out) == (4, "")
    unknown, pending = result.err.splitlines()
    assert unknown == "fotahook: nothing: there is no such message in the inbox; check the id"
    assert pending.startswith(f"fotahook: {message_id}: the message is not settled yet")
    for command in ("show", "show --body"):
        alone = call("messages", *command.split(), "nothing")
        assert (alone.code, is_one_line(alone.err)) == (4, True)


@pytest.mark.usefixtures("handlers")
def test_a_pruned_body_is_reported(call: Run, tmp_path: Path) -> None:
    (message_id,) = dead(call)

    async def remove() -> None:
        store = await open_store(f"sqlite:///{tmp_path}/inbox.db")
        await store._writer.run(lambda db: db.execute("delete from bodies"))  # type: ignore[attr-defined]
        await store.close()

    asyncio.run(remove())
    for command in (("messages", "show", message_id, "--body"), ("redeliver", message_id)):
        result = call(*command)
        assert (result.code, result.out, is_one_line(result.err)) == (4, "", True)
        assert "removed by retention" in result.err


@pytest.mark.usefixtures("handlers")
def test_a_delivery_of_a_service_is_not_made_up(call: Run) -> None:
    result = call("messages", "show", dead(call)[0], "--as", "curl")
    assert (result.code, result.out, is_one_line(result.err)) == (2, "", True)
