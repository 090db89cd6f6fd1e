"""Ports of 127.0.0.1 for a server that starts later, or again."""

import random
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def unused_port() -> int:
    """A port that is free, and that the system gives to no connection or server which asks for any port.

    One that was bound as 0 and closed again is not of that kind: another may have it before a server starts on it.
    """
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32768
    while True:
        port = random.SystemRandom().randrange(10_000, max(first, 10_100))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
