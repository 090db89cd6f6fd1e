"""Whatever happened while the store's clock was ahead or back: every message is due within the longest wait."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fotahook.store.base import Store
from fotahook.store.postgres.store import PostgresStore
from fotahook.store.records import Health, LaneVerdict, Lease, NewMessage

from .conftest import URL, WELL, VirtualClock, settled

ACCOUNTS = ("a", "b")
LONGEST = 3600.0
"""Seconds that a message or a lane may wait here."""
LEASE = 30.0
DAY = 86400.0

account = st.sampled_from(ACCOUNTS)
step = st.one_of(
    st.tuples(st.just("accept"), account, st.sampled_from((None, "k"))),
    st.tuples(st.just("settle"), st.sampled_from(("delivered", "put off", "dead", "late")), st.booleans()),
    st.tuples(st.sampled_from(("pause", "resume", "register", "deregister")), account, st.none()),
    st.tuples(st.just("clock"), st.sampled_from((1.0, LONGEST, 20 * DAY, -LONGEST, -20 * DAY)), st.none()),
)
Step = tuple[str, str | float, str | bool | None]


class Life:
    """Two accounts of a store, and maintenance, which sees each step back of the clock before another step."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self._store, self._clock = store, clock
        self._went_back = False
        self._accepted: list[str] = []
        self._lease: Lease | None = None

    async def take(self, kind: str, what: str | float, how: str | bool | None) -> None:
        store = self._store
        if isinstance(what, float):
            await self._maintain()
            self._clock.advance(what)
            self._went_back = what < 0
        elif kind == "accept":
            key = how if isinstance(how, str) else None
            (accepted,) = await store.accept([NewMessage(account=what, body=b"{}", ordering_key=key)])
            self._accepted.append(accepted.id)
        elif kind == "settle":
            await self._settle(what, pause=bool(how))
        elif kind == "register":
            await store.register(what, URL, actor="test")
        elif kind == "deregister":
            await store.deregister(what, actor="test")
        else:
            await (store.pause if kind == "pause" else store.resume)(what)

    async def _maintain(self) -> None:
        if self._went_back:
            await self._store.recall(LEASE, resting=True)
        self._went_back = False

    async def _settle(self, how: str, *, pause: bool) -> None:
        if self._lease is None:
            self._lease = next(iter(await self._store.lease(1, LEASE)), None)
        if self._lease is None:
            return
        found = await self._store.fetch(self._lease, 10)
        if how == "delivered":
            outcomes = [settled(each) for each in found]
        else:
            state = "dead" if how == "dead" else "pending"
            outcomes = [settled(each, state, delay=LONGEST) for each in found[:1]]
        health = Health(failures=1) if how == "late" else WELL.health
        verdict = LaneVerdict(health=health, wait=LONGEST if how == "late" else 0.0, pause=pause)
        # Settled late, the lane was perhaps leased to another one.
        self._lease = await self._store.settle(self._lease, outcomes, verdict, keep=LEASE if how == "put off" else 0.0)

    async def end(self) -> list[str]:
        """What is still pending when everything could be sent for longer than it may wait."""
        store = self._store
        for name in ACCOUNTS:
            await store.register(name, URL, actor="test")
            await store.resume(name)
        await self._maintain()
        self._clock.advance(LONGEST + LEASE)
        pending = self._accepted
        # One of a key after the other; the first searches on PostgreSQL may begin too late.
        for _ in range(2 * len(self._accepted) + 2):
            if isinstance(store, PostgresStore):
                store._sweep_at = 0.0
            for lease in await store.lease(10, LEASE):
                outcomes = [settled(each) for each in await store.fetch(lease, 100)]
                await store.settle(lease, outcomes, WELL, keep=0)
            found = [await store.message(one) for one in pending]
            pending = [one.id for one in found if one is not None and one.deliveries[0].state == "pending"]
        return pending


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    [
        ("clock", 20 * DAY, None),
        ("register", "a", None),
        ("accept", "a", None),
        ("settle", "late", False),
        ("clock", -20 * DAY, None),
    ]
)
@example(
    [
        ("register", "a", None),
        ("accept", "a", "k"),
        ("clock", 20 * DAY, None),
        ("accept", "a", "k"),
        ("clock", -20 * DAY, None),
    ]
)
@given(st.lists(step, max_size=25))
async def test_nothing_waits_for_a_time_that_the_clock_went_back_from(
    store: Store, clock: VirtualClock, steps: list[Step]
) -> None:
    life = Life(store, clock)
    for one in steps:
        await life.take(*one)
    assert await life.end() == []
