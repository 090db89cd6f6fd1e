"""Checks a callback URL before it is registered: each check passes, warns or fails, and says what to do."""

from collections.abc import Callable, Sequence

from .checks import Check, Result, Target, check_addresses, check_connection, check_port, check_url
from .messages import check_messages
from .tls import check_tls

__all__ = ["Check", "Result", "Target", "run_checks", "verdict"]


async def run_checks(target: Target, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> list[Check]:
    """All checks in order; after a failed one, those that depend on it are left out."""
    checks = [check_url(target)]
    if verdict(checks) == "fail":
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
        if verdict(checks) == "fail":
            return checks
    return checks + await check_messages(target, clock=clock, monotonic=monotonic)


def verdict(checks: Sequence[Check]) -> Result:
    """The worst result."""
    results = {check.result for check in checks}
    return "fail" if "fail" in results else "warn" if "warn" in results else "pass"
