"""What is to go wrong next, and for how many: asked for by a test, met by whoever comes by."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

CALLBACK_CALLS: Final = "/api/fota/v2/callbacks/"


class Trouble(msgspec.Struct, frozen=True):
    """Something that goes wrong on the way."""


class Answer(Trouble, frozen=True):
    """Nothing arrives; this is answered in its place. `retry_after` is seconds."""

    status: int
    retry_after: float | None = None


class Drop(Trouble, frozen=True):
    """Nothing arrives; the connection is closed without an answer."""


class Delay(Trouble, frozen=True):
    """It arrives so many seconds late."""

    seconds: float


class Duplicate(Trouble, frozen=True):
    """It arrives twice."""


class Distrust(Trouble, frozen=True):
    """Nothing arrives; the certificate shown is of an authority that nobody trusts."""


@dataclass
class _Wanted:
    trouble: Trouble
    left: int
    meets: Callable[[str], bool]


class Troubles:
    """Troubles in the order in which they were asked for. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[_Wanted] = []

    def add(self, trouble: Trouble, times: int, meets: Callable[[str], bool]) -> None:
        """Let the next `times` of those that it `meets` have this trouble; ValueError for less than one."""
        if times < 1:
            raise ValueError(f"a fault is met once or more, not {times} times")
        with self._lock:
            self._wanted.append(_Wanted(trouble, times, meets))

    def take(self, subject: str) -> Trouble | None:
        """The trouble that this one has: the first that meets it and is not used up."""
        with self._lock:
            for wanted in self._wanted:
                if wanted.meets(subject):
                    wanted.left -= 1
                    if wanted.left == 0:
                        self._wanted.remove(wanted)
                    return wanted.trouble
        return None

    @property
    def left(self) -> int:
        """How many are still to have trouble."""
        with self._lock:
            return sum(wanted.left for wanted in self._wanted)

    def clear(self) -> None:
        """Let everything go well again."""
        with self._lock:
            self._wanted.clear()


class DeliveryFaults:
    """What may go wrong with deliveries. Each method is about the next `times` attempts, to one `account` or to all."""

    def __init__(self) -> None:
        self.deliveries = Troubles()

    def answer_deliveries(
        self, status: int = 500, *, times: int = 1, retry_after: float | None = None, account: str | None = None
    ) -> None:
        """The receiver gets nothing and answers with this status; `retry_after` seconds become its header."""
        self.deliveries.add(_answer(status, retry_after), times, _to(account))

    def drop_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets nothing and closes the connection."""
        self.deliveries.add(Drop(), times, _to(account))

    def delay_deliveries(self, seconds: float, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it so many real seconds late."""
        self.deliveries.add(_delay(seconds), times, _to(account))

    def duplicate_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it twice, under the same id."""
        self.deliveries.add(Duplicate(), times, _to(account))

    def distrust_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver shows a certificate that nobody trusts. Needs `pip install 'fotahook[testing]'`."""
        self.deliveries.add(Distrust(), times, _to(account))


class Faults(DeliveryFaults):
    """What a test may break: the next `times` deliveries or API calls.

    Deliveries: attempts, to one `account` or to all. Calls: requests whose path contains `path`; by default those of
    ThingSpace's four calls, and with `path=""` everything that the service answers, tokens and ``Sandbox.publish``
    included. Faults are met in the order in which they were asked for.
    """

    def __init__(self, expire: Callable[[str], None]) -> None:
        super().__init__()
        self.calls = Troubles()
        self._expire = expire

    @property
    def left(self) -> int:
        """How many faults nobody has met yet."""
        return self.deliveries.left + self.calls.left

    def clear(self) -> None:
        """Forget the faults that nobody has met yet."""
        self.deliveries.clear()
        self.calls.clear()

    def answer_calls(
        self, status: int = 503, *, times: int = 1, retry_after: float | None = None, path: str = CALLBACK_CALLS
    ) -> None:
        """The service does nothing and answers with this status; `retry_after` seconds become its header."""
        self.calls.add(_answer(status, retry_after), times, lambda called: path in called)

    def drop_calls(self, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service does nothing and closes the connection."""
        self.calls.add(Drop(), times, lambda called: path in called)

    def delay_calls(self, seconds: float, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service begins so many real seconds late."""
        self.calls.add(_delay(seconds), times, lambda called: path in called)

    def expire_tokens(self) -> None:
        """End every access token now. The clock moves on by a second: for so long a service trusts its memory."""
        self._expire("token")

    def expire_sessions(self) -> None:
        """End every session now. The clock moves on by a second, as for tokens."""
        self._expire("session")


def _answer(status: int, retry_after: float | None) -> Answer:
    if not 200 <= status <= 599:
        raise ValueError(f"a status is 200 to 599, not {status}")
    if retry_after is not None and retry_after < 0:
        raise ValueError(f"retry_after is 0 or more seconds, not {retry_after}")
    return Answer(status, retry_after)


def _delay(seconds: float) -> Delay:
    if not 0 <= seconds <= 60:
        raise ValueError(f"a delay is 0 to 60 seconds, not {seconds}")
    return Delay(seconds)


def _to(account: str | None) -> Callable[[str], bool]:
    return lambda delivered: account in (None, delivered)
