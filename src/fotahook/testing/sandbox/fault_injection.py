"""Faults that tests request: each affects the next deliveries or API calls that match it."""

import threading
from collections.abc import Callable
from typing import Final

import msgspec

from ..simulator.fault_script import Delay, Drop, Duplicate, ErrorResponse, Fault, UntrustedCertificate

CALLBACK_CALLS: Final = "/api/fota/v2/callbacks/"


class FaultQueue:
    """Faults in the order in which they were requested. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[tuple[Fault, Callable[[str], bool]]] = []

    def add(self, fault: Fault, matches: Callable[[str], bool] = lambda _: True) -> None:
        """Inject a fault into the next `fault.times` subjects that match. Raises ValueError for less than one."""
        if fault.times < 1:
            raise ValueError(f"a fault is injected at least once, not {fault.times} times")
        with self._lock:
            self._planned.append((fault, matches))

    def take(self, subject: str = "") -> Fault | None:
        """The first fault left that matches, used up by one; None if there is none."""
        with self._lock:
            for place, (fault, matches) in enumerate(self._planned):
                if matches(subject):
                    rest = msgspec.structs.replace(fault, times=fault.times - 1)
                    self._planned[place : place + 1] = [(rest, matches)] if rest.times else []
                    return fault
        return None

    @property
    def left(self) -> int:
        """The number of faults that are still to be injected."""
        with self._lock:
            return sum(fault.times for fault, _ in self._planned)

    def clear(self) -> None:
        """Drop the faults that are left."""
        with self._lock:
            self._planned.clear()


class Faults:
    """Faults that a test requests, of the next `times` deliveries or API calls.

    Deliveries: attempts, to one `account` or to all. Calls: requests whose path contains `path`. By default these are
    ThingSpace's four calls; with `path=""` every request to the service, including those for tokens and
    ``Sandbox.publish``. Faults are injected in the order in which they were requested.
    """

    def __init__(self, expire: Callable[[str], None]) -> None:
        self.deliveries = FaultQueue()
        self.calls = FaultQueue()
        self._expire = expire

    @property
    def left(self) -> int:
        """The number of faults that are still to be injected."""
        return self.deliveries.left + self.calls.left

    def clear(self) -> None:
        """Drop the faults that are left."""
        self.deliveries.clear()
        self.calls.clear()

    def answer_deliveries(
        self, status: int = 500, *, times: int = 1, retry_after: float | None = None, account: str | None = None
    ) -> None:
        """The receiver gets nothing and answers with this status; `retry_after` seconds become its header."""
        self._add_delivery(_response(status, retry_after, times), account)

    def drop_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets nothing and closes the connection."""
        self._add_delivery(Drop(times=times), account)

    def delay_deliveries(self, seconds: float, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it late by this many real seconds."""
        self._add_delivery(_delay(seconds, times), account)

    def duplicate_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver gets it twice, under the same id."""
        self._add_delivery(Duplicate(times=times), account)

    def distrust_deliveries(self, *, times: int = 1, account: str | None = None) -> None:
        """The receiver shows an untrusted certificate. Needs `pip install 'fotahook[testing]'`."""
        self._add_delivery(UntrustedCertificate(times=times), account)

    def answer_calls(
        self, status: int = 503, *, times: int = 1, retry_after: float | None = None, path: str = CALLBACK_CALLS
    ) -> None:
        """The service does nothing and answers with this status; `retry_after` seconds become its header."""
        self.calls.add(_response(status, retry_after, times), lambda called: path in called)

    def drop_calls(self, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service does nothing and closes the connection.

        A client sends a call once more if its connection was kept from an earlier one: then two drops make it fail.
        """
        self.calls.add(Drop(times=times), lambda called: path in called)

    def delay_calls(self, seconds: float, *, times: int = 1, path: str = CALLBACK_CALLS) -> None:
        """The service begins late by this many real seconds."""
        self.calls.add(_delay(seconds, times), lambda called: path in called)

    def expire_tokens(self) -> None:
        """End every access token now. The clock advances by a second, for which a service caches tokens."""
        self._expire("token")

    def expire_sessions(self) -> None:
        """End every session now. The clock advances by a second, for which a service caches sessions."""
        self._expire("session")

    def _add_delivery(self, fault: Fault, account: str | None) -> None:
        self.deliveries.add(fault, lambda delivered: account in (None, delivered))


def _response(status: int, retry_after: float | None, times: int) -> ErrorResponse:
    if not 200 <= status <= 599:
        raise ValueError(f"a status is 200 to 599, not {status}")
    if retry_after is not None and retry_after < 0:
        raise ValueError(f"retry_after is 0 or more seconds, not {retry_after}")
    return ErrorResponse(status=status, retry_after=None if retry_after is None else int(retry_after), times=times)


def _delay(seconds: float, times: int) -> Delay:
    if not 0 <= seconds <= 60:
        raise ValueError(f"a delay is 0 to 60 seconds, not {seconds}")
    return Delay(seconds=seconds, times=times)
