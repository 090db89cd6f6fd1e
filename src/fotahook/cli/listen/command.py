"""`fotahook listen`: a listener with the user's handlers, or one that prints what comes."""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from cyclopts import Parameter

from fotahook.contract.addresses import EVERYWHERE, parse_networks
from fotahook.contract.urls import url_refusal, without_password
from fotahook.listener import ForwardSettings, Listener, Verification
from fotahook.listener.requests import HEALTH_PATH, check_path, is_secret_path
from fotahook.listener.validation import duration, parse_each

from ...hosting.logging import configure_logging
from ...hosting.request_log import RequestLog
from ...hosting.server import open_socket, run, serve_app
from ...hosting.tls import check_pem_files
from ..shared.configuration import explanation
from ..shared.errors import Failure, UsageError, where
from ..shared.fault_flags import fault_points
from ..shared.limit_flags import LimitOptions, check_wait
from ..shared.remote import BaseUrl, Remote
from ..shared.secret_key import VARIABLE, secret_key_from_environment
from ..shared.tables import on_terminal, print_table
from .printing import print_json_line, print_readable
from .registration import Registration

log = logging.getLogger("fotahook.listener")

_FLAGS: Final = {
    "secrets": "--secret",
    "public_keys": "--public-key",
    "sources": "--source",
    "trusted_proxies": "--trusted-proxy",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """What `fotahook listen` can be told. None leaves to the module's Listener what it was made with."""

    host: str = "127.0.0.1"
    "Address to listen at."
    port: int = 8081
    "Port to listen at; 0 picks a free one, and the ready line tells which."
    path: str | None = None
    "Path at which messages are received; / unless the module says otherwise."
    inbox: str | None = None
    "Where messages are kept until they are handled; sqlite:///inbox.db unless the module says otherwise."
    secret: tuple[str, ...] = ()
    "Secret (whsec_…) that messages may be signed with; may be given more than once."
    public_key: tuple[str, ...] = ()
    "Public key (whpk_…) that messages may be signed with; may be given more than once."
    source: tuple[str, ...] = ()
    "Network (CIDR) that messages must come from, or thingspace for those it publishes; may be given more than once."
    trusted_proxy: tuple[str, ...] = ()
    "Network (CIDR) of a proxy whose X-Forwarded-For is believed; may be given more than once."
    basic: str | None = None
    "USER:PASSWORD that messages must repeat, as V1's do; FOTAHOOK_BASIC keeps it out of sight."
    forward_to: tuple[str, ...] = ()
    "URL that every message is sent on to; may be given more than once."
    allow_network: tuple[str, ...] = ()
    "Network (CIDR) that forwards may lie in although it is not globally reachable; may be given more than once."
    ca_file: Path | None = None
    "Authorities (PEM) that the certificates of forwards may come from, besides the system's."
    dedupe_window: float | None = None
    "Seconds in which equal bytes without a webhook-id are one message; 3600 unless the module says otherwise."
    print: bool = False
    "Print each message in addition to running the module's handlers."
    json: Annotated[bool, Parameter(show_env_var=False)] = False
    "Print messages as JSON, one object a line; the default when stdout is not a terminal."
    register: str | None = None
    "Account whose callback is to lead here, at --public-url."
    public_url: str | None = None
    "URL at which the service reaches this listener."
    replace: bool = False
    "Take the place of another URL that is registered."
    watch: bool = False
    "Look every three minutes whether the registered URL is still this one, and say loudly when it is not."
    deregister_on_exit: bool = False
    "Deregister at the end, if the registered URL is still this one."
    base_url: BaseUrl = "http://127.0.0.1:8080"
    "Service to register at; ThingSpace is https://thingspace.verizon.com."
    dev: bool = False
    "For development: register with the credentials of a service in --dev, in place of those in the environment."
    fault: Annotated[str | None, Parameter(show=False)] = None
    "With --dev only, POINT[:N]: a step boundary at which the process kills itself."
    tls_cert: Path | None = None
    "Certificate (PEM) to serve with; with no --tls-key, the file holds both."
    tls_key: Path | None = None
    "Private key (PEM) of the certificate."
    body_timeout: float | None = None
    "Seconds for the body of a message to arrive, and for its answer to be taken; 30 unless the module says otherwise."
    limits: LimitOptions = field(default_factory=LimitOptions)
    config: Path | None = None
    "TOML file with these flags as keys."
    explain: Annotated[bool, Parameter(show_env_var=False)] = False
    "Print each value and where it comes from, and do nothing else."


def listen(
    module: Annotated[str | None, Parameter(show_env_var=False)] = None,
    /,
    *,
    options: ListenOptions = ListenOptions(),
) -> int:
    """Receive messages: each is on disk before it is answered, and shown to the handlers from there.

    Each flag is also a variable FOTAHOOK_<FLAG> and a key of the file of --config; the command line goes first.

    Example: fotahook listen handlers:listener --public-key whpk_…

    Parameters
    ----------
    module
        Where the Listener with your handlers is, as MODULE:NAME; without one, messages are printed.
    """
    _check(options)
    if options.explain:
        rows = explanation(options, omitted=("config", "explain", "fault"), masked=("secret", "basic"))
        print_table(("flag", "value", "source"), rows)
        return 0
    # Not a flag, so that --explain has nothing to say of it.
    secret_key_from_environment()
    configure_logging()
    listener = load_listener(module) if module else Listener()
    _configure(listener, options)
    if options.print or options.json or not (module or options.forward_to):
        listener.on_any(print_json_line if options.json or not on_terminal() else print_readable)
    return run(_listen(listener, options))


async def _listen(listener: Listener, options: ListenOptions) -> int:
    faults = fault_points(options)
    if faults:
        listener.wrap(faults.around_store, faults.around_deliver)
    with open_socket(options.host, options.port, options.tls_cert, options.tls_key) as listening:
        async with (
            _registration(options) as registration,
            listener.running(),
        ):
            return await serve_app(
                # Its path may be all that keeps others out, so it is not told.
                RequestLog(faults.around_app(listener) if faults else listener, log_all=False, log_paths=False),
                listening,
                options.limits.limiter((HEALTH_PATH,), body_timeout=listener.body_timeout),
                path=listener.path,
                details=_facts(listener, options),
                while_serving=_registered(registration, listener, options) if registration else None,
            )


def _facts(listener: Listener, options: ListenOptions) -> str:
    facts = {
        "inbox": without_password(listener.inbox),
        "forward-key": listener.forward_key(),
        "registered": options.register,
    }
    return " ".join(f"{name}={fact}" for name, fact in facts.items() if fact)


@contextlib.asynccontextmanager
async def _registration(options: ListenOptions) -> AsyncIterator[Registration | None]:
    if options.register is None or options.public_url is None:
        yield None
        return
    async with Remote(base_url=options.base_url, dev=options.dev).async_client() as client:
        registration = Registration(client, options.register, options.public_url, replace=options.replace)
        # Before anything is handled: a listener that may not be the callback is not to do half of its work.
        await registration.ask()
        yield registration


@contextlib.asynccontextmanager
async def _registered(registration: Registration, listener: Listener, options: ListenOptions) -> AsyncIterator[None]:
    _warn_of_path(listener, urlsplit(registration.url).path or "/")
    await registration.begin()
    async with registration.watched() if options.watch else contextlib.nullcontext():
        yield
    # Not where the block raised: then nobody waits any more.
    if options.deregister_on_exit:
        await registration.end()


def _warn_of_path(listener: Listener, path: str) -> None:
    """Say so where the registered path is another than the listener's, which may be right behind a proxy."""
    if not listener.request_handler.matches_path(unquote(path)):
        public, own = ("(hidden)" if is_secret_path(one) else one for one in (path, listener.path))
        log.warning(
            "--public-url AND --path DIFFER: the service is to send to %s, and messages are received at %s; "
            "unless a proxy rewrites the path, each is answered 404 and lost",
            public,
            own,
        )


def _check(options: ListenOptions) -> None:
    """Refuse what cannot be meant before anything is opened."""
    if (options.register is None) != (options.public_url is None):
        raise UsageError("--register ACCOUNT and --public-url URL go together")
    if options.register is None and (options.replace or options.watch or options.deregister_on_exit):
        raise UsageError("--replace, --watch and --deregister-on-exit go with --register ACCOUNT --public-url URL")
    if options.public_url is not None:
        # Which of the others may be registered is the service's to say. Not shown: its path may be a secret.
        refusal = url_refusal(options.public_url, allow_http=True, allowed=EVERYWHERE)
        if refusal is not None:
            raise UsageError(f"--public-url: {refusal}")
    with _usage_errors():
        parse_each("--path", () if options.path is None else (options.path,), check_path)
        parse_each("--allow-network", options.allow_network, lambda text: parse_networks((text,)))
    if options.dedupe_window is not None:
        with _usage_errors():
            duration("--dedupe-window", options.dedupe_window, "seconds")
    options.limits.check()
    if options.body_timeout is not None:
        check_wait("--body-timeout", options.body_timeout)
    fault_points(options)
    check_pem_files(ca_file=options.ca_file)


def _configure(listener: Listener, options: ListenOptions) -> None:
    listener.configure(
        inbox=options.inbox,
        verification=_verification(options),
        path=options.path,
        forwarding=_forwarding(listener, options),
        dedupe_window=options.dedupe_window,
        body_timeout=options.body_timeout,
    )
    with _usage_errors("--forward-to: "):
        for url in options.forward_to:
            listener.forward(url)


def _verification(options: ListenOptions) -> Verification:
    with _usage_errors():
        return Verification.parse(
            secrets=options.secret,
            public_keys=options.public_key,
            sources=options.source,
            trusted_proxies=options.trusted_proxy,
            basic=None if options.basic is None else _user_and_password(options.basic),
            names=_FLAGS,
        )


@contextlib.contextmanager
def _usage_errors(prefix: str = "") -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{prefix}{error}") from error


def _user_and_password(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise UsageError("--basic: give USER:PASSWORD, neither of them empty")
    return user, password


def _forwarding(listener: Listener, options: ListenOptions) -> ForwardSettings:
    """What the module says of its forwards, with what the flags and the environment say before it."""
    given = listener.forwarding
    return ForwardSettings(
        secret_key=os.environ.get(VARIABLE, given.secret_key),
        allow_networks=options.allow_network or given.allow_networks,
        ca_file=options.ca_file or given.ca_file,
        timeout=given.timeout,
    )


def load_listener(place: str) -> Listener:
    """The Listener at MODULE:NAME, the working directory coming first on the path."""
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise UsageError(f"{place}: name the module and the listener in it as MODULE:NAME")
    found = getattr(_load_module(module_name), name, None)
    if not isinstance(found, Listener):
        what = "has no such name" if found is None else f"holds something of type {type(found).__name__}"
        raise UsageError(f"{place}: the module {what} there; write {name} = fotahook.Listener(…) in it")
    return found


def _load_module(name: str) -> object:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Failure(f"{name} needs the module {error.name}, which is not installed ({where(error)})") from error
        raise UsageError(f"there is no module {name} in {os.getcwd()} or among the installed ones") from error
    except (Exception, SystemExit) as error:
        raise Failure(f"{name} cannot be imported: {type(error).__name__}: {error} ({where(error)})") from error
