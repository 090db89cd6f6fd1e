"""New deliveries are handed to a dispatcher of the same process by the transaction that accepts them."""

import asyncio
from collections.abc import Sequence

import pytest

from fotahook.store import open_store
from fotahook.store.base import Store
from fotahook.store.records import FETCH_BYTES, HandOver, LaneVerdict, LeaseRequest, NewMessage
from tests.deadlines import DEADLINE

from .conftest import ACCOUNT, ENGINES, URL, WELL, Accept, VirtualClock, hint, lease_one, quiet, settled

pytestmark = pytest.mark.parametrize("engine", ENGINES)


class Hands:
    """A dispatcher's end of handing over."""

    def __init__(self) -> None:
        self.request: LeaseRequest | None = LeaseRequest(lanes=10, seconds=30, asked_at=7.0)
        self.received: list[HandOver] = []
        self.came = asyncio.Event()

    def receive(self, handed: Sequence[HandOver]) -> None:
        self.received += handed
        self.came.set()

    def bodies(self) -> list[bytes]:
        return [delivery.body for handed in self.received for delivery in handed.deliveries]


@pytest.fixture
async def hands(store: Store) -> Hands:
    """A dispatcher that has leased once, as it must on SQLite, and then takes what is handed over."""
    assert await store.lease(1, 30) == []
    hands = Hands()
    store.hand_over(lambda: hands.request, hands.receive)
    return hands


@pytest.fixture
async def opened(store: Store) -> Store:
    """A store whose account has a callback."""
    await store.register(ACCOUNT, URL, actor="test")
    return store


async def test_leasing_nothing_makes_a_process_the_dispatcher(opened: Store, accept: Accept) -> None:
    await accept(b"1")
    assert await opened.lease(0, 0) == []
    assert len(await opened.lease(10, 30)) == 1


async def test_an_idle_lane_is_leased_and_its_messages_handed_over(
    opened: Store, hands: Hands, accept: Accept, clock: VirtualClock
) -> None:
    first, second = await accept(b"1", b"2")
    (handed,) = hands.received
    assert handed.lease is not None
    assert (handed.lease.url, handed.lease.revision, handed.lease.open) == (URL, 1, True)
    assert (handed.lane, handed.token, handed.asked_at, handed.more) == (
        handed.lease.lane,
        handed.lease.token,
        7.0,
        False,
    )
    assert [delivery.message for delivery in handed.deliveries] == [first.id, second.id]
    assert await opened.lease(10, 30) == []
    # What was handed over is what a fetch brings.
    assert list(handed.deliveries) == await opened.fetch(handed.lease, 10)
    await opened.settle(handed.lease, [settled(each) for each in handed.deliveries], WELL, keep=0)
    for accepted in (first, second):
        message = await opened.message(accepted.id)
        assert message is not None
        assert message.deliveries[0].state == "delivered"
    assert await opened.due_in() is None


