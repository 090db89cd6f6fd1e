"""`fotahook listen`: a listener with the user's handlers, or one that prints messages."""

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from cyclopts import App, Group, Parameter
from cyclopts.argument import ArgumentCollection
from rich.console import Console
from rich.text import Text
from starlette.types import ASGIApp

from fotahook.client import AsyncClient, Client
from fotahook.contract.addresses import EVERYWHERE, parse_networks, url_refusal, without_password
from fotahook.contract.errors import one_line
from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context, Listener, Verification
from fotahook.listener.registration import OVERLAP_SECONDS, Registration, RegistrationRefused
from fotahook.listener.settings import HEALTH_PATH, check_path, is_secret_path
from fotahook.listener.validation import duration

from ..hosting import discard
from ..hosting.flags import check_pem_files, load_object
from ..hosting.logging import RequestLog, configure_logging
from ..hosting.server import ListeningSocket, open_socket, run, serve_app
from .shared.arguments import Duration, OptionalAccount, Texts, flag_class
from .shared.errors import REFUSED, Failure, UsageError, flag_named
from .shared.output import WIDEST, print_json
from .shared.servers import SOURCES, InLimits, InNetwork, Seconds, ServerOptions, listener_console
from .shared.sources import VARIABLE, BaseUrl, Remote, secret_key_from_environment, when_it_answers

log = logging.getLogger("fotahook.listener")

_MODULE: Final = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
_LINES: Final = Parameter(env_var_split=lambda _, text, *, delimiter=None: text.splitlines() or [text])
_MAX_DEVICES: Final = 10

Module: TypeAlias = Annotated[str | None, Parameter(show_env_var=False)]
T = TypeVar("T")
InInbox = Annotated[T, Parameter(group=Group("Inbox", sort_key=2))]
InVerification = Annotated[T, Parameter(group=Group("Verification", sort_key=3))]
InForwards = Annotated[T, Parameter(group=Group("Forwards", sort_key=4))]
InRegistration = Annotated[T, Parameter(group=Group("Registration", sort_key=5))]
InWatch = Annotated[T, Parameter(group=Group("Ledger and alarms", sort_key=6))]


@flag_class
class ListenOptions(ServerOptions):
    """Options of `fotahook listen`. None: as the module's Listener has it."""

    dev: bool = False
    "For development: register with the credentials of a service in --dev."
    port: InNetwork[int] = 8081
    path: InNetwork[str | None] = None
    "Path at which messages are received; / unless the module says otherwise."
    inbox: InInbox[str | None] = None
    "Where messages are kept until they are handled; sqlite:///inbox.db unless the module says otherwise."
    dedupe_window: InInbox[float | None] = None
    "Seconds in which equal content without a webhook-id is one message; 3600 unless the module says otherwise."
    secret: InVerification[Texts] = ()
    "Secrets, whsec_… or ACCOUNT=whsec_…; messages must be signed with one of these or of the public keys."
    secret_file: InVerification[Path | None] = None
    "File with secrets, one a line; unlike --secret, it keeps them out of the list of processes."
    public_key: InVerification[Texts] = ()
    "Public keys, whpk_… or ACCOUNT=whpk_… for one account alone; see --secret."
    source: InVerification[Texts] = ()
    "Networks (CIDR) that messages must come from, or thingspace for those it publishes."
    basic: InVerification[Annotated[tuple[str, ...], _LINES]] = ()
    "USER:PASSWORD that messages must repeat, as V1's do, or several; FOTAHOOK_BASIC, a line each, keeps them hidden."
    basic_file: InVerification[Path | None] = None
    "File with USER:PASSWORD, one a line; unlike --basic, it keeps them out of the list of processes."
    forward_to: InForwards[Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None))]] = ()
    "URLs that every message is forwarded to."
    allow_network: InForwards[Texts] = ()
    "Networks (CIDR) that forwards may lie in although they are not globally reachable."
    ca_file: InForwards[Path | None] = None
    "Authorities (PEM) that the certificates of forwards may come from, besides the system's."
    register: InRegistration[OptionalAccount] = None
    "Account whose callback this listener becomes, at --public-url."
    public_url: InRegistration[str | None] = None
    "URL at which the service reaches this listener."
    replace: InRegistration[bool] = False
    "Replace another URL that is registered."
    overlap: InRegistration[Duration] = OVERLAP_SECONDS
    "How long messages are accepted at the path of the URL that was replaced, if its host is the same; such as 20m."
    watch: InRegistration[bool] = False
    "Check every three minutes that the registered URL is still this one, and log an error if not."
    deregister_on_exit: InRegistration[bool] = False
    "Deregister at the end, if the registered URL is still this one."
    base_url: InRegistration[BaseUrl] = "http://127.0.0.1:8080"
    "Service to register at, and whose reports are read; ThingSpace is https://thingspace.verizon.com."
    reconcile: InWatch[Duration | None] = None
    "How often campaigns are compared with the service's reports, such as 1h; what never came reaches the handlers."
    alarm_url: InWatch[str | None] = None
    "URL that alarms are posted to, signed as forwards are."
    silence: InWatch[Duration | None] = None
    "How long no message may come before that is an alarm, such as 6h."
    repair_limit: InWatch[int | None] = None
    "How much one reconciliation may repair before that is an alarm."
    console_port: InNetwork[int | None] = None
    "Port of this machine at which a page shows the inbox; 0 picks one. The secret to sign in with is printed once."
    print: bool = False
    "Print each message in addition to running the module's handlers."
    json: Annotated[bool, Parameter(show_env_var=False)] = False
    "Print messages as JSON, one object a line; the default when stdout is not a terminal."
    body_timeout: InLimits[Seconds | None] = None
    "Seconds for a message to arrive, and for the sender to read the response; 30 unless the module says otherwise."

    def check(self) -> None:
        if (self.register is None) != (self.public_url is None):
            raise UsageError("--register ACCOUNT and --public-url URL go together")
        if self.register is None and (self.replace or self.watch or self.deregister_on_exit):
            raise UsageError("--replace, --watch and --deregister-on-exit go with --register ACCOUNT --public-url URL")
        # The service decides which URLs it takes. Not shown: its path may be a secret.
        if self.public_url and (refusal := url_refusal(self.public_url, allow_http=True, allowed=EVERYWHERE)):
            raise UsageError(f"--public-url: {refusal}")
        with flag_named("--path"):
            check_path(self.path or "/")
        duration("--dedupe-window", self.dedupe_window or 0.0, "seconds")
        with flag_named("--allow-network"):
            parse_networks(self.allow_network)
        check_pem_files(ca_file=self.ca_file)
        self.fault_points()


