"""`fotahook serve`: the service and its dispatcher in one process."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from starlette.types import ASGIApp

from fotahook.contract.addresses import EVERYWHERE, Network, parse_networks
from fotahook.contract.urls import without_password
from fotahook.delivery import Deliver, Dispatcher, Rules, Timings, run_maintenance
from fotahook.delivery.dispatcher import LEASE_MARGIN
from fotahook.delivery.policy import DAY
from fotahook.delivery.sender import Sender, SenderSettings
from fotahook.service import HEALTH_PATHS, Check, Metrics, Settings, build_app, provision_dev, withdraw_dev
from fotahook.service.settings import REQUESTS_PER_MINUTE
from fotahook.store import Store, open_store
from fotahook.store.records import Retention

from ..hosting.connection_limits import ConnectionLimits
from ..hosting.logging import configure_logging
from ..hosting.request_log import RequestLog
from ..hosting.server import open_socket, run, serve_app
from ..hosting.tls import check_pem_files
from .console import console_routes
from .shared.configuration import explanation
from .shared.errors import UsageError
from .shared.fault_flags import fault_points
from .shared.limit_flags import LimitOptions, check_wait
from .shared.secret_key import key_place, secret_key
from .shared.store_flags import LONGEST_DAYS, check_retention, store_file
from .shared.tables import print_table

LONGEST_LEASE: Final = 600.0
LARGEST_WINDOW: Final = 256
LONGEST_ATTEMPT: Final = 120.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `fotahook serve` can be told."""

    host: str = "127.0.0.1"
    "Address to listen at."
    port: int = 8080
    "Port to listen at; 0 picks a free one, and the ready line tells which."
    store: str = "sqlite:///fotahook.db"
    "Where messages are kept: sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database."
    role: Literal["all", "api", "dispatcher"] = "all"
    "What this process does, of many on one PostgreSQL: take calls (api), deliver (dispatcher), or both."
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
    timeout: float = 15.0
    "Seconds for one attempt in all."
    connect_timeout: float = 5.0
    "Seconds for the connection of an attempt, TLS included."
    schedule: tuple[float, ...] = Rules().schedule
    "Seconds before each attempt at a message that the receiver refuses; after the last one it is dead."
    time_to_live: float = Rules().time_to_live / DAY
    "Days after which an undelivered message is dead; those in which its account is held or paused do not count."
    keep_days: float = 30.0
    "Days that the bytes of delivered and dead messages are kept."
    keep_bytes: int | None = None
    "Size of the store in bytes beyond which the oldest of them go earlier."
    log_requests: bool = False
    "Log a line for each request, not only for those that failed."
    requests_per_minute: int = REQUESTS_PER_MINUTE
    "Requests of one client in a minute, at any speed; 0 for no limit."
    body_timeout: float = ConnectionLimits.body_seconds
    "Seconds for the body of a request to arrive, and for an answer to be taken."
    limits: LimitOptions = field(default_factory=LimitOptions)
    fault: Annotated[str | None, Parameter(show=False)] = None
    "With --dev only, POINT[:N]: a step boundary at which the process kills itself."
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
    file = store_file("--store", options.store)
    if file is not None and options.role != "all":
        raise UsageError(
            f"--role {options.role}: a SQLite store has one process for all; choose --store postgresql://…"
        )
    _check(options)
    if options.explain:
        rows = explanation(options, omitted=("config", "explain", "fault"))
        print_table(("flag", "value", "source"), [*rows, ("secret key", "(hidden)", key_place(file))])
        return 0
    configure_logging()
    return run(_serve(options, file))


async def _serve(options: ServeOptions, file: str | None) -> int:
    networks = EVERYWHERE if options.dev else parse_networks(options.allow_network)
    faults = fault_points(options)
    with open_socket(options.host, options.port, options.tls_cert, options.tls_key) as listening:
        async with _opened(options) as opened, contextlib.AsyncExitStack() as beside:
            metrics = Metrics()
            store = metrics.around(opened)
            store = faults.around_store(store) if faults else store
            # Not before the store's file is known to be one: a key beside it is worth keeping.
            key = secret_key(file)
            settings = Settings(
                secret_key=key,
                allow_http=options.dev,
                allowed_networks=networks,
                requests_per_minute=options.requests_per_minute,
                time_to_live=options.time_to_live * DAY,
                clock=time.time,
            )
            checks: dict[str, Check] = {}
            task = None
            if options.role != "api":
                sender = await beside.enter_async_context(_sender(options, key, networks))
                deliver = faults.around_deliver(sender.deliver) if faults else sender.deliver
                dispatcher = _dispatcher(store, deliver, options)
                task = await beside.enter_async_context(_dispatching(dispatcher, store, options))
                checks["dispatcher"] = dispatcher.is_leasing
            calls = options.role != "dispatcher"
            closing = asyncio.Event()
            app: ASGIApp = build_app(
                store,
                settings,
                routes=console_routes(),
                calls=calls,
                checks=checks,
                closing=closing,
                metrics=metrics,
            )
            app = RequestLog(faults.around_app(app) if faults else app, log_all=options.log_requests, log_paths=True)
            limiter = options.limits.limiter(HEALTH_PATHS, body_timeout=options.body_timeout)
            return await serve_app(
                app, listening, limiter, details=_facts(options), background=task, shutting_down=closing
            )


