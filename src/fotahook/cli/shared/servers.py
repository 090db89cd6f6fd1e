"""What `fotahook serve` and `fotahook listen` share: the console, and options. Their values come from the command line,
then from FOTAHOOK_…, then from the file of --config."""

import contextlib
import mimetypes
import os
import secrets
import sys
import tomllib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

from cyclopts import App, Group, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict, Env
from cyclopts.validators import Number
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fotahook.console import FILES, HEADERS
from fotahook.contract.addresses import parse_networks, without_password
from fotahook.contract.keys import SECRET_KEY_BYTES
from fotahook.listener import Listener
from fotahook.listener.intake import HANDLERS
from fotahook.listener.watch import SenderReport

from ...hosting.connection_limits import ConnectionLimiter, ConnectionLimits
from ...hosting.gate import Gate
from ...hosting.logging import LogFormat
from ...hosting.server import ListeningSocket, connection_room, open_socket
from .arguments import Texts, flag_class, read_secret_files
from .errors import UsageError, flag_named
from .output import print_table

if TYPE_CHECKING:
    from fotahook.testing.sandbox.fault_points import FaultPoints

PREFIX: Final = "FOTAHOOK_"

_origins: ContextVar[Mapping[str, str]] = ContextVar("fotahook_cli_origins")


def _read_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    if not (tokens := arguments["--config"].tokens):
        return
    path = Path(tokens[0].value)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from error
    # cyclopts ignores keys named like a command.
    if tables := [key for key, value in values.items() if isinstance(value, dict)]:
        raise UsageError(f"--config {path}: no tables such as [{tables[0]}]; the flags are keys of the file itself")
    Dict(values, use_commands_as_keys=False, source=str(path.absolute()))(app, commands, arguments)


def _refuse_empty(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    # What was to fill it has failed. A listener without keys and networks trusts anybody.
    for argument in arguments:
        key = argument.name.lstrip("-")
        variable = PREFIX + key.replace("-", "_").upper()
        on_command_line = any(token.source == "cli" for token in argument.tokens)
        if not on_command_line and not os.environ.get(variable, variable).strip():
            raise UsageError(f"{variable} is empty: give it a value, or unset it")
        # A boolean flag has no text.
        for token in (it for it in argument.tokens if not it.value and not isinstance(it.implicit_value, bool)):
            place = argument.name if on_command_line else f"--config {token.source}: {key}"
            raise UsageError(f"{place} is empty: give it a value, or leave it out")


def _remember_origins(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    first = {argument.name: argument.tokens[0] for argument in arguments if argument.tokens}
    names = {"cli": "command line", "env": None}
    _origins.set({flag: names.get(token.source, token.source) or str(token.keyword) for flag, token in first.items()})


SOURCES: Final = (
    Env(PREFIX, command=False),
    _refuse_empty,
    _read_file,
    _refuse_empty,
    read_secret_files,
    _remember_origins,
)
"""For cyclopts: the first source with a value for a flag wins. --config itself may come from the environment."""

T = TypeVar("T")
# Groups of flags in --help: InNetwork[int] is an int in the group "Network".
InNetwork = Annotated[T, Parameter(group=Group("Network", sort_key=1))]
InLimits = Annotated[T, Parameter(group=Group("Limits", sort_key=8))]
InLogging = Annotated[T, Parameter(group=Group("Logging", sort_key=9))]

Seconds: TypeAlias = Annotated[float, Parameter(validator=Number(gt=0, lte=3600))]


@flag_class
class ServerOptions:
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

    def limiter(self, open_paths: Collection[str], *, body_timeout: float) -> ConnectionLimiter:
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
        any_host = "*" in hosts or not (self.allow_host or self.dev or listening.is_loopback)
        return Gate(app, hosts=hosts, any_host=any_host, proxies=parse_networks(self.trusted_proxy))

    def print_explanation(self, *rows: tuple[str, str, str]) -> None:
        explained: list[Sequence[object]] = []
        for name, value in vars(self).items():
            flag = "--" + name.replace("_", "-")
            if value and name in ("secret", "basic"):
                value = "(hidden)"
            elif value is not None and not isinstance(value, bool):
                values = value if isinstance(value, tuple) else (value,)
                value = " ".join(without_password(str(each)) for each in values)
            if name not in ("config", "explain", "fault"):
                explained.append((flag, value, _origins.get({}).get(flag, "default")))
        print_table(("flag", "value", "source"), [*explained, *rows])

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


def console_routes() -> list[Route]:
    pages = {f"/{file.name}".removesuffix("index.html"): file for file in sorted(FILES.iterdir())}
    types = mimetypes.types_map
    return [
        Route(path, Response(file.read_bytes(), headers=HEADERS, media_type=types[file.suffix]), methods=["GET"])
        for path, file in pages.items()
    ]


@contextlib.asynccontextmanager
async def listener_console(
    listener: Listener, port: int | None, options: ServerOptions
) -> AsyncIterator[Mapping[ListeningSocket, ASGIApp]]:
    """The console of a running listener at a port of this machine, with a secret of its own; nothing for None."""
    if port is None:
        yield {}
        return
    # It needs the [service] extra.
    from fotahook.service import Settings, build_app, create_credential
    from fotahook.service.routing import Call, Endpoint

    @Endpoint("GET", "/v1/sender", scope="read")
    async def sender(call: Call) -> SenderReport:
        return listener.sender()

    with open_socket("127.0.0.1", port) as listening:
        store, name = await listener.store(), "listener"
        await store.drop_credentials("client", [name])
        secret = await create_credential(store, "client", name, accounts=None, scopes=("read", "bodies", "operate"))
        settings = Settings(secret_key=secrets.token_bytes(SECRET_KEY_BYTES), console="listener", consumer=HANDLERS)
        app = build_app(store, settings, routes=console_routes(), endpoints=[sender])
        print(f"fotahook console {listening.url}/ client={name} secret={secret}", file=sys.stderr, flush=True)
        yield {listening: options.gate(app, listening)}
