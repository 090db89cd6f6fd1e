"""How ThingSpace sends: each message is planned from a seed; the sandbox carries a plan out.

The numbers were measured for its connectivity callbacks; that this API's sender is the same is likely, not sure. Where
each comes from: docs/testing.md, The profile of ThingSpace.
"""

from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Final
from uuid import UUID

import msgspec

Basic = tuple[str, str]

SOURCES: Final = ("3.87.163.45", "3.91.119.203", "34.216.81.234", "54.197.62.209", "54.200.43.232", "68.128.212.217")
"""The published addresses that messages came from."""
USER_AGENT: Final = "Verizon's callback service"
RETRY_SECONDS: Final = (1.15, 1.69)
"""After a refusal the message comes once more, so much later; then never again."""
ANSWER_SECONDS: Final = 4.0
"""Without an answer for so long, a second copy comes while the first is still running."""
LAG_SECONDS: Final = (567.0, 835.0)
"""How long messages still come with the registration that was replaced, mixed with the new one."""
THRESHOLD: Final = 4


class Registration(msgspec.Struct, frozen=True):
    """A callback since `at`; `url` is None where it was deregistered. `revision` grows with each."""

    at: float
    revision: int
    url: str | None
    basic: Basic | None = None


class Plan(msgspec.Struct, frozen=True):
    """How one message is sent: where, from which addresses, and how long after a refusal it is sent again."""

    url: str
    basic: Basic | None
    request_id: str
    wait: float
    addresses: tuple[str, str]

    def request(self, message: bytes, count: int) -> tuple[dict[str, str], bytes]:
        """Headers and body of the first or second copy. The address is one that a trusted proxy would name."""
        credentials = dict(zip(("username", "password"), self.basic, strict=True)) if self.basic else {}
        added = {"requestId": self.request_id, "callbackCount": count, "maxCallbackThreshold": THRESHOLD}
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        headers["X-Forwarded-For"] = self.addresses[count - 1]
        return headers, msgspec.json.encode({**msgspec.json.decode(message), **credentials, **added})


def plan(seed: int | str, message: bytes, registrations: Sequence[Registration], *, sent_at: float) -> Plan | None:
    """How a message of `sent_at` is sent; None if it is dropped, because nothing is registered.

    The same seed, message and revisions give the same plan. `registrations` are in the order of their time.
    """
    rng = Random(f"fotahook thingspace {seed} {sha256(message).hexdigest()}")
    request_id, wait = str(UUID(int=rng.getrandbits(128), version=4)), rng.uniform(*RETRY_SECONDS)
    first = rng.choice(SOURCES)
    second = rng.choice(SOURCES) if rng.random() < 5 / 17 else first
    is_stale = rng.random() < 1 / 2
    *earlier, current = [one for one in registrations if one.at <= sent_at] or [Registration(0.0, 0, None)]
    if current.url is None:
        return None
    former = next((one for one in reversed(earlier) if one.url is not None), current)
    lag = Random(f"fotahook thingspace {seed} {current.revision}").uniform(*LAG_SECONDS)
    chosen = former if is_stale and sent_at < current.at + lag else current
    return Plan(chosen.url or current.url, chosen.basic, request_id, wait, (first, second))
