"""Where a simulated campaign goes: straight to a listener, or through a service to the account's callback."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import urllib3

from fotahook.client import Client, OperatorClient
from fotahook.contract.errors import NotFound, PermissionDenied
from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.contract.operator import BatchMessage, Refused
from fotahook.contract.version import VERSION

from .simulator.campaign import CampaignMessage
from .simulator.fault_script import Fault, FaultScript, Pause, Reorder

if TYPE_CHECKING:
    from .sandbox.faulty_proxy import FaultyProxy
    from .sandbox.sandbox import Sandbox

POST_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 60.0
"""If no message is delivered in this time, the command stops waiting."""
STALLED: Final = (
    f"{{}} messages are not delivered, and none was in the last {STALLED_SECONDS:g} s; "
    "see fotahook messages list {} --state pending"
)
NO_CALLBACK: Final = "account {} has no callback: its messages wait; see fotahook callbacks register --help"

_MAX_BATCH: Final = 500
_POLL_SECONDS: Final = 0.1

Advance: TypeAlias = Callable[[int], None]
"""Shows how many messages were sent."""


class NotSent(Exception):
    """The target refused a message, or nothing answers there."""

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


class RateLimiter:
    """Allows so many messages a second, without catching up after a pause; `rate` 0 is no limit."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self.sleep = sleep
        self._next = clock()

    @property
    def batch_size(self) -> int:
        """How many messages to send at once: a tenth of a second's."""
        return _MAX_BATCH if self._rate == 0 else max(1, min(_MAX_BATCH, int(self._rate / 10)))

    def wait(self, count: int) -> None:
        """Return when so many messages may be sent."""
        now = self._clock()
        if self._next > now:
            self.sleep(self._next - now)
        self._next = max(self._next, now) + (count / self._rate if self._rate else 0.0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the messages, as far as it is known: counts by name, and what was not delivered."""

    counts: Mapping[str, int]
    lost: str | None = None
    held: str | None = None
    """Why messages wait although nothing failed."""


@dataclass
class _Target:
    """What all targets share: the rate, and the number of messages sent."""

    limiter: RateLimiter
    advance: Advance
    sent: int = field(default=0, init=False)

    def pause(self, seconds: float) -> None:
        self.limiter.sleep(seconds)

    def _count(self, messages: int) -> None:
        self.sent += messages
        self.advance(self.sent)


@dataclass
class ListenerTarget(_Target):
    """A listener, posted to as ThingSpace does: JSON, unsigned, one message after the other, without retries."""

    url: str
    http: urllib3.PoolManager
    _duplicates: int = field(default=0, init=False)
    _results: Counter[str] = field(default_factory=Counter, init=False)

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        before = self.sent
        for message in messages:
            self.limiter.wait(1)
            for _ in range(2 if self._duplicates else 1):
                self._post(message.body)
            self._duplicates = max(0, self._duplicates - 1)
            self._count(1)
        return self.sent - before

    def inject(self, fault: Fault) -> None:
        self._duplicates += fault.times

    def finish(self) -> Result:
        posts = self._results.total()
        failed = {name: count for name, count in self._results.items() if not name.startswith("http_2")}
        reasons = ", ".join(f"{count} {name}" for name, count in failed.items())
        lost = f"{sum(failed.values())} of {posts} posts failed: {reasons}; see the listener's log" if failed else None
        return Result(counts={"posted": posts, **self._results}, lost=lost)

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"fotahook-simulate/{VERSION}"}
        try:
            response = self.http.request("POST", self.url, body=body, headers=headers, redirect=False)
            result = f"http_{response.status}"
        except urllib3.exceptions.HTTPError as error:
            if not self._results:
                raise NotSent(f"{self.url}: {_reason(error)}", refused=False) from error
            result = "no_answer"
        self._results[result] += 1


@dataclass
class ServiceTarget(_Target):
    """A service, which delivers to the account's callback; `receiver` injects faults on the way there."""

    account: str
    operator: OperatorClient
    receiver: "FaultyProxy | None"

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        remaining, before = iter(messages), self.sent
        while batch := list(islice(remaining, self.limiter.batch_size)):
            self.limiter.wait(len(batch))
            lines = [BatchMessage(self.account, one.body, ordering_key=one.device) for one in batch]
            for answer in self.operator.publish_batch(lines):
                if isinstance(answer, Refused):
                    raise NotSent(f"{answer.error_code}: {answer.error_message}", refused=True)
            self._count(len(batch))
            if self.receiver is not None:
                self.receiver.restore_certificate()
        return self.sent - before

    def inject(self, fault: Fault) -> None:
        assert self.receiver is not None  # a script with such a fault starts it
        self.receiver.inject(fault)

    def finish(self) -> Result:
        """With a faulty receiver, wait until everything is delivered, or nothing moves any more."""
        if self.receiver is None:
            return Result(counts={}, held=NO_CALLBACK.format(self.account) if self._is_held() else None)
        before, moved_at = -1, time.monotonic()
        while pending := self.operator.account(self.account).backlog.pending:
            if pending != before:
                before, moved_at = pending, time.monotonic()
            if time.monotonic() - moved_at > STALLED_SECONDS:
                break
            self.receiver.restore_certificate()
            time.sleep(_POLL_SECONDS)
        counts = {"received": self.receiver.forwarded, "pending": pending}
        return Result(counts=counts, lost=STALLED.format(pending, self.account) if pending else None)

    def _is_held(self) -> bool:
        try:
            return self.operator.account(self.account).lane.state == "held"
        except (PermissionDenied, NotFound):
            return False  # a client with only the publish scope cannot know


@dataclass
class ThingspaceTarget(ServiceTarget):
    """A sandbox that sends to a listener as ThingSpace was measured to do. Its clients may change the callback."""

    sandbox: "Sandbox"
    former_url: str | None
    url: str

    def __post_init__(self) -> None:
        for url in filter(None, (self.former_url, self.url)):
            self.sandbox.register(self.account, url)

    def inject(self, fault: Fault) -> None:
        self.sandbox.faults.deliveries.add(fault)

    def finish(self) -> Result:
        while (backlog := self.operator.account(self.account).backlog).pending:
            if self._is_held():
                # What came while nothing was registered waits in the sandbox: it is dropped now.
                self.sandbox.register(self.account, self.url)
            time.sleep(_POLL_SECONDS)
        posts = self.sandbox.deliveries()
        counts = {"posted": len(posts), "dropped": self.sent - len({one.id for one in posts})}
        if self.former_url is not None:
            counts["postedToFormer"] = sum(one.url == self.former_url for one in posts)
        lost = f"{backlog.dead} of {self.sent} messages are lost, as ThingSpace loses them" if backlog.dead else None
        return Result(counts=counts | Counter(one.outcome for one in posts), lost=lost)


Target: TypeAlias = ListenerTarget | ServiceTarget


@contextmanager
def listener_target(url: str, ca_file: Path | None, rate: float, advance: Advance) -> Iterator[ListenerTarget]:
    """A target that posts to a listener."""
    authorities = None if ca_file is None else str(ca_file)
    with urllib3.PoolManager(timeout=urllib3.Timeout(POST_SECONDS), retries=False, ca_certs=authorities) as http:
        yield ListenerTarget(RateLimiter(rate), advance, url, http)


@contextmanager
def thingspace_target(
    account: str, former_url: str | None, url: str, seed: str, rate: float, advance: Advance
) -> Iterator[ThingspaceTarget]:
    """A target that posts to a listener as ThingSpace does: for some minutes, some messages go to the former URL."""
    from .sandbox.sandbox import Sandbox

    with Sandbox(timeout=POST_SECONDS, profile="thingspace", seed=seed) as sandbox, sandbox.operator() as operator:
        yield ThingspaceTarget(RateLimiter(rate), advance, account, operator, None, sandbox, former_url, url)


@contextmanager
def service_target(
    account: str,
    operator: OperatorClient,
    callbacks: Callable[[], Client],
    script: FaultScript,
    rate: float,
    advance: Advance,
) -> Iterator[ServiceTarget]:
    """A target that publishes to a service; faults of a script replace the account's callback for a time."""
    needs_receiver = any(not isinstance(step, Pause | Reorder) for step in script.steps)
    receiver_context = _faulty_receiver(account, callbacks) if needs_receiver else nullcontext()
    with operator, receiver_context as receiver:
        yield ServiceTarget(RateLimiter(rate), advance, account, operator, receiver)


@contextmanager
def _faulty_receiver(account: str, connect: Callable[[], Client]) -> "Iterator[FaultyProxy]":
    """A faulty receiver in front of the account's callback, which is registered again afterwards."""
    from .sandbox.faulty_proxy import faulty_proxy

    with connect() as client:
        callbacks = client.software_management_callbacks_v2
        summary = callbacks.list_registered_callbacks(account).data
        before = None if summary is None else summary.url

        def register(url: str) -> None:
            callbacks.update_callback(account, FotaV2CallbackRegistrationRequest(url))

        with faulty_proxy(before, register) as proxy:
            try:
                register(proxy.url)
                yield proxy
            finally:
                if before is None:
                    callbacks.deregister_callback(account)
                else:
                    register(before)


def _reason(error: Exception) -> str:
    """What happened, without the library's objects, and what to do."""
    reason = str(error).rpartition(": ")[2].rstrip(".")
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"no TLS connection: {reason}; check the certificate, or give its authority with --ca-file"
    return f"{reason}; check that the listener runs"