def _find_module(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take MODULE:NAME for the module where it stands behind the values of a list flag: it is none of them."""
    module = arguments.get("MODULE")
    for argument in () if module.tokens else arguments:
        last = argument.tokens[-1] if argument.tokens else None
        if argument.parameter.consume_multiple and last and last.source == "cli" and _MODULE.fullmatch(last.value):
            argument.tokens.pop()
            module.append(last.evolve(keyword=None, index=0))
            return


app = App(name="listen", config=(_find_module, *SOURCES), help_epilogue="Example: fotahook listen handlers:listener")


@app.default
def listen(module: Module = None, /, *, options: ListenOptions = ListenOptions()) -> int:
    """Receive messages: each is on disk before it is acknowledged, and handed to the handlers from there.

    Each flag is also a variable FOTAHOOK_<FLAG> and a key of the file of --config; the command line goes first.

    Args:
        module: The Listener with your handlers, as MODULE:NAME; without one, messages are printed.
    """
    options.check()
    if options.explain:
        options.print_explanation()
        return 0
    # Not a flag, so --explain does not need it.
    secret_key_from_environment()
    configure_logging(options.log_format)
    listener = load_object(module, Listener) if module else Listener()
    remote = Remote(base_url=options.base_url, local=options.dev)
    configure(listener, options, None if options.reconcile is None else remote.client(Client))
    if options.print or options.json or not (module or options.forward_to):
        listener.on_any(print_json_line if options.json or not sys.stdout.isatty() else print_readable)
    try:
        return run(_listen(listener, options, remote))
    except RegistrationRefused as error:
        raise Failure(str(error), REFUSED) from error


async def _listen(listener: Listener, options: ListenOptions, remote: Remote) -> int:
    faults, registration = options.fault_points(), None
    if faults:
        listener.wrap(faults.around_store, faults.around_deliver)
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(open_socket(options.host, options.port, options.tls_cert, options.tls_key))
        if options.register is not None and options.public_url is not None:
            client = await stack.enter_async_context(remote.client(AsyncClient))
            registration = Registration(client, options.register, options.public_url, replace=options.replace)
            # Before anything is handled: a listener that may not register must not process the inbox.
            await registration.check()

        async def opening() -> Mapping[ListeningSocket, ASGIApp]:
            async with contextlib.AsyncExitStack() as opened:
                await opened.enter_async_context(listener.running())
                if registration is not None and options.register is not None:
                    await listener.move(options.register, registration.found, registration.url, overlap=options.overlap)
                also = await opened.enter_async_context(listener_console(listener, options.console_port, options))
                stack.push_async_exit(opened.pop_all())
                return also

        settings, also = listener.settings, await when_it_answers(listener.settings.inbox, opening)
        facts = {"forward-key": listener.forward_key(), "registered": options.register}
        details = "".join(f" {name}={fact}" for name, fact in facts.items() if fact)
        public = urlsplit(options.public_url or "").hostname or "localhost"
        app = options.gate(faults.around_app(listener) if faults else listener, listening, public)
        return await serve_app(
            # The path may be all that keeps others out, so the log does not show it.
            RequestLog(app, log_all=False, log_paths=False),
            listening,
            options.limiter((HEALTH_PATH,), body_timeout=settings.body_timeout),
            also=also,
            path=settings.path,
            details=f"inbox={without_password(settings.inbox)}{details}",
            while_serving=_registered(registration, listener, options) if registration else None,
        )


@contextlib.asynccontextmanager
async def _registered(registration: Registration, listener: Listener, options: ListenOptions) -> AsyncIterator[None]:
    # A proxy may rewrite the path.
    path = urlsplit(registration.url).path or "/"
    if unquote(path).rstrip("/") != listener.settings.decoded_path:
        log.warning(
            "--public-url AND --path DIFFER: the service will send to %s, but messages are received at %s; "
            "unless a proxy rewrites the path, each is answered 404 and lost",
            *("(hidden)" if is_secret_path(one) else one for one in (path, listener.settings.path)),
        )
    await registration.begin()
    registration.on_change = listener.report_callback
    async with registration.watched() if options.watch else contextlib.nullcontext():
        yield
    # Not after an error in the block: then nobody waits any more.
    if options.deregister_on_exit:
        await registration.end()


def configure(listener: Listener, options: ListenOptions, client: Client | None = None) -> None:
    names = {it: "--" + it.removesuffix("s").replace("_", "-") for it in ("secrets", "public_keys", "sources")}
    names["trusted_proxies"] = "--trusted-proxy"
    basic = [(user, password) for user, _, password in (pair.partition(":") for pair in options.basic)]
    if not all(map(all, basic)):
        raise UsageError("--basic: give USER:PASSWORD, neither of them empty")
    key, networks, ca_file = os.environ.get(VARIABLE), options.allow_network, options.ca_file
    forwarding = {"secret_key": key, "allow_networks": networks, "ca_file": ca_file}
    listener.configure(
        inbox=options.inbox,
        verification=Verification.parse(
            secrets=options.secret,
            public_keys=options.public_key,
            sources=options.source,
            trusted_proxies=options.trusted_proxy,
            basic=basic,
            names=names,
        ),
        path=options.path,
        forwarding=msgspec.structs.replace(
            listener.settings.forwarding, **{name: value for name, value in forwarding.items() if value}
        ),
        dedupe_window=options.dedupe_window,
        body_timeout=options.body_timeout,
    )
    with flag_named("--alarm-url"):
        listener.configure(
            reconcile=client,
            every=options.reconcile,
            alarm_url=options.alarm_url,
            silence=options.silence,
            repair_limit=options.repair_limit,
            certificate=options.tls_cert,
        )
    with flag_named("--forward-to"):
        for url in options.forward_to:
            listener.forward(url)


def print_json_line(message: CallbackMessage, context: Context) -> None:
    received = datetime.fromtimestamp(context.received_at, UTC).isoformat(timespec="milliseconds")
    facts = {"id": context.id, "receivedAt": received, "account": message.account_name, "type": message.kind}
    content = message.content
    if isinstance(content, dict) and content.get("password"):
        # The callback's, which ThingSpace may echo.
        content["password"] = "(hidden)"
    with _to_reader():
        print_json({**facts, "message": content})


def print_readable(message: CallbackMessage, context: Context) -> None:
    """Print a message for people: time, kind, account, campaign and status, then one line per device."""
    text = Text.assemble(
        (f"{datetime.fromtimestamp(context.received_at, UTC):%H:%M:%SZ}", "dim"),
        (f"  {_safe(message.kind) or 'unknown kind'}", "bold cyan"),
        *(f"  {_safe(fact)}" for fact in (message.account_name, message.campaign_id) if fact),
        *(part for status in message.parts if status.status for part in ("  ", _status(status.status))),
    )
    for device in message.devices[:_MAX_DEVICES]:
        text.append(f"\n    {_safe(device.device_id) or 'no device id':<15}  ")
        text.append_text(_status(device.status or "no status"))
        text.append(f"  {_safe(device.result_reason)}" if device.result_reason else "")
    if (more := len(message.devices) - _MAX_DEVICES) > 0:
        text.append(f"\n    and {more} more devices", style="dim")
    console = Console(width=WIDEST, highlight=False)
    with console.capture() as captured:
        console.print(text)
    with _to_reader():
        # Not by rich, which exits when the reader has gone.
        print(captured.get(), end="")


@contextlib.contextmanager
def _to_reader() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone: stop, and leave this message unhandled for the next start.
        discard(sys.stdout)
        signal.raise_signal(signal.SIGTERM)
        raise


def _status(status: str) -> Text:
    failed = re.search("fail|reject|abort|cancel", status, re.IGNORECASE)
    succeeded = re.search("success|finish|succeed|ended", status, re.IGNORECASE)
    return Text(_safe(status), style="red" if failed else "green" if succeeded else "yellow")


def _safe(text: str | None) -> str:
    """Text from a sender, on one line, cut, and without control characters."""
    return one_line(text or "", 100)