def _facts(options: ServeOptions) -> str:
    """What the ready line tells beside the URL."""
    facts = [f"store={without_password(options.store)}"]
    if options.role != "all":
        facts.append(f"role={options.role}")
    return " ".join([*facts, *(["mode=dev"] if options.dev else [])])


def _sender(options: ServeOptions, key: bytes, networks: tuple[Network, ...]) -> Sender:
    settings = SenderSettings(
        secret_key=key,
        timeout=options.timeout,
        connect_timeout=options.connect_timeout,
        allowed_networks=networks,
        ca_file=options.ca_file,
        client_cert=options.client_cert,
    )
    return Sender(settings, clock=time.time, monotonic=time.monotonic)


@contextlib.asynccontextmanager
async def _opened(options: ServeOptions) -> AsyncIterator[Store]:
    store = await open_store(options.store)
    try:
        await store.check()
        if options.role != "api":
            # Takes a file's dispatcher lock: a second service on one file must end here, not idle beside the first.
            await store.lease(0, 0)
        if options.role != "dispatcher":
            await (provision_dev(store) if options.dev else withdraw_dev(store))
        yield store
    finally:
        await store.close()


def _dispatcher(store: Store, deliver: Deliver, options: ServeOptions) -> Dispatcher:
    return Dispatcher(
        store,
        deliver,
        rules=_rules(options),
        timings=_timings(options),
        clock=time.time,
        monotonic=time.monotonic,
    )


@contextlib.asynccontextmanager
async def _dispatching(
    dispatcher: Dispatcher, store: Store, options: ServeOptions
) -> AsyncIterator[asyncio.Task[None]]:
    """A dispatcher at work. On leaving it finishes what is in hand; if it failed, so does the leaving."""
    retention = Retention(seconds=options.keep_days * DAY, bytes=options.keep_bytes)
    keeping = asyncio.create_task(run_maintenance(store, retention), name="housekeeping")
    task = asyncio.create_task(dispatcher.run(), name="dispatcher")
    # Whichever fails ends the other: a service that accepts and never delivers, or never tidies, is worse than none.
    keeping.add_done_callback(lambda _: dispatcher.stop())
    try:
        yield task
    finally:
        dispatcher.stop()
        try:
            await task
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping


def _rules(options: ServeOptions) -> Rules:
    return Rules(in_flight=options.in_flight, schedule=options.schedule, time_to_live=options.time_to_live * DAY)


def _timings(options: ServeOptions) -> Timings:
    return Timings(lease=options.lease, renew=min(Timings().renew, options.lease / 3), attempt=options.timeout)


def _check(options: ServeOptions) -> None:
    """Refuse what cannot be meant before anything is opened."""
    try:
        parse_networks(options.allow_network)
    except ValueError as error:
        raise UsageError(f"--allow-network: {error}") from error
    _check_numbers(options)
    options.limits.check()
    check_wait("--body-timeout", options.body_timeout)
    fault_points(options)
    check_pem_files(ca_file=options.ca_file, client_cert=options.client_cert)


def _check_numbers(options: ServeOptions) -> None:
    if not 0 < options.timeout <= LONGEST_ATTEMPT:
        raise UsageError(f"--timeout {options.timeout:g}: choose more than 0 and at most {LONGEST_ATTEMPT:g} seconds")
    if not 0 < options.connect_timeout <= options.timeout:
        raise UsageError(f"--connect-timeout {options.connect_timeout:g}: choose more than 0 and at most --timeout")
    shortest = options.timeout + LEASE_MARGIN
    if not shortest <= options.lease <= LONGEST_LEASE:
        raise UsageError(f"--lease {options.lease:g}: choose {shortest:g} to {LONGEST_LEASE:g} seconds")
    if not options.schedule or not all(0 <= pause <= 30 * DAY for pause in options.schedule):
        raise UsageError("--schedule: give one or more pauses of 0 to 2592000 seconds")
    if not 0 < options.time_to_live <= LONGEST_DAYS:
        raise UsageError(f"--time-to-live {options.time_to_live:g}: choose more than 0 and up to {LONGEST_DAYS:g} days")
    check_retention(options.keep_days, options.keep_bytes)
    if options.requests_per_minute < 0:
        raise UsageError(f"--requests-per-minute {options.requests_per_minute}: choose 0 or more")
    if not 1 <= options.in_flight <= LARGEST_WINDOW:
        raise UsageError(f"--in-flight {options.in_flight}: choose 1 to {LARGEST_WINDOW}")
