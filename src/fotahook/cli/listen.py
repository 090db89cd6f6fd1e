"""`fotahook listen`: a listener with the user's handlers, or one that prints what comes."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fotahook.listener import Listener

from .configuration import explanation
from .failures import Failure, UsageError, where
from .hosting import Endpoint, host, run
from .logs import log_as_json
from .output import print_table
from .printing import print_message


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
    print: bool = False
    "Print each message, beside what the module's handlers do."
    tls_cert: Path | None = None
    "Certificate (PEM) to serve with; with no --tls-key, the file holds both."
    tls_key: Path | None = None
    "Private key (PEM) of the certificate."
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
    if options.explain:
        rows = explanation(options, omitted=("config", "explain"), masked=("secret",))
        print_table(("flag", "value", "source"), rows)
        return 0
    log_as_json()
    listener = load_listener(module) if module else Listener()
    _configure(listener, options)
    if options.print or not module:
        listener.on_any(print_message)
    return run(_listen(listener, options))


async def _listen(listener: Listener, options: ListenOptions) -> int:
    async with listener.running():
        return await host(listener, Endpoint.of(options), path=listener.path, facts=f"inbox={listener.inbox}")


def _configure(listener: Listener, options: ListenOptions) -> None:
    if options.path is not None and not options.path.startswith("/"):
        raise UsageError(f"--path {options.path}: a path begins with /")
    try:
        listener.configure(
            inbox=options.inbox, secrets=options.secret, public_keys=options.public_key, path=options.path
        )
    except ValueError as error:
        raise UsageError(f"--secret or --public-key: {error}") from error


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
