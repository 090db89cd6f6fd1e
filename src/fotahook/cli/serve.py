"""`fotahook serve`: the service and its dispatcher in one process."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from starlette.types import ASGIApp

from fotahook.contract.addresses import parse_networks, without_password
from fotahook.contract.servers import parse_proxy
from fotahook.delivery import Deliver, Dispatcher, Rules, Timings, run_maintenance
from fotahook.delivery.dispatcher import LEASE_MARGIN
from fotahook.delivery.doctor import check_receiver
from fotahook.delivery.policy import DAY
from fotahook.delivery.sender import Sender, SenderSettings, challenge_receiver
from fotahook.service import Settings, build_app, split_metrics
from fotahook.service.context import REQUESTS_PER_MINUTE, Check
from fotahook.service.credentials import provision_dev, withdraw_dev
from fotahook.service.health import HEALTH_PATHS
from fotahook.service.limits import AccountQuotas
from fotahook.service.metrics import Metrics
from fotahook.store import Store, open_store
from fotahook.store.key_file import key_file
from fotahook.store.records import StoreFull

from ..hosting.connection_limits import ConnectionLimits
from ..hosting.flags import check_pem_files
from ..hosting.logging import RequestLog, configure_logging
from ..hosting.server import ListeningSocket, open_socket, run, serve_app
from .doctor import InDelivery, SenderFlags
from .shared.arguments import flag_class, split_at_commas
from .shared.errors import UsageError, flag_named
from .shared.servers import SOURCES, InLimits, InLogging, InNetwork, Seconds, ServerOptions, console_routes
from .shared.sources import VARIABLE, InStore, RetentionFlags, check_keys, open_secret_keys, store_file, when_it_answers

log = logging.getLogger("fotahook")

Quota = Annotated[int, Parameter(validator=Number(gte=0))]
_PAUSES: Final = Parameter(
    consume_multiple=(1, None),
    converter=lambda type_, tokens: tuple(map(float, split_at_commas(type_, tokens))),
    validator=Number(gte=0, lte=30 * DAY),
)


@flag_class
class ServeOptions(SenderFlags, RetentionFlags, ServerOptions):
    dev: bool = False
    "For development: client dev / dev-secret, user dev / dev-password, callbacks at http:// and private addresses."
    allow_public_dev: bool = False
    "With --dev, listen at an address that others can reach: they get every account and scope."
    metrics_listen: InNetwork[str | None] = None
    "Serve /metrics at this ADDRESS:PORT, without a token, instead of at --port."
    role: Literal["all", "api", "dispatcher"] = "all"
    "What this process does, of many on one PostgreSQL: take calls (api), deliver (dispatcher), or both."
    store: InStore[str] = "sqlite:///fotahook.db"
    "Where messages are kept: sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database."
    in_flight: InDelivery[Annotated[int, Parameter(validator=Number(gte=1, lte=256))]] = Rules().in_flight
    "Most deliveries under way at once to one account's callback; the number adapts to the receiver."
    egress_proxy: InDelivery[str | None] = None
    "HTTP proxy that all deliveries go through: http://[user:password@]host:port."
    schedule: InDelivery[Annotated[tuple[float, ...], _PAUSES]] = Rules().schedule
    "Seconds before each attempt at a message that the receiver refuses; after the last one it is dead."
    time_to_live: InDelivery[Annotated[float, Parameter(validator=Number(gt=0, lte=3650))]] = Rules().time_to_live / DAY
    "Days after which an undelivered message is dead; days on which its account is held or paused do not count."
    service_signature: InDelivery[Annotated[bool, Parameter(negative="--no-service-signature")]] = True
    "Sign deliveries with the service's key too, which proves no account, for receivers that know only that one."
    verify_endpoints: InDelivery[bool] = False
    "Register a new URL only if it answers a signed challenge; ThingSpace asks for none."
    lease: InDelivery[float] = 30.0
    "Seconds that a dispatcher may keep a lane without renewing its lease."
    requests_per_minute: InLimits[Quota] = REQUESTS_PER_MINUTE
    "Requests of one client in a minute; 0 for no limit."
    account_messages: InLimits[Quota] = AccountQuotas.pending_messages
    "Undelivered messages of one account; 0 for no limit."
    account_bytes: InLimits[Quota] = AccountQuotas.pending_bytes
    "Bytes of one account's undelivered messages; 0 for no limit."
    account_rate: InLimits[Quota] = AccountQuotas.publishes_per_second
    "Messages published per second to one account, on average over a minute; 0 for no limit."
    account_changes: InLimits[Quota] = AccountQuotas.changes_per_hour
    "Changes of one account's callback, limits, keys and pauses in an hour; 0 for no limit."
    body_timeout: InLimits[Seconds] = ConnectionLimits.body_seconds
    "Seconds for the body of a request to arrive, and for the client to read the response."
    log_requests: InLogging[bool] = False
    "Log a line for each request, not only for those that failed."

    def check(self) -> None:
        if self.role != "all" and store_file("--store", self.store) is not None:
            text = f"--role {self.role}: a SQLite store has one process for all; choose --store postgresql://…"
            raise UsageError(text)
        if self.connect_timeout > self.timeout:
            raise UsageError(f"--connect-timeout {self.connect_timeout:g}: choose at most --timeout")
        shortest = self.timeout + LEASE_MARGIN
        if not shortest <= self.lease <= 600:
            raise UsageError(f"--lease {self.lease:g}: choose {shortest:g} to 600 seconds")
        for flag, networks in {"--allow-network": self.allow_network, "--trusted-proxy": self.trusted_proxy}.items():
            with flag_named(flag):
                parse_networks(networks)
        with flag_named("--egress-proxy"):
            _ = self.egress_proxy and parse_proxy(self.egress_proxy)
        check_pem_files(ca_file=self.ca_file, client_cert=self.client_cert)
        self.fault_points()


app = App(name="serve", config=SOURCES, help_epilogue="Example: fotahook serve --dev")


@app.default
def serve(*, options: ServeOptions = ServeOptions()) -> int:
    """Run the service: ThingSpace's callback calls, the API for messages, and delivery.

    Each flag is also a variable FOTAHOOK_<FLAG> and a key of the file of --config; the command line goes first.
    SIGTERM finishes what is under way and exits with 0.
    """
    options.check()
    file = store_file("--store", options.store)
    if options.explain:
        source = VARIABLE if file is None or VARIABLE in os.environ else str(key_file(file))
        options.print_explanation(("secret key", "(hidden)", source))
        return 0
    check_keys()
    configure_logging(options.log_format)
    return run(_serve(options, file))


async def _serve(options: ServeOptions, file: str | None) -> int:
    faults = options.fault_points()
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(open_socket(options.host, options.port, options.tls_cert, options.tls_key))
        if options.dev and not (listening.is_loopback or options.allow_public_dev):
            raise UsageError(
                f"--host {options.host}: --dev gives everybody who can connect every account and scope; choose a "
                "loopback address, or add --allow-public-dev"
            )
        opened, key, previous = await when_it_answers(options.store, partial(_open, options, file))
        stack.push_async_callback(opened.close)
        metrics = Metrics()
        store = faults.around_store(metrics.around(opened)) if faults else metrics.around(opened)
        sending = msgspec.structs.replace(
            options.sender_settings(key),
            previous_key=previous,
            service_signature=options.service_signature,
            egress_proxy=options.egress_proxy,
        )
        checks: dict[str, Check] = {}
        task = None
        if options.role != "api":
            sender = await stack.enter_async_context(Sender(sending, clock=time.time, monotonic=time.monotonic))
            deliver = faults.around_deliver(sender.deliver) if faults else sender.deliver
            checks["dispatcher"], task = await stack.enter_async_context(_dispatching(store, deliver, options))
        closing, calls, settings = asyncio.Event(), options.role != "dispatcher", _settings(options, sending)
        routes = console_routes()
        app = build_app(store, settings, routes=routes, calls=calls, checks=checks, closing=closing, metrics=metrics)
        also: dict[ListeningSocket, ASGIApp] = {}
        details = f"store={without_password(options.store)}"
        details += f" role={options.role}" * (options.role != "all") + " mode=dev" * options.dev
        if options.metrics_listen:
            host, _, port = options.metrics_listen.rpartition(":")
            if not port.isascii() or not port.isdigit():
                text = f"--metrics-listen {options.metrics_listen}: give an address and a port, such as 127.0.0.1:9100"
                raise UsageError(text)
            metrics_socket = stack.enter_context(open_socket(host.strip("[]") or "127.0.0.1", int(port[:6])))
            app, also[metrics_socket] = split_metrics(app)
            details += f" metrics={metrics_socket.url}/metrics"
        gate = options.gate(faults.around_app(app) if faults else app, listening)
        logged = RequestLog(gate, log_all=options.log_requests, log_paths=True)
        limiter = options.limiter(HEALTH_PATHS, body_timeout=options.body_timeout)
        return await serve_app(
            logged, listening, limiter, also=also, details=details, background=task, shutting_down=closing
        )


def _settings(options: ServeOptions, sending: SenderSettings) -> Settings:
    return Settings(
        secret_key=sending.secret_key,
        allow_http=options.dev,
        allowed_networks=sending.allowed_networks,
        requests_per_minute=options.requests_per_minute,
        quotas=AccountQuotas(
            pending_messages=options.account_messages,
            pending_bytes=options.account_bytes,
            publishes_per_second=options.account_rate,
            changes_per_hour=options.account_changes,
        ),
        in_flight=options.in_flight,
        time_to_live=options.time_to_live * DAY,
        open_metrics=options.metrics_listen is not None,
        check_receiver=partial(check_receiver, sender=sending, allow_http=options.dev),
        challenge_receiver=partial(challenge_receiver, sender=sending) if options.verify_endpoints else None,
    )


async def _open(options: ServeOptions, file: str | None) -> tuple[Store, bytes, bytes | None]:
    """The store, made ready for this process, its key, and the one before it if that is given."""
    store = await open_store(options.store)
    try:
        try:
            await store.check()
        except StoreFull as error:
            # It serves what can be read, and goes on when there is room.
            log.error("the store is full: %s", error)
        if options.role != "api":
            # Takes a file's dispatcher lock: a second service on one file must end here, not idle beside the first.
            await store.lease(0, 0)
        if options.role != "dispatcher":
            await (provision_dev(store) if options.dev else withdraw_dev(store))
        # Only now, when the file is known to be a store: the key beside it is worth keeping.
        return (store, *await open_secret_keys(store, file))
    except BaseException:
        await store.close()
        raise


@contextlib.asynccontextmanager
async def _dispatching(
    store: Store, deliver: Deliver, options: ServeOptions
) -> AsyncIterator[tuple[Check, asyncio.Task[None]]]:
    """Run a dispatcher. Leaving waits for deliveries in flight, and raises what the dispatcher failed with."""
    time_to_live, renew = options.time_to_live * DAY, min(Timings().renew, options.lease / 3)
    rules = Rules(in_flight=options.in_flight, schedule=options.schedule, time_to_live=time_to_live)
    timings = Timings(lease=options.lease, renew=renew, attempt=options.timeout)
    dispatcher = Dispatcher(store, deliver, rules=rules, timings=timings)
    maintenance = run_maintenance(store, options.retention, longest_wait=dispatcher.longest_wait)
    housekeeping = asyncio.create_task(maintenance, name="housekeeping")
    task = asyncio.create_task(dispatcher.run(), name="dispatcher")
    # If one fails, both end: a service that accepts and never delivers, or never cleans up, is worse than none.
    housekeeping.add_done_callback(lambda _: dispatcher.stop())
    try:
        yield dispatcher.is_leasing, task
    finally:
        dispatcher.stop()
        try:
            await task
        finally:
            housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await housekeeping
