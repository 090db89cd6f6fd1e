"""Options that `fotahook serve` and `fotahook listen` share."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from starlette.types import ASGIApp

from fotahook.contract.addresses import parse_networks

from ...hosting.connection_limits import ConnectionLimiter, ConnectionLimits
from ...hosting.gate import Gate
from ...hosting.logging import LogFormat
from ...hosting.server import ListeningSocket, connection_room, open_socket
from .arguments import Texts
from .configuration import explanation
from .errors import UsageError, flag_named
from .output import print_table

if TYPE_CHECKING:
    from fotahook.testing.sandbox.fault_points import FaultPoints

T = TypeVar("T")

# Groups of flags in --help: InNetwork[int] is an int in the group "Network".
InNetwork = Annotated[T, Parameter(group=Group("Network", sort_key=1))]
InLimits = Annotated[T, Parameter(group=Group("Limits", sort_key=8))]
InLogging = Annotated[T, Parameter(group=Group("Logging", sort_key=9))]

Seconds: TypeAlias = Annotated[float, Parameter(validator=Number(gt=0, lte=3600))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Options of a command that runs a server. Each has a default of its own for --body-timeout."""

    host: InNetwork[str] = "127.0.0.1"
    "Address to listen at."
    port: InNetwork[int] = 8080
    "Port to listen at; 0 picks a free one, which the ready line names."
    tls_cert: InNetwork[Path | None] = None
    "Certificate (PEM) to serve with; without --tls-key, the file holds both."
    tls_key: InNetwork[Path | None] = None
    "Private key (PEM) of the certificate."
    allow_host: InNetwork[Texts] = ()
    "Names that clients may use for this server, besides localhost and IP addresses; * for any."
    trusted_proxy: InNetwork[Texts] = ()
    "Networks (CIDR) of proxies whose X-Forwarded-For is trusted."
    header_bytes: InLimits[Annotated[int, Parameter(validator=Number(gte=4096, lte=1024 * 1024))]] = (
        ConnectionLimits.header_bytes
    )
    "Bytes in the head of a request."
    header_timeout: InLimits[Seconds] = ConnectionLimits.header_seconds
    "Seconds for the head of a request to arrive."
    idle_timeout: InLimits[Seconds] = ConnectionLimits.idle_seconds
    "Seconds that a connection is kept without a request."
    connections_per_address: InLimits[Annotated[int, Parameter(validator=Number(gte=1))]] = ConnectionLimits.per_address
    "Connections at once from one address; a proxy needs as many as it opens."
    log_format: InLogging[LogFormat] = "auto"
    "Log lines as text or as JSON; auto: text at a terminal."
    dev: bool = False
    fault: Annotated[str | None, Parameter(show=False)] = None
    "With --dev only, POINT[:N]: a step boundary at which the process kills itself."
    config: Path | None = None
    "TOML file with these flags as keys."
    explain: Annotated[bool, Parameter(show_env_var=False)] = False
    "Print each value and where it comes from, and exit."

    def open_socket(self) -> AbstractContextManager[ListeningSocket]:
        """The socket to serve on. HostingError if the address or the certificate cannot be used."""
        return open_socket(self.host, self.port, self.tls_cert, self.tls_key)

    def limiter(self, open_paths: Collection[str], *, body_timeout: float) -> ConnectionLimiter:
        """The limiter of one server; `open_paths` stay available to an address at its limit."""
        limits = ConnectionLimits(
            header_bytes=self.header_bytes,
            header_seconds=self.header_timeout,
            body_seconds=body_timeout,
            idle_seconds=self.idle_timeout,
            per_address=self.connections_per_address,
            total=connection_room(),
        )
        return ConnectionLimiter(limits, open_paths, proxies=parse_networks(self.trusted_proxy))

    def gate(self, app: ASGIApp, listening: ListeningSocket, *names: str) -> Gate:
        """The app behind a check of Host and Origin; without --allow-host, a server open to others takes any Host."""
        hosts = frozenset(name.lower() for name in (*names, *self.allow_host))
        open_to_others = not (self.allow_host or self.dev or listening.is_loopback)
        return Gate(
            app, hosts=hosts, any_host=open_to_others or "*" in hosts, proxies=parse_networks(self.trusted_proxy)
        )

    def print_explanation(self, *rows: tuple[str, str, str]) -> None:
        """What --explain prints: every flag, and these rows."""
        flags = explanation(self, omitted=("config", "explain", "fault"), masked=("secret", "basic"))
        print_table(("flag", "value", "source"), [*flags, *rows])

    def fault_points(self) -> "FaultPoints | None":
        """The fault points of FOTAHOOK_FAULT. A usage error for an unknown one, and without --dev."""
        if self.fault is None:
            return None
        if not self.dev:
            raise UsageError(f"FOTAHOOK_FAULT {self.fault}: fault points kill the process; they need --dev")
        # The rest of that room needs the [testing] extra.
        from fotahook.testing.sandbox.fault_points import FaultPoints

        with flag_named("FOTAHOOK_FAULT"):
            return FaultPoints(self.fault)


def ready_details(facts: Mapping[str, str | None]) -> str:
    """What the ready line says besides the URL: the facts that there are."""
    return " ".join(f"{name}={fact}" for name, fact in facts.items() if fact)
