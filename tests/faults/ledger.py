"""The ledger outside the system: what was promised, what arrived, which faults there were, and what must hold."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from .schedule import Fault

RECOVERY_SECONDS: Final = 12.0
"""How long after a fault of all an account may still wait because of it: for a lease to end, and for what piled up."""


@dataclass(frozen=True)
class Promise:
    """A message that was answered with 202."""

    account: str
    key: str | None
    body: bytes
    at: float


@dataclass
class Window:
    """The time of a fault, and what it touched."""

    fault: Fault
    accounts: frozenset[str] | None
    """None for all."""
    began: float
    ended: float = float("inf")

    def touches(self, account: str, since: float, until: float, *, after: float = 0.0) -> bool:
        """Whether it explains what happened to an account in this time; `after`: and so many seconds later."""
        concerned = self.accounts is None or account in self.accounts
        return concerned and self.began <= until and since <= self.ended + after


@dataclass(frozen=True)
class Verdict:
    """What the ledger says of one run."""

    accepted: int
    lost: Sequence[str]
    """Accepted, and never received."""
    altered: Sequence[str]
    """Received with other bytes, or never published."""
    disordered: Sequence[str]
    """Whose first delivery came before that of an earlier message of its key."""
    unexplained: Sequence[str]
    """Received twice while no fault touched them."""
    duplicates: Mapping[str, int]
    """How many, by the faults that explain them."""
    quiet_p99: float | None
    """Seconds from 202 to the receiver, without any fault; None where there was no such time."""
    neighbours_p99: float | None
    """The same for accounts whose receivers are well, while others' are not."""

    @property
    def holds(self) -> bool:
        return not (self.lost or self.altered or self.disordered or self.unexplained)

    def __str__(self) -> str:
        told = f"lost {len(self.lost)}, altered {len(self.altered)}, out of order {len(self.disordered)}"
        twice = ", ".join(f"{number} by {fault}" for fault, number in sorted(self.duplicates.items())) or "none"
        return (
            f"{self.accepted} accepted: {told}; duplicates: {len(self.unexplained)} unexplained, explained: {twice}; "
            f"p99 quiet {_milliseconds(self.quiet_p99)}, beside others' trouble {_milliseconds(self.neighbours_p99)}"
        )


@dataclass
class Ledger:
    """Filled by publishers, receivers and whoever injects faults; all on one clock."""

    grace: float
    """Seconds for which a fault that is over may still show: attempts that began before."""
    promises: dict[str, Promise] = field(default_factory=dict)
    arrivals: list[tuple[float, str, bytes]] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    received: set[str] = field(default_factory=set)
    _promised: Counter[str] = field(default_factory=Counter)
    _came: Counter[str] = field(default_factory=Counter)

    def promise(self, message_id: str, promise: Promise) -> None:
        self.promises[message_id] = promise
        self._promised[promise.account] += 1

    def arrive(self, at: float, account: str, message_id: str, body: bytes) -> None:
        self.arrivals.append((at, message_id, body))
        if message_id not in self.received:
            self.received.add(message_id)
            self._came[account] += 1

    def begin(self, fault: Fault, accounts: frozenset[str] | None, at: float) -> Window:
        window = Window(fault, accounts, at)
        self.windows.append(window)
        return window

    def backlog(self, account: str) -> int:
        """How many messages of an account were promised and have not come so far, give or take a few."""
        return self._promised[account] - self._came[account]

    @property
    def missing(self) -> set[str]:
        """What was promised and has not come so far."""
        return self.promises.keys() - self.received

    def verdict(self) -> Verdict:
        times: defaultdict[str, list[float]] = defaultdict(list)
        for at, message_id, _ in self.arrivals:
            times[message_id].append(at)
        explained: Counter[str] = Counter()
        unexplained = []
        for message_id, each in times.items():
            for before, again in pairwise(each):
                why = self._explain(message_id, before, again)
                if why is None:
                    unexplained.append(message_id)
                else:
                    explained[why] += 1
        quiet, beside = self._latencies(times)
        return Verdict(
            accepted=len(self.promises),
            lost=sorted(self.missing),
            altered=sorted({name for _, name, body in self.arrivals if not self._is_promised(name, body)}),
            disordered=self._disordered(times),
            unexplained=unexplained,
            duplicates=explained,
            quiet_p99=_p99(quiet),
            neighbours_p99=_p99(beside),
        )

    def _is_promised(self, message_id: str, body: bytes) -> bool:
        return message_id in self.promises and self.promises[message_id].body == body

    def _explain(self, message_id: str, before: float, again: float) -> str | None:
        if message_id not in self.promises:
            return None
        account = self.promises[message_id].account
        found = [one for one in self.windows if one.touches(account, before, again, after=self.grace)]
        # The one of this account alone says more than those of all.
        return str(min(found, key=lambda one: one.accounts is None).fault) if found else None

    def _disordered(self, times: Mapping[str, Sequence[float]]) -> list[str]:
        latest: dict[tuple[str, str], float] = {}
        found = []
        # In the order in which they were promised, which is that of each key's one publisher.
        for message_id, promise in self.promises.items():
            if promise.key is None or message_id not in times:
                continue
            first = times[message_id][0]
            if first < latest.get((promise.account, promise.key), first):
                found.append(message_id)
            latest[promise.account, promise.key] = max(first, latest.get((promise.account, promise.key), first))
        return found

    def _latencies(self, times: Mapping[str, Sequence[float]]) -> tuple[list[float], list[float]]:
        """Of accounts that no fault touched at that time: without any fault, and beside a fault of others."""
        quiet: list[float] = []
        beside: list[float] = []
        for message_id, promise in self.promises.items():
            if message_id not in times:
                continue
            since, until = promise.at, times[message_id][0]
            if any(one.touches(promise.account, since, until, after=RECOVERY_SECONDS) for one in self.windows):
                continue
            others = any(one.began <= until and since <= one.ended for one in self.windows)
            (beside if others else quiet).append(max(0.0, until - since))
        return quiet, beside


def _p99(seconds: Sequence[float]) -> float | None:
    return sorted(seconds)[int(0.99 * len(seconds))] if seconds else None


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{1000 * seconds:.0f} ms"
