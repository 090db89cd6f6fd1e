"""The watch of a running listener: reconciliation, metrics, and alarms when something changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from fotahook.contract.errors import AuthenticationError, FotahookError, LoginRefused
from fotahook.store import Store
from fotahook.store.records import Delivery, Lease, MessageFilter, NewMessage, StoreError

from .intake import HANDLERS, ChooseConsumers
from .reconcile import OVER_SECONDS, Reconciler
from .sender import SenderCounts
from .settings import Settings

log = logging.getLogger("fotahook.listener")

CHECK_SECONDS: Final = 60.0
"""Interval of the checks."""
CERTIFICATE_DAYS: Final = 21.0
ALARMS: Final = "fotahook/alarms"
"""The account under which alarms are kept in the inbox; no message can name it, because of the slash."""
_KIND: Final = "fotahook.alarm."
_DAY: Final = 86400.0


class Watch:
    """The metrics and the alarms of one listener."""

    def __init__(self, settings: Settings, choose: ChooseConsumers, counts: SenderCounts) -> None:
        self.settings = settings
        self.alarm_consumer: str | None = None
        self.callback_replaced = False
        """Whether somebody else took the account's callback; whoever watches that sets it."""
        self.metrics: dict[str, float] = {"fotahook_repaired_total": 0.0}
        self._choose, self._counts, self._clock = choose, counts, settings.clock
        self._received_at = 0.0
        self._raised: dict[str, bool] = {}

    def received(self, lease: Lease, delivery: Delivery) -> None:
        """Note a message that is delivered: when it came, and whether it came late."""
        if lease.account == ALARMS:
            return
        self._received_at = max(self._received_at, delivery.accepted_at)
        note = delivery.note
        if note is not None and note.stale and not delivery.attempts and lease.consumer == HANDLERS:
            self._counts.happened("late")

    def exposition(self) -> str:
        """The metrics in Prometheus' text format."""

        return "".join(
            f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} {value:g}\n"
            for name, value in self.metrics.items()
        )

    async def run(self, store: Store) -> None:
        """Check and reconcile until cancelled."""
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
        """One round of reconciliation."""
        assert self.settings.reconcile is not None
        repaired = await Reconciler(store, self.settings.reconcile, self._choose, self._clock).everything()
        self.metrics["fotahook_repaired_total"] += repaired
        self._counts.happened("repaired", repaired)
        if (limit := self.settings.repair_limit) is not None:
            text = f"{repaired} statuses that never came as messages were repaired in one round (limit {limit})"
            await self._tell(store, "repairs", repaired, repaired > limit, text)

    async def check(self, store: Store) -> None:
        """Look after everything else once."""
        settings = self.settings
        overdue = await store.overdue_devices(OVER_SECONDS)
        self.metrics["fotahook_overdue_devices"] = overdue
        text = f"{overdue} devices have not reported a result"
        await self._tell(store, "overdue_devices", overdue, overdue > 0, text)
        self.metrics["fotahook_callback_replaced"] = replaced = self.callback_replaced
        await self._tell(store, "callback_replaced", replaced, replaced, "the registered callback is not this listener")
        if settings.silence is not None:
            self.metrics["fotahook_silent_seconds"] = silent = max(0.0, self._clock() - self._received_at)
            await self._tell(store, "silence", silent, silent > settings.silence, f"no message came for {silent:.0f} s")
        if settings.certificate is not None:
            from cryptography.x509 import load_pem_x509_certificates

            # When the first certificate in the file ends.
            (first, *_) = load_pem_x509_certificates(await asyncio.to_thread(settings.certificate.read_bytes))
            left = first.not_valid_after_utc.timestamp() - self._clock()
            self.metrics["fotahook_certificate_seconds_left"] = left
            text = f"the certificate ends in {left / _DAY:.1f} days"
            await self._tell(store, "certificate", left, left < CERTIFICATE_DAYS * _DAY, text)

    async def _tell(self, store: Store, name: str, value: float, is_raised: bool, text: str) -> None:
        """Log a change of an alarm, and put it into the lane to the alarms' receiver."""
        key = f"alarm:{name}"
        last = None
        if self.alarm_consumer is not None and self._raised.get(name) != is_raised:
            page = await store.messages(ALARMS, MessageFilter(ordering_key=key), limit=1)
            last = next(iter(page.messages), None)
            # Told before a restart, or by another process.
            self._raised[name] = last is not None and last.type == _KIND + "raised"
        if self._raised.get(name, False) == is_raised:
            return
        change = "raised" if is_raised else "cleared"
        log.log(logging.ERROR if is_raised else logging.INFO, "alarm %s %s: %s", name, change, text)
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
