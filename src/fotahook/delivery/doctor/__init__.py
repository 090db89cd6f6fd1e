"""Checks a callback URL before it is registered: each check passes, warns or fails, and says what to do.

The type of the test messages, ``fotahookDoctor``, is ours, so that no application takes them for news of a device.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from fotahook.contract import signing
from fotahook.contract.addresses import without_password
from fotahook.contract.keys import account_signing_seed, signing_seed
from fotahook.contract.operator import Check, CheckResult, Checks
from fotahook.contract.version import VERSION
from fotahook.delivery.outcomes import DELIVERED, Outcome, failure_of
from fotahook.delivery.sender import Sender, SenderSettings

from .checks import Target, check_addresses, check_connection, check_port, check_tls, check_url, failed, passed, warned

__all__ = ["Target", "check_receiver", "run_checks"]

TYPE: Final = "fotahookDoctor"
SLOW_MILLISECONDS: Final = 3000
"""A response that takes longer is slow; the limit is ours, ThingSpace names none."""
_PLAIN_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": f"fotahook-doctor/{VERSION}"}
"""Those of an unsigned message, as ThingSpace sends them."""
_FIXES: Final = {
    401: "If it verifies signatures, give its secret with --secret whsec_…, or set FOTAHOOK_SECRET_KEY to that of the "
    "service whose public key it knows.",
    403: "If it accepts certain addresses only, run this from one of them. If it verifies signatures, give its secret "
    "with --secret whsec_….",
    404: "Nothing receives messages at that path: check the URL's path.",
    405: "That path accepts no POST: check the URL's path.",
    410: "It says that it is gone for good: register another URL.",
}
_FAMILIES: Final = {
    4: "The receiver refuses the test message: see its log. It should answer 2xx to types that it does not know.",
    5: "The receiver failed on the test message: see its log.",
}
_SLOW_FIX: Final = "Store the message, answer, and process it afterwards: a sender that waits sends less, or gives up."
_DUPLICATE_FIX: Final = "Answer 2xx to a message that is there already: until then it comes again and again."
_TAMPERED_FIX: Final = (
    "ThingSpace does not sign, so for it this is right. Behind fotahook, let the receiver verify signatures."
)
_UNSIGNED_FIX: Final = (
    "ThingSpace does not sign, so for it this is right: accept its addresses only, or register a path that nobody "
    "can guess. Behind fotahook, let the receiver verify signatures."
)


async def check_receiver(
    url: str, account: str, *, sender: SenderSettings, secret: bytes | None = None, allow_http: bool = False
) -> Checks:
    """The checks of a URL with test messages for an account, sent as `sender` says; `secret` signs them too."""
    run_id = secrets.token_hex(8)
    target = Target(url=url, run_id=run_id, account=account, secret=secret, allow_http=allow_http, sender=sender)
    checks = await run_checks(target, clock=time.time, monotonic=time.monotonic)
    return Checks(url=without_password(url), result=_worst(checks), checks=checks)


async def run_checks(target: Target, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> list[Check]:
    """All checks in order; after a failed one, those that depend on it are left out."""
    checks = [check_url(target)]
    if _worst(checks) == "fail":
        return checks
    addresses, resolved = await check_addresses(target)
    checks += [check_port(target), resolved]
    if resolved.result == "fail":
        return checks
    address, connected = await check_connection(target, addresses)
    checks.append(connected)
    if connected.result != "fail" and target.origin.tls:
        checks += await check_tls(target, address, now=clock())
    if _worst(checks) != "fail":
        checks += await _check_messages(target, clock=clock, monotonic=monotonic)
    return checks


def _worst(checks: Sequence[Check]) -> CheckResult:
    results = {check.result for check in checks}
    return "fail" if "fail" in results else "warn" if "warn" in results else "pass"


async def _check_messages(target: Target, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> list[Check]:
    """Send a signed message, the same one again, a tampered one and an unsigned one."""
    url, body = target.url, _body(target, "signed")
    async with Sender(target.sender, clock=clock, monotonic=monotonic) as sender:
        signed = await sender.send(url, _signed_headers(target, "signed", body, clock()), body)
        if signed.code != DELIVERED:
            status, refused = signed.status or 0, failure_of(signed) in ("message", "gone")
            fix = _FIXES.get(status) or (_FAMILIES.get(status // 100) if refused else None) or signed.fix or ""
            if signed.code == "connection_lost" and "tls" in signed.phases:
                # A receiver that misses a client certificate hangs up only after the handshake.
                fix += " It may also require a client certificate: give one with --client-cert; ThingSpace sends none."
            return [failed("answer", _described(signed), fix)]
        again = await sender.send(url, _signed_headers(target, "signed", body, clock(), attempt=2), body)
        changed, headers = _body(target, "changed"), _signed_headers(target, "tampered", body, clock())
        tampered = await sender.send(url, headers, changed)
        unsigned = await sender.send(url, _PLAIN_HEADERS, _body(target, "unsigned"))
    total, duplicate = signed.phases["total"], f"{_described(again)} to the same message again"
    phases = ", ".join([f"{phase} {took:.0f}" for phase, took in signed.phases.items() if phase != "total"])
    duration = f"{total:.0f} ms: {phases}"
    if_refused = ": right behind fotahook, but ThingSpace signs nothing"
    if_accepted = ": anyone who knows the URL can send one"
    return [
        passed("answer", f"{_described(signed)} to a signed test message"),
        warned("time", duration, _SLOW_FIX) if total > SLOW_MILLISECONDS else passed("time", duration),
        passed("duplicate", duplicate) if again.code == DELIVERED else failed("duplicate", duplicate, _DUPLICATE_FIX),
        _check_refused("tampered", tampered, "a message that was changed after it was signed", _TAMPERED_FIX),
        _check_refused("unsigned", unsigned, "an unsigned message", _UNSIGNED_FIX, if_refused, if_accepted),
    ]


def _body(target: Target, test: str) -> bytes:
    note = "A test by fotahook doctor. There is nothing to do."
    message = {"accountName": target.account, "type": TYPE, "test": test, "run": target.run_id, "note": note}
    return msgspec.json.encode(message)


def _signed_headers(target: Target, test: str, body: bytes, now: float, *, attempt: int = 1) -> dict[str, str]:
    message_id, timestamp, key = f"doctor-{target.run_id}-{test}", int(now), target.sender.secret_key
    sign = signing.signer(
        seeds=(account_signing_seed(key, target.account), signing_seed(key)),
        secrets=() if target.secret is None else (target.secret,),
    )
    return {
        **_PLAIN_HEADERS,
        "Fotahook-Account": quote(target.account, safe=""),
        "Fotahook-Attempt": str(attempt),
        **signing.headers(message_id, timestamp, [sign(message_id, timestamp, body)]),
    }


def _check_refused(
    check: str, outcome: Outcome, message: str, fix: str, if_refused: str = "", if_accepted: str = ""
) -> Check:
    """A message without a valid signature: ThingSpace's have none, fotahook's always have one."""
    found = f"{_described(outcome)} to {message}"
    if failure_of(outcome) in ("message", "gone") and outcome.status is not None and outcome.status < 500:
        return passed(check, found + if_refused)
    if outcome.code == DELIVERED:
        return warned(check, found + if_accepted, fix)
    found = f"{_described(outcome)}, which neither accepts the message nor refuses it"
    return warned(check, found, "It should answer 401: a sender takes this answer for a failure and tries again.")


def _described(outcome: Outcome) -> str:
    if outcome.status is None:
        return f"{outcome.code}: {outcome.excerpt}" if outcome.excerpt else outcome.code
    excerpt = "" if outcome.code == DELIVERED or not outcome.excerpt else f" ({outcome.excerpt[:200]})"
    return f"answers {outcome.status}{excerpt}"
