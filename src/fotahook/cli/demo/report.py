"""What the demo says: each step, the figures, and what they prove."""

from collections.abc import Mapping

from ..shared.tables import on_terminal, print_table
from .evidence import Evidence


def say(step: str, what: str) -> None:
    """One step that was taken."""
    print(f"{step:<10}  {what}", flush=True)


def report(evidence: Evidence, refusals: Mapping[str, bool], took: float) -> None:
    """The table, and what was checked."""
    figures = {
        "accepted": str(evidence.accepted),
        "delivered": str(evidence.delivered),
        "handled": str(evidence.handled),
        "duplicates": str(evidence.duplicates),
        "lost": str(evidence.lost),
        "p50": _milliseconds(evidence.quantile(0.50)),
        "p99": _milliseconds(evidence.quantile(0.99)),
    }
    title = f"from accepted to handled, {evidence.accepted} messages in {took:.1f} s"
    print()
    if on_terminal():
        print_table(list(figures), [list(figures.values())], title=title)
    else:
        print(title)
        for name, figure in figures.items():
            print(f"{name:<10}  {figure}")
    print()
    for claim, holds in _claims(evidence, refusals).items():
        print(f"{'yes' if holds else 'NO':<3}  {claim}")


def _claims(evidence: Evidence, refusals: Mapping[str, bool]) -> dict[str, bool]:
    return {
        "every accepted message was handled: none lost": evidence.lost == 0,
        "each arrived byte for byte as it was published": evidence.same_bytes,
        "each device's messages were handled once, in the order they were accepted in": evidence.in_order,
        "every delivery went over TLS, and who does not know the authority refuses the listener's certificate": (
            evidence.over_tls and refusals["untrusted"]
        ),
        "the listener verified the service's signature, and answers 401 to an unsigned message": refusals["unsigned"],
    }


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
