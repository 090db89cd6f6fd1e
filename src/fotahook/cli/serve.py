"""`fotahook serve`: the service and its dispatcher in one process."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from fotahook.contract.addresses import EVERYWHERE, Network, parse_networks
from fotahook.delivery import Dispatcher, Rules, Timings
from fotahook.delivery.dispatcher import LEASE_MARGIN
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.service import Settings, build_app, provision_dev
from fotahook.store import Store, open_store, sqlite_path

from .configuration import explanation
from .console import console_routes
from .failures import UsageError
from .hosting import Endpoint, check_pem, host, run
from .logs import log_as_json
from .output import print_table
from .secret_key import key_place, secret_key

LONGEST_LEASE: Final = 600.0
LARGEST_WINDOW: Final = 256


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `fotahook serve` can be told."""

    host: str = "127.0.0.1"
    "Address to listen at."
    port: int = 8080
    "Port to listen at; 0 picks a free one, and the ready line tells which."
    store: str = "sqlite:///fotahook.db"
    "Where messages are kept: sqlite:///relative.db or sqlite:////absolute.db."
    dev: bool = False
    "For development: client dev / dev-secret, user dev / dev-password, callbacks at http:// and private addresses."
    allow_network: tuple[str, ...] = ()
    "Network (CIDR) that callbacks may lie in although it is not globally reachable; may be given more than once."
    tls_cert: Path | None = None
    "Certificate (PEM) to serve with; with no --tls-key, the file holds both."
    tls_key: Path | None = None
    "Private key (PEM) of the certificate."
    ca_file: Path | None = None
    "Authorities (PEM) that receivers' certificates may come from, besides the system's."
    client_cert: Path | None = None
    "Certificate and key (PEM, one file) to show to receivers that ask for one."
    lease: float = 30.0
    "Seconds that a dispatcher may keep a lane after it was last heard of."
    in_flight: int = 8
    "Deliveries under way at once to one account's callback."
    config: Path | None = None
    "TOML file with these flags as keys."
    explain: Annotated[bool, Parameter(show_env_var=False)] = False
    "Print each value and where it comes from, and do nothing else."


def serve(*, options: ServeOptions = ServeOptions()) -> int:
    """Run the service: ThingSpace's callback calls, the API for messages, and delivery.

    Each flag is also a variable FOTAHOOK_<FLAG> and a key of the file of --config; the command line goes first.
    SIGTERM finishes what is under way and exits with 0.

    Example: fotahook serve --dev
    """
    file = _store_file(options.store)
    _check(options)
    if options.explain:
        rows = explanation(options, omitted=("config", "explain"))
        print_table(("flag", "value", "source"), [*rows, ("secret key", "(hidden)", key_place(file))])
        return 0
    log_as_json()
    return run(_serve(options, file))


async def _serve(options: ServeOptions, file: str) -> int:
    networks = EVERYWHERE if options.dev else parse_networks(options.allow_network)
    facts = f"store={options.store}" + (" mode=dev" if options.dev else "")
    async with _opened(options) as store:
        # Not before the store's file is known to be one: a key beside it is worth keeping.
        key = secret_key(file)
        settings = Settings(secret_key=key, allow_http=options.dev, allowed_networks=networks, clock=time.time)
        app = build_app(store, settings, routes=console_routes())
        async with _sender(options, key, networks) as sender, _dispatching(store, sender, options) as dispatching:
            return await host(app, Endpoint.of(options), facts=facts, beside=dispatching)


def _sender(options: ServeOptions, key: bytes, networks: tuple[Network, ...]) -> Sender:
    settings = SenderSettings(
        secret_key=key, allowed_networks=networks, ca_file=options.ca_file, client_cert=options.client_cert
    )
    return Sender(settings, clock=time.time, monotonic=time.monotonic)


@contextlib.asynccontextmanager
async def _opened(options: ServeOptions) -> AsyncIterator[Store]:
    store = await open_store(options.store)
    try:
        # Takes the file's dispatcher lock: a second service on the same file must end here, not idle beside the first.
        await store.lease(0, 0)
        if options.dev:
            await provision_dev(store)
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _dispatching(store: Store, sender: Sender, options: ServeOptions) -> AsyncIterator[asyncio.Task[None]]:
    """A dispatcher at work. On leaving it finishes what is in hand; if it failed, so does the leaving."""
    dispatcher = Dispatcher(
        store,
        sender.deliver,
        rules=Rules(in_flight=options.in_flight),
        timings=_timings(options),
        clock=time.time,
        monotonic=time.monotonic,
    )
    task = asyncio.create_task(dispatcher.run(), name="dispatcher")
    try:
        yield task
    finally:
        dispatcher.stop()
        # A service that accepts and never delivers is worse than none: its end is the end of the process.
        await task


def _timings(options: ServeOptions) -> Timings:
    return Timings(lease=options.lease, renew=min(Timings().renew, options.lease / 3))


def _store_file(url: str) -> str:
    if url.startswith(("postgresql:", "postgres:")):
        raise UsageError("--store: this version keeps messages in SQLite only; use sqlite:///FILE")
    try:
        return sqlite_path(url)
    except ValueError as error:
        raise UsageError(f"--store: {error}") from error


def _check(options: ServeOptions) -> None:
    """Refuse what cannot be meant before anything is opened."""
    try:
        parse_networks(options.allow_network)
    except ValueError as error:
        raise UsageError(f"--allow-network: {error}") from error
    shortest = Timings().attempt + LEASE_MARGIN
    if not shortest <= options.lease <= LONGEST_LEASE:
        raise UsageError(f"--lease {options.lease:g}: choose {shortest:g} to {LONGEST_LEASE:g} seconds")
    if not 1 <= options.in_flight <= LARGEST_WINDOW:
        raise UsageError(f"--in-flight {options.in_flight}: choose 1 to {LARGEST_WINDOW}")
    check_pem("--ca-file", options.ca_file, ssl.SSLContext.load_verify_locations)
    check_pem("--client-cert", options.client_cert, ssl.SSLContext.load_cert_chain)
