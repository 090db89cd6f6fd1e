"""Moving a callback: what is asked, in which order, and what is said of the one that was replaced."""

import asyncio
import json
from typing import Any

import pytest

import fotahook

from .conftest import ACCOUNT, LISTENER, Chunks, Clock, OpenSdk, Peer, Received, respond

NEW = "https://new.example.com/messages"


class Registry:
    """A service that keeps one callback, and shows a change only after so many reads."""

    def __init__(self, peer: Peer, url: str | None, lag: int = 0) -> None:
        self.shown = self.url = url
        self.lag = self.left = lag
        peer.routes["callbacks/"] = self._call

    def _call(self, seen: Received) -> Chunks:
        if seen.method == "GET":
            if self.left == 0:
                self.shown = self.url
            self.left -= 1
            return respond(body={"url": self.shown} if self.shown else b"")
        self.url, self.left = json.loads(seen.body)["url"], self.lag
        return respond(body={"url": self.url})


async def move(sdk: Any, *arguments: Any, **options: Any) -> fotahook.Moved:
    if isinstance(sdk.client, fotahook.Client):
        return await asyncio.to_thread(sdk.client.move_callback, *arguments, **options)
    moved: fotahook.Moved = await sdk.client.move_callback(*arguments, **options)
    return moved


async def test_it_reads_replaces_and_reads_back_and_never_removes(peer: Peer, open_sdk: OpenSdk) -> None:
    Registry(peer, LISTENER)
    async with open_sdk() as sdk:
        assert await move(sdk, ACCOUNT, NEW) == fotahook.Moved(previous=LISTENER, url=NEW)
    assert [seen.method for seen in peer.calls] == ["GET", "PUT", "GET"]


async def test_the_first_callback_is_registered(peer: Peer, open_sdk: OpenSdk) -> None:
    Registry(peer, None)
    async with open_sdk() as sdk:
        assert await move(sdk, ACCOUNT, url=NEW) == fotahook.Moved(previous=None, url=NEW)
    assert [seen.method for seen in peer.calls] == ["GET", "POST", "GET"]


async def test_it_waits_until_the_new_url_is_shown(peer: Peer, open_sdk: OpenSdk, clock: Clock) -> None:
    Registry(peer, LISTENER, lag=3)
    async with open_sdk() as sdk:
        assert (await move(sdk, ACCOUNT, NEW)).url == NEW
    assert [seen.method for seen in peer.calls] == ["GET", "PUT", *["GET"] * 4]
    assert clock.waits == [0.0, 0.5, 1.0, 2.0]


async def test_another_spelling_of_the_new_url_is_the_new_url(peer: Peer, open_sdk: OpenSdk) -> None:
    spelled = NEW.replace("new.example.com", "NEW.example.com:443")
    peer.routes["callbacks/"] = lambda _: respond(body={"url": spelled})
    async with open_sdk() as sdk:
        assert await move(sdk, ACCOUNT, NEW) == fotahook.Moved(spelled, NEW)


async def test_a_url_that_never_shows_is_an_error(peer: Peer, open_sdk: OpenSdk) -> None:
    Registry(peer, LISTENER, lag=100)
    async with open_sdk() as sdk:
        with pytest.raises(fotahook.ResponseError, match="was set, but does not read back"):
            await move(sdk, ACCOUNT, NEW)


async def test_a_session_that_dies_in_between_is_renewed(peer: Peer, open_sdk: OpenSdk) -> None:
    """A real session was refused 96 seconds after its login, between two calls of a rotation."""
    registry = Registry(peer, LISTENER)
    call, refused = peer.routes["callbacks/"], list[Received]()

    def refuse_once(seen: Received) -> Chunks:
        if seen.method == "PUT" and not refused:
            refused.append(seen)
            return respond(401, {"errorCode": "REQUEST_FAILED.SessionToken.Expired", "errorMessage": "expired"})
        return call(seen)

    peer.routes["callbacks/"] = refuse_once
    async with open_sdk() as sdk:
        await move(sdk, ACCOUNT, NEW)
    assert (registry.url, peer.sessions) == (NEW, 2)


async def test_what_is_wrong_is_said_before_anything_is_sent(peer: Peer, open_sdk: OpenSdk) -> None:
    async with open_sdk() as sdk:
        with pytest.raises(TypeError, match="account must be a str"):
            await move(sdk, 123456, NEW)
        with pytest.raises(TypeError, match="body must be"):
            await move(sdk, ACCOUNT, None)
    assert peer.seen == []
