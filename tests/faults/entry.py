"""`fotahook`, with what a test has to reach from outside: the machine's clock and name servers, and planted bugs.

Variables: FAULTS_CLOCK is a file with the seconds, as a double, by which the clock is wrong; FAULTS_NAMES the port of
the name server; FAULTS_PLANT the name of a planted bug.
"""

import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any


def move_clock(file: Path) -> None:
    """From now on the time is wrong by what the file says."""
    with file.open("rb") as opened:
        offset = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    right = time.time

    def wrong() -> float:
        seconds: float = struct.unpack("d", offset)[0]
        return right() + seconds

    time.time = wrong


def ask_names(port: int) -> None:
    """From now on the system's one name server is this one."""
    import aiodns

    class Resolver(aiodns.DNSResolver):
        def __init__(self, **options: Any) -> None:
            super().__init__(nameservers=["127.0.0.1"], udp_port=port, tcp_port=port, **options)

    aiodns.DNSResolver = Resolver  # type: ignore[assignment, misc]


def main() -> int:
    # Before fotahook is imported, whose defaults are these.
    move_clock(Path(os.environ["FAULTS_CLOCK"]))
    ask_names(int(os.environ["FAULTS_NAMES"]))
    if (bug := os.environ.get("FAULTS_PLANT")) is not None:
        from . import planted

        planted.BUGS[bug]()
    from fotahook.cli import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