async def test_what_is_handed_over_and_not_settled_is_leased_again(
    opened: Store, hands: Hands, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1")
    clock.advance(30)
    lease = await lease_one(opened)
    assert lease.token > hands.received[0].token
    (delivery,) = await opened.fetch(lease, 10)
    assert delivery.body == b"1"


async def test_dispatchers_are_woken_only_for_what_is_not_handed_over(
    opened: Store, hands: Hands, accept: Accept
) -> None:
    await quiet(opened)
    waiting = asyncio.ensure_future(hint(opened))
    await accept(b"1")
    await accept(b"2")
    await quiet_turns()
    assert not waiting.done()
    hands.request = None
    await accept(b"3")
    await waiting


async def quiet_turns() -> None:
    """Let everything that is due in the event loop run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_messages_of_a_leased_lane_come_with_its_token(opened: Store, hands: Hands, accept: Accept) -> None:
    await accept(b"1")
    await accept(b"2")
    first, second = hands.received
    assert (second.lane, second.token, second.lease) == (first.lane, first.token, None)
    assert [delivery.body for delivery in second.deliveries] == [b"2"]


async def test_a_lane_with_pending_deliveries_is_not_leased(store: Store, hands: Hands, accept: Accept) -> None:
    hands.request = None
    await store.register(ACCOUNT, URL, actor="test")
    await accept(b"1")
    hands.request = LeaseRequest(lanes=10, seconds=30)
    await accept(b"2")
    assert hands.received == []
    assert [each.body for each in await store.fetch(await lease_one(store), 10)] == [b"1", b"2"]


async def test_held_paused_and_waiting_lanes_are_left_alone(store: Store, hands: Hands, accept: Accept) -> None:
    await accept(b"1", account="held")
    await store.register("paused", URL, actor="test")
    await store.pause("paused")
    await accept(b"1", account="paused")
    await store.register("waiting", URL, actor="test")
    hands.request = None
    await accept(b"1", account="waiting")
    lease = await lease_one(store)
    (delivery,) = await store.fetch(lease, 1)
    await store.settle(lease, [settled(delivery)], LaneVerdict(health=WELL.health, wait=60), keep=0)
    hands.request = LeaseRequest(lanes=10, seconds=30)
    await accept(b"2", account="waiting")
    assert hands.received == []


async def test_of_each_ordering_key_the_first_is_handed_over(
    opened: Store, hands: Hands, accept: Accept, store: Store
) -> None:
    messages = [NewMessage(account=ACCOUNT, body=body, ordering_key=key) for body, key in [(b"1", "k"), (b"2", "k")]]
    await store.accept([*messages, NewMessage(account=ACCOUNT, body=b"3", ordering_key="alone")])
    (handed,) = hands.received
    assert [(each.body, each.followed) for each in handed.deliveries] == [(b"1", True), (b"3", False)]
    assert handed.more
    # Whether something of a key waits in a leased lane only a fetch can tell.
    await accept(b"4", key="other")
    assert (hands.received[1].deliveries, hands.received[1].more) == ((), True)


async def test_no_more_is_handed_over_than_a_fetch_brings(opened: Store, hands: Hands, accept: Accept) -> None:
    half = b'"' + b"x" * (FETCH_BYTES // 2) + b'"'
    await accept(half, half, b"1")
    (handed,) = hands.received
    assert (len(handed.deliveries), handed.more) == (2, True)


async def test_no_more_lanes_are_leased_than_were_asked_for(store: Store, hands: Hands, accept: Accept) -> None:
    hands.request = LeaseRequest(lanes=1, seconds=30)
    messages = [NewMessage(account=account, body=b"{}") for account in ("a", "b")]
    for account in ("a", "b"):
        await store.register(account, URL, actor="test")
    await store.accept(messages)
    (handed,) = hands.received
    (lease,) = await store.lease(10, 30)
    assert handed.lease is not None
    assert {handed.lease.account, lease.account} == {"a", "b"}


async def test_duplicates_are_not_handed_over(opened: Store, hands: Hands) -> None:
    message = NewMessage(account=ACCOUNT, body=b"{}", idempotency_key="k")
    await opened.accept([message, message])
    await opened.accept([message])
    assert hands.bodies() == [b"{}"]


async def test_each_consumer_has_a_hand_over_of_its_own(store: Store, hands: Hands, accept: Accept) -> None:
    await accept(b"{}", consumers=("billing", "handlers"))
    leases = [handed.lease for handed in hands.received]
    assert {lease.consumer for lease in leases if lease is not None} == {"billing", "handlers"}
    assert hands.bodies() == [b"{}", b"{}"]


async def test_concurrent_accepts_share_a_hand_over_and_lose_nothing(
    opened: Store, hands: Hands, accept: Accept
) -> None:
    await asyncio.gather(*(accept(b"%d" % number) for number in range(20)))
    assert sorted(map(int, hands.bodies())) == list(range(20))
    assert sum(handed.lease is not None for handed in hands.received) == 1


async def test_a_caller_that_is_cancelled_leaves_the_lease_to_the_dispatcher(
    opened: Store, hands: Hands, accept: Accept
) -> None:
    caller = asyncio.ensure_future(accept(b"{}"))
    while not caller.done() and not hands.came.is_set():
        await asyncio.sleep(0)
        caller.cancel()
    async with asyncio.timeout(DEADLINE):
        await hands.came.wait()
    assert hands.bodies() == [b"{}"]
    await asyncio.gather(caller, return_exceptions=True)


async def test_a_stale_owner_cannot_settle_a_lane_that_is_handed_over(
    opened: Store, hands: Hands, accept: Accept, clock: VirtualClock
) -> None:
    await accept(b"1")
    stale = hands.received[0].lease
    assert stale is not None
    assert await opened.settle(stale, [settled(hands.received[0].deliveries[0])], WELL, keep=30) is not None
    clock.advance(31)
    # The lease is over and the lane idle; accepting and settling may share a transaction.
    _, kept = await asyncio.gather(accept(b"2"), opened.settle(stale, [], WELL, keep=0))
    assert kept is None
    lease = hands.received[1].lease
    assert lease is not None
    assert await opened.settle(lease, [], WELL, keep=30) is not None


async def test_only_a_process_that_may_dispatch_gets_something(
    engine: str, store_url: str, opened: Store, hands: Hands, accept: Accept, clock: VirtualClock
) -> None:
    other = await open_store(store_url, clock=clock)
    others = Hands()
    other.hand_over(lambda: others.request, others.receive)
    await other.accept([NewMessage(account=ACCOUNT, body=b"{}")])
    await other.close()
    assert len(others.received) == (engine == "postgres")
    assert len(await opened.lease(10, 30)) == (engine == "sqlite")
