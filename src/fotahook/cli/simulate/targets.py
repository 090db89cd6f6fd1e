"""Where a simulated campaign goes: straight to a listener, or through a service, with a receiver of ours if need be."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import urllib3

from fotahook.client import Client
from fotahook.contract.errors import NotFound, PermissionDenied
from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.contract.operator import BatchMessage, Refused
from fotahook.contract.version import VERSION
from fotahook.testing.simulator.campaign import CampaignMessage
from fotahook.testing.simulator.fault_script import (
    Duplicate,
    Fault,
    FaultScript,
    Pause,
    Reorder,
    ScriptTarget,
    UntrustedCertificate,
)

from ..shared.errors import REFUSED, UNREACHABLE, Failure, UsageError
from ..shared.remote import Remote

if TYPE_CHECKING:
    from fotahook.testing.sandbox.faulty_proxy import FaultyProxy

POST_SECONDS: Final = 15.0
PATIENCE_SECONDS: Final = 60.0
"""Without a single message delivered in this time, the rest is left as it is."""

_BATCH: Final = 500
_POLL_SECONDS: Final = 0.1
_SENDER_STEPS: Final = (Duplicate, Pause, Reorder)

Advance = Callable[[int], None]


class Unreachable(Failure):
    """Nobody is there."""

    code = UNREACHABLE


class NotAccepted(Failure):
    """The service said no."""

    code = REFUSED


class LiveTarget(ScriptTarget, Protocol):
    """A target that reports its results."""

    def finish(self) -> None:
        """Wait for what is still on its way."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the messages, by name."""

    @property
    def lost(self) -> str | None:
        """What was not delivered, as far as this is known here, and what to do; None if nothing was lost."""

    @property
    def waiting(self) -> str | None:
        """Why nothing is delivered for now; None if nothing is in the way."""


class Pace:
    """So many messages a second, and no more to make up for a pause."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    @property
    def batch(self) -> int:
        """How many to send at once: a tenth of a second's."""
        return _BATCH if self._rate == 0 else max(1, min(_BATCH, int(self._rate / 10)))

    def wait(self, count: int) -> None:
        """Return when so many may be sent."""
        now = self._clock()
        if self._next > now:
            self._sleep(self._next - now)
        self._next = max(self._next, now) + (count / self._rate if self._rate else 0.0)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._sleep(seconds)


class Direct:
    """A listener, posted to as ThingSpace would: JSON, no signature, one after the other, none twice."""

    def __init__(self, url: str, ca_file: Path | None, pace: Pace, advance: Advance) -> None:
        self._url = url
        self._pace = pace
        self._advance = advance
        self._duplicates = 0
        self._sent = 0
        self._answers: dict[str, int] = {}
        trusted = None if ca_file is None else str(ca_file)
        timeout = urllib3.Timeout(POST_SECONDS)
        self._http = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=trusted)

    @staticmethod
    def check(script: FaultScript) -> None:
        """UsageError for steps that need a receiver of ours."""
        for step in script.steps:
            if not isinstance(step, _SENDER_STEPS):
                name = step.__struct_config__.tag
                raise UsageError(
                    f"--fault-script: {name} is the receiver's, and with --to that is yours; leave out --to"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.clear()

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        sent = 0
        for message in messages:
            self._pace.wait(1)
            for _ in range(2 if self._duplicates else 1):
                self._post(message.body)
            self._duplicates = max(0, self._duplicates - 1)
            sent += 1
            self._sent += 1
            self._advance(self._sent)
        return sent

    def pause(self, seconds: float) -> None:
        self._pace.pause(seconds)

    def inject(self, fault: Fault) -> None:
        self._duplicates += fault.times

    def finish(self) -> None: ...

    @property
    def counts(self) -> Mapping[str, int]:
        return {"posted": sum(self._answers.values()), **self._answers}

    @property
    def lost(self) -> str | None:
        lost = {name: count for name, count in self._answers.items() if not name.startswith("http_2")}
        if not lost:
            return None
        told = ", ".join(f"{count} {name}" for name, count in lost.items())
        return f"{sum(lost.values())} of {self.counts['posted']} posts were not taken: {told}; see the listener's log"

    @property
    def waiting(self) -> str | None:
        return None

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"fotahook-simulate/{VERSION}"}
        try:
            answered = self._http.request("POST", self._url, body=body, headers=headers, redirect=False)
            name = f"http_{answered.status}"
        except urllib3.exceptions.HTTPError as error:
            if not self._answers:
                raise Unreachable(f"--to {self._url}: {_told(error)}") from error
            name = "no_answer"
        self._answers[name] = self._answers.get(name, 0) + 1


