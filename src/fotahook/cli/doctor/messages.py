"""The test messages of `fotahook doctor`, and what it makes of the answers.

They are of a type of our own, so that no application takes one for news of a device: ``fotahookDoctor``.
"""

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import msgspec

from fotahook.contract import signing
from fotahook.contract.keys import signing_seed
from fotahook.contract.version import VERSION
from fotahook.delivery.outcomes import Outcome, trouble_of
from fotahook.delivery.sender import Sender

from .findings import Check, Clock, Examination, failed, passed, warned

TYPE: Final = "fotahookDoctor"
SLOW_MILLISECONDS: Final = 3000
"""Above this an answer is slow; ours, ThingSpace names no limit."""

_FIXES: Final = {
    401: "If it verifies signatures, give its secret with --secret whsec_…, or set FOTAHOOK_SECRET_KEY to that of the "
    "service whose public key it knows.",
    403: "If it lets only certain addresses in, run this from one of them. If it verifies signatures, give its secret "
    "with --secret whsec_….",
    404: "Nothing receives messages at that path: check the URL's path.",
    405: "That path takes no POST: check the URL's path.",
    410: "It says that it is gone for good: register another URL.",
}
_CLIENT_CERTIFICATE: Final = (
    " It may also ask for a client certificate: give one with --client-cert; ThingSpace shows none."
)
_FAMILIES: Final = {
    4: "The receiver refuses the test message: see its log. It should answer 2xx to types that it does not know.",
    5: "The receiver failed on the test message: see its log.",
}


async def check_messages(examination: Examination, *, clock: Clock, monotonic: Clock) -> AsyncIterator[Check]:
    """A signed message, the same once more, one that was changed on its way, and one that nobody signed."""
    async with Sender(examination.sender, clock=clock, monotonic=monotonic) as sender:
        write = Writer(examination, clock)
        body = write.body("signed")
        outcome = await sender.send(examination.url, write.headers("signed", body), body)
        checked = of_answer(outcome)
        yield checked
        if checked.result == "fail":
            return
        yield of_time(outcome)
        yield of_duplicate(await sender.send(examination.url, write.headers("signed", body, attempt=2), body))
        changed = write.body("changed")
        yield of_tampered(await sender.send(examination.url, write.headers("tampered", body), changed))
        plain = write.body("unsigned")
        yield of_unsigned(await sender.send(examination.url, write.plain_headers(), plain))


class Writer:
    """Writes test messages: harmless, and easy to tell from others."""

    def __init__(self, examination: Examination, clock: Clock) -> None:
        self._examination = examination
        self._clock = clock

    def body(self, test: str) -> bytes:
        """A message of our own type, of an account that is nobody's."""
        return msgspec.json.encode(
            {
                "accountName": self._examination.account,
                "type": TYPE,
                "test": test,
                "run": self._examination.run,
                "note": "A test by fotahook doctor. There is nothing to do.",
            }
        )

    def headers(self, test: str, body: bytes, *, attempt: int = 1) -> dict[str, str]:
        """As of a delivery, with signatures of a body."""
        message_id, timestamp = f"doctor-{self._examination.run}-{test}", int(self._clock())
        seed, secret = signing_seed(self._examination.sender.secret_key), self._examination.secret
        signatures = [signing.sign_ed25519(seed, message_id, timestamp, body)]
        if secret is not None:
            signatures.append(signing.sign_hmac(secret, message_id, timestamp, body))
        return {
            **self.plain_headers(),
            "Fotahook-Account": quote(self._examination.account, safe=""),
            "Fotahook-Attempt": str(attempt),
            **signing.headers(message_id, timestamp, signatures),
        }

    def plain_headers(self) -> dict[str, str]:
        """As of a message that ThingSpace sends."""
        return {"Content-Type": "application/json", "User-Agent": f"fotahook-doctor/{VERSION}"}


def of_answer(outcome: Outcome) -> Check:
    """To a message that is in order in every way."""
    if trouble_of(outcome) == "none":
        return passed("answer", f"{_told(outcome)} to a signed test message")
    return failed("answer", _told(outcome), _fix(outcome))


def of_time(outcome: Outcome) -> Check:
    """How long the answer took, and what of it."""
    total = outcome.phases["total"]
    found = f"{total:.0f} ms: " + ", ".join(
        f"{phase} {milliseconds:.0f}" for phase, milliseconds in outcome.phases.items() if phase != "total"
    )
    if total <= SLOW_MILLISECONDS:
        return passed("time", found)
    fix = "Store the message, answer, and work on it afterwards: a sender that waits sends less, or gives up."
    return warned("time", found, fix)


def of_duplicate(outcome: Outcome) -> Check:
    """To the same message under the same id, as it comes when an answer was lost."""
    if trouble_of(outcome) == "none":
        return passed("duplicate", f"{_told(outcome)} to the same message again")
    return failed(
        "duplicate",
        f"{_told(outcome)} to the same message again",
        "Answer 2xx to a message that is there already: until then it comes again and again.",
    )


def of_tampered(outcome: Outcome) -> Check:
    """To a body that its signature does not cover."""
    if _is_refusal(outcome):
        return passed("tampered", f"{_told(outcome)} to a message that was changed on its way")
    if trouble_of(outcome) == "none":
        fix = "ThingSpace signs nothing, so for it this is right. Behind fotahook have the receiver verify signatures."
        return warned("tampered", f"{_told(outcome)} to a message that was changed on its way", fix)
    return _neither("tampered", outcome)


def of_unsigned(outcome: Outcome) -> Check:
    """To a message as ThingSpace sends them."""
    if _is_refusal(outcome):
        found = f"{_told(outcome)} to an unsigned message: right behind fotahook, but ThingSpace signs nothing"
        return passed("unsigned", found)
    if trouble_of(outcome) == "none":
        fix = (
            "ThingSpace signs nothing, so for it this is right: let only its addresses in, or register a path that "
            "nobody can guess. Behind fotahook have the receiver verify signatures."
        )
        return warned("unsigned", f"{_told(outcome)} to an unsigned message: whoever knows the URL gets in", fix)
    return _neither("unsigned", outcome)


def _neither(check: str, outcome: Outcome) -> Check:
    fix = "It should answer 401: as it is, whoever sends this takes it for trouble and tries again."
    return warned(check, f"{_told(outcome)}, which neither takes the message nor refuses it", fix)


def _is_refusal(outcome: Outcome) -> bool:
    return trouble_of(outcome) in ("message", "gone") and outcome.status is not None and outcome.status < 500


def _told(outcome: Outcome) -> str:
    if outcome.status is None:
        return f"{outcome.code}: {outcome.excerpt}" if outcome.excerpt else outcome.code
    told = f"answers {outcome.status}"
    return told if trouble_of(outcome) == "none" or not outcome.excerpt else f"{told} ({outcome.excerpt[:200]})"


def _fix(outcome: Outcome) -> str:
    status = outcome.status or 0
    by_family = _FAMILIES.get(status // 100) if trouble_of(outcome) in ("message", "gone") else None
    fix = _FIXES.get(status) or by_family or outcome.fix or ""
    # The handshake is over by the time that such a receiver hangs up.
    return fix + _CLIENT_CERTIFICATE if outcome.code == "connection_lost" and "tls" in outcome.phases else fix
