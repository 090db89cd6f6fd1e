"""Names: one query each, answers and failures remembered briefly, every address vetted."""

import asyncio
from collections.abc import Sequence

import pytest

from fotahook.contract.addresses import EVERYWHERE
from fotahook.delivery.resolver import (
    CACHE_LIMIT,
    FAILURE_TTL,
    MAX_TTL,
    MIN_TTL,
    BlockedAddress,
    NameUnresolved,
    Resolver,
    SystemLookup,
)


class Names:
    """A name service: what it was asked, what it answers, and whether it answers yet."""

    def __init__(self, *addresses: str, ttl: float = 30.0) -> None:
        self.addresses: Sequence[str] = addresses
        self.ttl = ttl
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.now = 1000.0

    async def __call__(self, host: str) -> tuple[Sequence[str], float]:
        self.asked.append(host)
        await self.answers.wait()
        if not self.addresses:
            raise NameUnresolved(f"{host}: no such name")
        return self.addresses, self.ttl

    def resolver(self) -> Resolver:
        return Resolver((), lookup=self, monotonic=lambda: self.now)


async def test_a_literal_is_vetted_and_never_looked_up() -> None:
    names = Names()
    assert list(await names.resolver().resolve("8.8.8.8")) == ["8.8.8.8"]
    with pytest.raises(BlockedAddress):
        await names.resolver().resolve("::1")
    assert names.asked == []


async def test_the_families_take_turns_and_the_first_one_leads() -> None:
    names = Names("2606:4700::1", "2606:4700::2", "8.8.8.8")
    assert list(await names.resolver().resolve("x.example")) == ["2606:4700::1", "8.8.8.8", "2606:4700::2"]


async def test_concurrent_callers_share_one_query_and_one_may_leave() -> None:
    names = Names("8.8.8.8")
    names.answers.clear()
    resolver = names.resolver()
    first, second = (asyncio.create_task(resolver.resolve("x.example")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    names.answers.set()
    assert list(await second) == ["8.8.8.8"]
    assert names.asked == ["x.example"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_hung_name_holds_up_no_other() -> None:
    hangs, answers = Names("8.8.8.8"), Names("8.8.4.4")
    hangs.answers.clear()

    async def lookup(host: str) -> tuple[Sequence[str], float]:
        return await (answers if host == "quick.example" else hangs)(host)

    resolver = Resolver((), lookup=lookup)
    hung = [asyncio.create_task(resolver.resolve(f"{number}.example")) for number in range(1000)]
    for _ in range(2):  # lets each of them begin its query
        await asyncio.sleep(0)
    assert len(hangs.asked) == 1000
    assert list(await resolver.resolve("quick.example")) == ["8.8.4.4"]
    assert not any(task.done() for task in hung)
    resolver.close()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*hung, return_exceptions=True))


@pytest.mark.parametrize(("ttl", "kept"), [(0.0, MIN_TTL), (30.0, 30.0), (86400.0, MAX_TTL)])
async def test_an_answer_is_remembered_for_its_time_to_live_within_bounds(ttl: float, kept: float) -> None:
    names = Names("8.8.8.8", ttl=ttl)
    resolver = names.resolver()
    for wait, asked in ((0.0, 1), (kept - 0.1, 1), (0.2, 2)):
        names.now += wait
        await resolver.resolve("x.example")
        assert len(names.asked) == asked


async def test_a_failure_is_remembered_for_seconds() -> None:
    names = Names()
    resolver = names.resolver()
    for wait, asked in ((0.0, 1), (FAILURE_TTL - 0.1, 1), (0.2, 2)):
        names.now += wait
        with pytest.raises(NameUnresolved, match="no such name"):
            await resolver.resolve("x.example")
        assert len(names.asked) == asked


async def test_a_name_server_that_never_answers_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fotahook.delivery.resolver.QUERY_SECONDS", 0.01)
    names = Names("8.8.8.8")
    names.answers.clear()
    with pytest.raises(NameUnresolved, match="no name server answered"):
        await names.resolver().resolve("x.example")


async def test_a_remembered_answer_is_vetted_each_time() -> None:
    names = Names("8.8.8.8", "10.0.0.1")
    resolver = names.resolver()
    for _ in range(2):
        with pytest.raises(BlockedAddress, match=r"10\.0\.0\.1"):
            await resolver.resolve("x.example")
    assert len(names.asked) == 1


async def test_the_cache_is_bounded() -> None:
    names = Names("8.8.8.8")
    resolver = names.resolver()
    for number in range(CACHE_LIMIT + 10):
        await resolver.resolve(f"{number}.example")
    assert len(resolver._known) == CACHE_LIMIT


async def test_the_hosts_file_is_honoured_and_unknown_names_fail() -> None:
    resolver = Resolver(EVERYWHERE, lookup=SystemLookup())
    assert "127.0.0.1" in await resolver.resolve("localhost")
    with pytest.raises(NameUnresolved, match=r"nobody\.invalid"):
        await resolver.resolve("nobody.invalid")
