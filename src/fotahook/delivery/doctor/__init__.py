"""Checks a callback URL before it is registered: each check passes, warns or fails, and says what to do."""

import secrets
import time
from collections.abc import Callable, Sequence

from fotahook.contract.operator import Check, CheckResult, Checks
from fotahook.delivery.sender import SenderSettings

from .checks import Target, check_addresses, check_connection, check_port, check_url
from .messages import check_messages
from .tls import check_tls

__all__ = ["Target", "check_receiver", "run_checks"]


async def check_receiver(
    url: str, account: str, *, sender: SenderSettings, secret: bytes | None = None, allow_http: bool = False
) -> Checks:
    """The checks of a URL with test messages for an account, sent as `sender` says; `secret` signs them too."""
    target = Target(
        url=url,
        run_id=secrets.token_hex(8),
        account=account,
        secret=secret,
        allow_http=allow_http,
        sender=sender,
    )
    checks = await run_checks(target, clock=time.time, monotonic=time.monotonic)
    return Checks(url=url, result=_worst(checks), checks=checks)


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
    if address is None:
        return checks
    if target.origin.tls:
        checks += await check_tls(target, address, now=clock())
        if _worst(checks) == "fail":
            return checks
    return checks + await check_messages(target, clock=clock, monotonic=monotonic)


def _worst(checks: Sequence[Check]) -> CheckResult:
    """The worst result."""
    results = {check.result for check in checks}
    return "fail" if "fail" in results else "warn" if "warn" in results else "pass"
