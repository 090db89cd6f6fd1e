"""The sandbox: its start-up and reset times, a test suite with the official SDK, and the memory of a campaign.

`python -m bench.sandbox PART` measures one part and prints JSON.
"""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench import rig
from bench.report import Figure, Report

ROUNDS = 5
RESETS = 50
DEVICES = 1_000_000
SUITE = Path(__file__).parent.parent / "tests" / "testing" / "test_sandbox_official.py"
TESTS = 50


def main(report: Report) -> None:
    starts = [rig.run("bench.sandbox", "start") for _ in range(ROUNDS)]
    campaign = rig.run("bench.sandbox", "campaign")
    begun = rig.by_name(starts)
    report.compare(
        [
            Figure("sandbox ready, including imports, ms", begun["ready_ms"], at_most=500),
            Figure("reset between tests, ms", begun["reset_ms"], at_most=20),
            Figure(f"{TESTS} tests with the official SDK, s", [suite() for _ in range(3)], at_most=5),
            Figure("a campaign of a million devices, MiB", campaign["mebibytes"], at_most=64),
        ]
    )
    report.say(f"Generating the campaign's {campaign['messages']:,.0f} messages takes {campaign['seconds']:.0f} s.")


def start() -> rig.Found:
    """Start a sandbox, then reset it after each use."""
    began = time.perf_counter()
    from fotahook.testing import Sandbox

    with Sandbox() as sandbox:
        ready = time.perf_counter() - began
        took = []
        for _ in range(RESETS):
            sandbox.register("1")
            sandbox.wait_delivered(sandbox.publish("1", b"{}"))
            began = time.perf_counter()
            sandbox.reset()
            took.append(time.perf_counter() - began)
    return {"ready_ms": 1000 * ready, "reset_ms": 1000 * median(took)}


def suite() -> float:
    """The duration that pytest reports for the official SDK's suite, in seconds."""
    command = [sys.executable, "-m", "pytest", "-q", str(SUITE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=rig.RUN_SECONDS)
    found = re.search(rf"{TESTS} passed in ([\d.]+)s", done.stdout)
    if found is None:
        raise RuntimeError(f"the suite does not have {TESTS} tests: {done.stdout.splitlines()[-1]}")
    return float(found[1])


def campaign() -> rig.Found:
    """Generate the messages of a million devices; the time and the memory."""
    from fotahook.testing import Simulation

    began = time.perf_counter()
    messages = sum(1 for _ in Simulation("0000123456-00001", devices=DEVICES))
    unit = 1 if sys.platform != "darwin" else 1024
    room = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / unit
    return {"messages": messages, "seconds": time.perf_counter() - began, "mebibytes": room}


if __name__ == "__main__":
    print(json.dumps({"start": start, "campaign": campaign}[sys.argv[1]]()))
