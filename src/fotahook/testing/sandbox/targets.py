"""Where a simulated campaign goes: straight to a listener, or through a service to the account's callback."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import urllib3

from fotahook.client import Client, OperatorClient
from fotahook.contract.addresses import without_password
from fotahook.contract.errors import NotFound, PermissionDenied
from fotahook.contract.operator import BatchMessage, Refused
from fotahook.contract.version import VERSION

from ..simulator.campaign import CampaignMessage
from ..simulator.faults import Fault

if TYPE_CHECKING:
    from .servers import FaultyProxy

POST_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.1
_STALLED_SECONDS: Final = 60.0

Advance: TypeAlias = Callable[[int], None]


class NotSent(Exception):
    """The target refused a message, or nothing answers there."""

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass
class RateLimiter:
    """Allows so many messages a second, without catching up after a pause; `rate` 0 is no limit."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._next = self.clock()

    def wait(self, count: int) -> None:
        """Return when so many messages may be sent."""
        now = self.clock()
        if self._next > now:
            self.sleep(self._next - now)
        self._next = max(self._next, now) + (count / self.rate if self.rate else 0.0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the messages, as far as it is known: counts by name, and what was not delivered."""

    counts: Mapping[str, int]
    lost: str | None = None
    held: str | None = None
    """Why messages wait although nothing failed."""


@dataclass
class _Target(ABC):
    """What all targets share: the rate, and the number of messages sent."""

    limiter: RateLimiter
    advance: Advance
    sent: int = field(default=0, init=False)
    note: str | None = field(default=None, init=False)
    _largest_batch: ClassVar[int] = 1

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        # At once, the messages of a tenth of a second.
        size = max(1, min(self._largest_batch, int(self.limiter.rate / 10 or self._largest_batch)))
        remaining, before = iter(messages), self.sent
        while batch := list(islice(remaining, size)):
            self.limiter.wait(len(batch))
            self._post(batch)
            self.sent += len(batch)
            self.advance(self.sent)
        return self.sent - before

    def pause(self, seconds: float) -> None:
        self.limiter.sleep(seconds)

    @abstractmethod
    def _post(self, batch: list[CampaignMessage]) -> None: ...


@dataclass
class ListenerTarget(_Target):
    """A listener, posted to as ThingSpace does: JSON, unsigned, one message after the other, without retries."""

    url: str
    http: urllib3.PoolManager
    _duplicates: int = field(default=0, init=False)
    _results: Counter[str] = field(default_factory=Counter, init=False)

    def inject(self, fault: Fault) -> None:
        self._duplicates += fault.times

    def finish(self) -> Result:
        posts = self._results.total()
        failed = {name: count for name, count in self._results.items() if not name.startswith("http_2")}
        reasons = ", ".join(f"{count} {name}" for name, count in failed.items())
        lost = f"{sum(failed.values())} of {posts} posts failed: {reasons}; see the listener's log" if failed else None
        return Result(counts={"posted": posts, **self._results}, lost=lost)

    def _post(self, batch: list[CampaignMessage]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"fotahook-simulate/{VERSION}"}
        for _ in range(2 if self._duplicates else 1):
            try:
                response = self.http.request("POST", self.url, body=batch[0].body, headers=headers, redirect=False)
                self._results[f"http_{response.status}"] += 1
            except urllib3.exceptions.HTTPError as error:
                if not self._results:
                    # Without the library's objects.
                    reason, advice = str(error).rpartition(": ")[2].rstrip("."), "check that the listener runs"
                    if isinstance(error, urllib3.exceptions.SSLError):
                        reason = f"no TLS connection: {reason}"
                        advice = "check the certificate, or give its authority with --ca-file"
                    raise NotSent(f"{without_password(self.url)}: {reason}; {advice}", refused=False) from error
                self._results["no_answer"] += 1
        self._duplicates = max(0, self._duplicates - 1)


@dataclass
class ServiceTarget(_Target):
    """A service, which delivers to the account's callback; `proxy` injects faults on the way there."""

    account: str
    operator: OperatorClient
    proxy: "FaultyProxy | None" = None
    _largest_batch = 500

    def _post(self, batch: list[CampaignMessage]) -> None:
        lines = [BatchMessage(self.account, one.body, ordering_key=one.device) for one in batch]
        for answer in self.operator.publish_batch(lines):
            if isinstance(answer, Refused):
                raise NotSent(f"{answer.error_code}: {answer.error_message}", refused=True)
        if self.proxy is not None:
            self.proxy.restore_certificate()

    def inject(self, fault: Fault) -> None:
        assert self.proxy is not None  # a script with such a fault starts it
        self.proxy.inject(fault)

    def finish(self) -> Result:
        """With a proxy, wait until everything is delivered, or nothing moves any more."""
        if self.proxy is None:
            held = f"account {self.account} has no callback: its messages wait; see fotahook callbacks register --help"
            return Result(counts={}, held=held if self.is_held() else None)
        before, moved_at, lost = -1, time.monotonic(), None
        while pending := self.operator.account(self.account).backlog.pending:
            if pending != before:
                before, moved_at = pending, time.monotonic()
            if time.monotonic() - moved_at > _STALLED_SECONDS:
                lost = (
                    f"{pending} messages are not delivered, and none was in the last {_STALLED_SECONDS:g} s; "
                    f"see fotahook messages list {self.account} --state pending"
                )
                break
            self.proxy.restore_certificate()
            time.sleep(POLL_SECONDS)
        return Result(counts={"received": self.proxy.forwarded, "pending": pending}, lost=lost)

    def is_held(self) -> bool:
        try:
            return self.operator.account(self.account).lane.state == "held"
        except (PermissionDenied, NotFound):
            return False  # a client with only the publish scope cannot know


Target: TypeAlias = ListenerTarget | ServiceTarget


@contextmanager
def listener_target(url: str, ca_file: Path | None, rate: float, advance: Advance) -> Iterator[ListenerTarget]:
    """A target that posts to a listener."""
    authorities = None if ca_file is None else str(ca_file)
    with urllib3.PoolManager(timeout=urllib3.Timeout(POST_SECONDS), retries=False, ca_certs=authorities) as http:
        yield ListenerTarget(RateLimiter(rate), advance, url, http)


@contextmanager
def service_target(
    account: str, operator: OperatorClient, connect: Callable[[], Client], faulty: bool, rate: float, advance: Advance
) -> Iterator[ServiceTarget]:
    """A target that publishes to a service. With `faulty` a proxy replaces the account's callback for a time."""
    with operator:
        if not faulty:
            yield ServiceTarget(RateLimiter(rate), advance, account, operator)
            return
        from anyio.from_thread import start_blocking_portal

        from .servers import faulty_proxy

        with connect() as client:
            callbacks = client.callbacks
            summary = callbacks.list_registered_callbacks(account).data
            before = None if summary is None else summary.url

            def register(url: str) -> None:
                callbacks.update_callback(account, url)

            with (
                start_blocking_portal() as portal,
                portal.wrap_async_context_manager(faulty_proxy(before, register)) as proxy,
            ):
                try:
                    register(proxy.url)
                    yield ServiceTarget(RateLimiter(rate), advance, account, operator, proxy)
                finally:
                    if before is None:
                        callbacks.deregister_callback(account)
                    else:
                        register(before)
