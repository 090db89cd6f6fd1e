"""`make cluster-demo`: a cluster loses two processes and its primary while a campaign runs, and not one message.

Two processes that take calls and three that deliver share a PostgreSQL with a synchronous standby; all are real
processes on this machine. The ledger is kept outside of them: what was answered with 202, and what the receivers got.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.faults.schedule import Fault, Step
from tests.faults.world import a_world, live_through

ROLES: Final = ("api", "api", "dispatcher", "dispatcher", "dispatcher")


def disasters(messages: int) -> tuple[Step, ...]:
    """Three of them, spread over a campaign of about so many messages; each is accepted and received."""
    faults = (Fault("api", "SIGKILL"), Fault("dispatcher", "SIGKILL"), Fault("PostgreSQL", "failover of a dead one"))
    pause = max(1, 2 * messages // (len(faults) + 1))
    return tuple(Step(pause, (fault,), number=0, length=0.5) for fault in faults)


async def run(messages: int, folder: Path) -> int:
    """The exit code: 0 if the ledger holds."""
    print(f"starting {' + '.join(ROLES)}, a PostgreSQL primary and a synchronous standby")
    async with a_world("postgres", folder, roles=ROLES) as world:
        verdict = await live_through(world, disasters(messages), steps_after=messages // 2)
        return 0 if verdict.holds else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=4000, help="about how many are published")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fotahook-cluster-") as folder:
        return asyncio.run(run(options.messages, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