class Through:
    """A service, which delivers to the account's callback.

    Where the script wants a receiver to go wrong, ours is registered meanwhile, and passes on to the callback that was.
    """

    def __init__(self, account: str, remote: Remote, script: FaultScript, pace: Pace, advance: Advance) -> None:
        self._account = account
        self._remote = remote
        self._pace = pace
        self._advance = advance
        self._needs_proxy = any(not isinstance(step, Pause | Reorder) for step in script.steps)
        self._proxy: FaultyProxy | None = None
        self._untrusted_until: int | None = None
        self._sent = 0
        self._pending = 0
        self._held = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._operator = stack.enter_context(self._remote.operator())
            if self._needs_proxy:
                self._start_proxy(stack)
            self._leaving = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.close()

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        stream, sent = iter(messages), 0
        while batch := list(islice(stream, self._pace.batch)):
            self._pace.wait(len(batch))
            lines = [BatchMessage(self._account, one.body, ordering_key=one.device) for one in batch]
            for answer in self._operator.publish_batch(lines):
                if isinstance(answer, Refused):
                    raise NotAccepted(f"after {self._sent} messages: {answer.error_code}: {answer.error_message}")
            sent += len(batch)
            self._sent += len(batch)
            self._advance(self._sent)
            self._see_to_certificate()
        return sent

    def pause(self, seconds: float) -> None:
        self._pace.pause(seconds)

    def inject(self, fault: Fault) -> None:
        proxy = self._running_proxy
        if isinstance(fault, UntrustedCertificate):
            self._untrusted_until = proxy.untrusted.connections + fault.times
            self._register(proxy.untrusted.url)
        else:
            proxy.faults.add(fault)

    def finish(self) -> None:
        """With a receiver of ours: wait until everything is delivered, or nothing moves any more."""
        if self._proxy is None:
            self._held = self._is_held()
            return
        moved_at = time.monotonic()
        while (pending := self._operator.account(self._account).backlog.pending) > 0:
            if pending != self._pending:
                self._pending, moved_at = pending, time.monotonic()
            if time.monotonic() - moved_at > PATIENCE_SECONDS:
                return
            self._see_to_certificate()
            time.sleep(_POLL_SECONDS)
        self._pending = 0

    @property
    def counts(self) -> Mapping[str, int]:
        if self._proxy is None:
            return {}
        return {"received": self._proxy.forwarded, "pending": self._pending}

    @property
    def lost(self) -> str | None:
        if self._pending == 0:
            return None
        return (
            f"{self._pending} messages are not delivered, and for {PATIENCE_SECONDS:g} s none was; "
            f"see fotahook messages list {self._account} --state pending"
        )

    @property
    def waiting(self) -> str | None:
        if not self._held:
            return None
        return f"account {self._account} has no callback: its messages wait; see fotahook callbacks register --help"

    def _is_held(self) -> bool:
        try:
            return self._operator.account(self._account).lane.state == "held"
        except (PermissionDenied, NotFound):
            return False  # who may only publish need not know

    # The receiver of ours

    @property
    def _running_proxy(self) -> "FaultyProxy":
        assert self._proxy is not None  # a script with such a step opens it
        return self._proxy

    def _start_proxy(self, stack: ExitStack) -> None:
        from fotahook.testing.sandbox.faulty_proxy import faulty_proxy

        self._client: Client = stack.enter_context(self._remote.client())
        callbacks = self._client.software_management_callbacks_v2
        summary = callbacks.list_registered_callbacks(self._account).data
        before = None if summary is None else summary.url
        self._proxy = stack.enter_context(faulty_proxy(before))
        stack.callback(self._restore, before)
        self._register(self._proxy.url)

    def _restore(self, before: str | None) -> None:
        if before is None:
            self._client.software_management_callbacks_v2.deregister_callback(self._account)
        else:
            self._register(before)

    def _register(self, url: str) -> None:
        body = FotaV2CallbackRegistrationRequest(url)
        self._client.software_management_callbacks_v2.update_callback(self._account, body)

    def _see_to_certificate(self) -> None:
        """Show the right certificate again once as many as the step says have met the wrong one."""
        if self._untrusted_until is not None and self._running_proxy.untrusted.connections >= self._untrusted_until:
            self._untrusted_until = None
            self._register(self._running_proxy.url)


def _told(error: Exception) -> str:
    """What happened, without the library's objects, and what to do."""
    reason = str(error).rpartition(": ")[2].rstrip(".")
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"no TLS connection: {reason}; check the certificate, or give its authority with --ca-file"
    return f"{reason}; check that the listener runs"
