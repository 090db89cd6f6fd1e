"""The watch of a running listener: what its sender does, reconciliation, metrics, and alarms when something changes."""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import msgspec

from fotahook.contract.errors import AuthenticationError, FotahookError, LoginRefused
from fotahook.delivery.policy import DAY
from fotahook.store import Store
from fotahook.store.records import Delivery, Lease, MessageFilter, NewMessage, StoreError

from .intake import HANDLERS, ChooseConsumers
from .ledger import OVER_SECONDS, Reconciler
from .settings import Settings

log = logging.getLogger("fotahook.listener")

CHECK_SECONDS: Final = 60.0
CERTIFICATE_DAYS: Final = 21.0
ALARMS: Final = "fotahook/alarms"
"""The account under which alarms are kept in the inbox; no message can name it, because of the slash."""
_KIND: Final = "fotahook.alarm."
SECONDS: Final = (0.1, 1.0, 3.0, 4.0)
"""Answer times that are told apart. ThingSpace sends a second copy after about 4 s without an answer."""
_BUCKETS: Final = (*(f"{seconds:g}" for seconds in SECONDS), "inf")
_HOUR: Final = 3600.0
_HOURS: Final = 24
_MANY: Final = 200
"""Combinations that are told apart in one hour; a sender can invent any number of user agents."""
_ANSWERED: Final = ("answers", "seconds", "addresses", "agents")
"""The kinds of facts that are counted of an answer. Of the last two there can be any number of names."""

Event: TypeAlias = Literal["former_path", "former_password", "late", "repaired"]
"""Late: a message all of whose statuses were known, or overtaken by later ones. Repaired: a status from a report."""


class SenderReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Messages of the last 24 hours, as far as this process has received them."""

    since: datetime
    answers: Mapping[str, int]
    """``new``, ``repeated``, or the status of a refusal."""
    seconds: Mapping[str, int]
    """Answers that took no longer than so many seconds, or longer (``inf``)."""
    addresses: Mapping[str, int]
    agents: Mapping[str, int]
    events: Mapping[str, int]


class SenderCounts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun = clock()
        self._hours: deque[tuple[float, Counter[tuple[str, ...]]]] = deque(maxlen=_HOURS + 1)

    def answered(self, answer: str, address: str, agent: str, begun: float) -> None:
        now = self._clock()
        self._add(now, (answer, _BUCKETS[bisect_left(SECONDS, now - begun)], address, agent))

    def happened(self, event: Event, times: int = 1) -> None:
        self._add(self._clock(), (event,), times)

    def _add(self, now: float, facts: tuple[str, ...], times: int = 1) -> None:
        hour = now // _HOUR
        if not self._hours or self._hours[-1][0] != hour:
            self._hours.append((hour, Counter()))
        counts = self._hours[-1][1]
        if facts not in counts:
            known = ("others", "others") if len(counts) >= _MANY else [name[:100] for name in facts[2:]]
            facts = (*facts[:2], *known) if len(facts) > 1 else facts
        counts[facts] += times

    def report(self) -> SenderReport:
        now = self._clock()
        found: dict[str, Counter[str]] = {name: Counter() for name in SenderReport.__struct_fields__[1:]}
        for hour, counts in self._hours:
            if hour > now // _HOUR - _HOURS:
                for facts, times in counts.items():
                    for kind, name in zip(_ANSWERED if len(facts) > 1 else ("events",), facts, strict=True):
                        found[kind][name] += times
        since = max(self._begun, (now // _HOUR - _HOURS + 1) * _HOUR)
        return SenderReport(since=datetime.fromtimestamp(since, UTC), **found)


class Watch:
    def __init__(self, settings: Settings, choose: ChooseConsumers, counts: SenderCounts) -> None:
        self.settings = settings
        self.alarm_consumer: str | None = None
        self.callback_replaced = False
        self.metrics: dict[str, float] = {"fotahook_repaired_total": 0.0}
        self._choose, self._counts, self._clock = choose, counts, settings.clock
        self._received_at = 0.0
        self._raised: dict[str, bool] = {}

    def received(self, lease: Lease, delivery: Delivery) -> None:
        """Note a message that is delivered: when it came, and whether it came late."""
        if lease.account == ALARMS:
            return
        self._received_at = max(self._received_at, delivery.accepted_at)
        if (note := delivery.note) is not None and note.stale and not delivery.attempts and lease.consumer == HANDLERS:
            self._counts.happened("late")

    async def run(self, store: Store) -> None:
        self._received_at = self._clock()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(CHECK_SECONDS, self.check, store))
            if self.settings.reconcile is not None:
                tasks.create_task(self._repeat(self.settings.every, self.reconcile, store))

    async def _repeat(self, seconds: float, work: Callable[[Store], Awaitable[None]], store: Store) -> None:
        while True:
            try:
                await work(store)
            except (LoginRefused, AuthenticationError) as error:
                # Five refused logins lock the account.
                log.error("campaigns are no longer reconciled until the listener is restarted: %s", error)
                return
            except (FotahookError, StoreError) as error:
                log.warning("%s is put off: %s", work.__name__.strip("_"), error)
            except Exception:
                # A bug of ours must not end the watch.
                log.exception("%s failed", work.__name__.strip("_"))
            await asyncio.sleep(seconds)

    async def reconcile(self, store: Store) -> None:
        assert self.settings.reconcile is not None
        repaired = await Reconciler(store, self.settings.reconcile, self._choose, self._clock).everything()
        self.metrics["fotahook_repaired_total"] += repaired
        self._counts.happened("repaired", repaired)
        if (limit := self.settings.repair_limit) is not None:
            text = f"{repaired} statuses that never came as messages were repaired in one round (limit {limit})"
            await self._tell(store, "repairs", repaired, repaired > limit, text)

    async def check(self, store: Store) -> None:
        settings = self.settings
        overdue = await store.overdue_devices(OVER_SECONDS)
        text = f"{overdue} devices have not reported a result"
        await self._tell(store, "overdue_devices", overdue, overdue > 0, text, metric="overdue_devices")
        replaced, text = self.callback_replaced, "the registered callback is not this listener"
        await self._tell(store, "callback_replaced", replaced, replaced, text, metric="callback_replaced")
        if settings.silence is not None:
            silent = max(0.0, self._clock() - self._received_at)
            text = f"no message came for {silent:.0f} s"
            await self._tell(store, "silence", silent, silent > settings.silence, text, metric="silent_seconds")
        if settings.certificate is not None:
            from cryptography.x509 import load_pem_x509_certificates

            (first, *_) = load_pem_x509_certificates(await asyncio.to_thread(settings.certificate.read_bytes))
            left = first.not_valid_after_utc.timestamp() - self._clock()
            is_near, text = left < CERTIFICATE_DAYS * DAY, f"the certificate ends in {left / DAY:.1f} days"
            await self._tell(store, "certificate", left, is_near, text, metric="certificate_seconds_left")

    async def _tell(
        self, store: Store, name: str, value: float, is_raised: bool, text: str, *, metric: str | None = None
    ) -> None:
        """Log a change of an alarm, and put it into the lane to the alarms' receiver."""
        if metric is not None:
            self.metrics[f"fotahook_{metric}"] = value
        key, last = f"alarm:{name}", None
        if self.alarm_consumer is not None and self._raised.get(name) != is_raised:
            page = await store.messages(ALARMS, MessageFilter(ordering_key=key), limit=1)
            last = next(iter(page.messages), None)
            # Told before a restart, or by another process.
            self._raised[name] = last is not None and last.type == _KIND + "raised"
        if self._raised.get(name, False) == is_raised:
            return
        level, change = (logging.ERROR, "raised") if is_raised else (logging.INFO, "cleared")
        log.log(level, "alarm %s %s: %s", name, change, text)
        if self.alarm_consumer is not None:
            kind = _KIND + change
            at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
            message = NewMessage(
                account=ALARMS,
                body=msgspec.json.encode({"type": kind, "alarm": name, "value": value, "text": text, "at": at}),
                type=kind,
                ordering_key=key,
                idempotency_key=f"{key}:{last.id if last else 'first'}",
                consumers=(self.alarm_consumer,),
            )
            await store.accept([message])
        self._raised[name] = is_raised
