"""After a callback moved, its former path is still open for a while, also after a restart."""

import logging

import msgspec
import pytest

from fotahook.listener import Listener

from .conftest import NOW, PROGRESS, request

ACCOUNT = "0000123456-00001"
OLD, NEW = "https://h.example/old", "https://H.example:8443/new/"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


def open_listener(inbox: str, clock: Clock) -> Listener:
    return Listener(inbox, path="/new", clock=clock)


async def statuses(listener: Listener, *paths: str) -> list[int]:
    """What is answered to a message at each path."""
    return [(await request(listener, PROGRESS, path=path)).status for path in paths]


async def test_a_former_path_is_accepted_for_twenty_minutes(inbox: str) -> None:
    clock = Clock()
    async with open_listener(inbox, clock).running() as listener:
        assert await statuses(listener, "/old") == [404]
        await listener.move(ACCOUNT, OLD, NEW)
        moved_at = await times(listener)
        assert await statuses(listener, "/old", "/old/", "/new", "/other") == [200, 200, 200, 404]
        assert (await request(listener, method="GET", path="/old")).status == 404
        clock.time = moved_at + 1199
        assert await statuses(listener, "/old") == [200]
        clock.time = moved_at + 1200
        assert await statuses(listener, "/old", "/new") == [404, 200]
        assert listener.sender().events == {"former_path": 3}


async def times(listener: Listener) -> float:
    """When the callback moved, as the inbox has it."""
    store = await listener.receiving_inbox().store()
    return (await store.callback_history(ACCOUNT, 1))[0].at.timestamp()


async def test_a_restart_forgets_nothing(inbox: str) -> None:
    clock = Clock()
    async with open_listener(inbox, clock).running() as listener:
        await listener.move(ACCOUNT, OLD, NEW, overlap=60)
    async with open_listener(inbox, clock).running() as listener:
        assert await statuses(listener, "/old") == [404]
        # What is registered now is the new one already.
        await listener.move(ACCOUNT, NEW, NEW, overlap=60)
        assert await statuses(listener, "/old", "/new") == [200, 200]


async def test_a_callback_that_moved_twice_leaves_two_paths(inbox: str) -> None:
    async with open_listener(inbox, Clock()).running() as listener:
        await listener.move(ACCOUNT, "https://h.example/first", OLD)
        await listener.move(ACCOUNT, OLD, NEW)
        assert await statuses(listener, "/first", "/old", "/new") == [200, 200, 200]


@pytest.mark.parametrize("previous", [None, NEW, "https://other.example/old", "https://[old", "", "/old"])
async def test_a_url_of_another_host_opens_no_path(inbox: str, previous: str | None) -> None:
    async with open_listener(inbox, Clock()).running() as listener:
        await listener.move(ACCOUNT, previous, NEW)
        assert await statuses(listener, "/old", "/", "/new") == [404, 404, 200]


async def test_the_log_counts_messages_with_a_former_password(inbox: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fotahook.listener")
    async with Listener(inbox, basic=(("user", "old"), ("user", 'n"w'))).running() as listener:
        for number, password in enumerate(("old", 'n"w', "old")):
            body = msgspec.json.encode({"n": number, "username": "user", "password": password})
            assert (await request(listener, body)).status == 200
        assert (await request(listener, b'{"username": "user", "password": "other"}')).status == 401
    assert listener.sender().events == {"former_password": 2}
    assert "messages still come with a password that was replaced (1 since the last such line)" in caplog.text


async def test_the_log_counts_and_does_not_name_the_path(inbox: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fotahook.listener")
    clock = Clock()
    async with open_listener(inbox, clock).running() as listener:
        await listener.move(ACCOUNT, OLD, NEW)
        await statuses(listener, "/old", "/old", "/old")
        clock.time += 61
        await statuses(listener, "/old")
    lines = [line for line in caplog.messages if "a path that was replaced" in line]
    assert [line.rpartition("(")[2] for line in lines] == ["1 since the last such line)", "3 since the last such line)"]
    assert "/old" not in caplog.text
