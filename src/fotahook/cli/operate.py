"""The commands about what a service has: messages, accounts, callbacks and events."""

import contextlib
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from cyclopts import App, Parameter

from fotahook.client import Client, OperatorClient
from fotahook.contract import events
from fotahook.contract.addresses import account_warning, port_warning
from fotahook.contract.calls import DEREGISTERED
from fotahook.contract.errors import ApiException, FotahookError
from fotahook.contract.operator import AccountFilter, AccountState, Attempt, MessageState, MessageStateName
from fotahook.contract.version import VERSION

from .shared import output
from .shared.arguments import Account, Limit, MessageId, OptionalAccount, Span, flag_class
from .shared.errors import INTERRUPTED, REFUSED, Failure, UsageError
from .shared.sources import Messages, Remote, Source, warn_if_unknown

As: TypeAlias = Annotated[Literal["curl"] | None, Parameter(name="--as")]

messages = App(name="messages", help="List messages; show one with its attempts.")
accounts = App(name="accounts", help="List accounts and show their state.")
callbacks = App(name="callbacks", help="List, register, update and deregister the callback of an account.")

CARD: Final = output.fields("id account type ordering_key bytes=size sha256 accepted=accepted_at")
MESSAGE: Final[output.Columns[MessageState]] = {
    "id": lambda it: it.id,
    "state": lambda it: ", ".join(delivery.state for delivery in it.deliveries),
    **output.fields("type ordering_key"),
    "attempts": lambda it: sum(delivery.attempts for delivery in it.deliveries),
    "last outcome": lambda it: ", ".join(delivery.last_outcome or "" for delivery in it.deliveries),
    "accepted": lambda it: it.accepted_at,
}
DELIVERY: Final = output.fields("lane state attempts due expires=expires_at last_outcome")
ATTEMPT: Final[output.Columns[Attempt]] = {
    **output.fields("attempt=number started=started_at"),
    "outcome": lambda it: it.outcome + ", sent twice" * bool(it.resent),
    **output.fields("status=http_status phases.dns phases.connect phases.tls phases.first_byte phases.total"),
}
RESPONSE: Final[output.Columns[Attempt]] = output.fields("attempt=number url answer=excerpt fix")
# In an inbox, an excerpt is a handler's traceback: the table has its last line.
FAILURE: Final = {**RESPONSE, "answer": lambda it: (it.excerpt or "").strip().rpartition("\n")[2]}

_NOT_PLAIN: Final = re.compile(rb"[^ -&(-\[\]-~]")
ACCOUNT: Final[output.Columns[AccountState]] = {
    "account": lambda it: it.account,
    "state": lambda it: it.lane.state if it.known or it.lane.state != "held" else "unknown",
    **output.fields("lane.reason lane.until backlog.pending backlog.dead oldest=backlog.oldest_accepted_at"),
    "in-flight limit": lambda it: it.limits.in_flight or "service default",
    "callback": lambda it: it.callback.url if it.callback else "(none)",
}
EVENT: Final = {"time": 20, "event": 16, "account": 16, "state": 12, "message": 36, "what": 0}


@flag_class
class Filter(Span):
    state: MessageStateName | None = None
    "Only messages in this state."
    message_type: Annotated[str | None, Parameter(name="--type")] = None
    "Only messages of this type."
    ordering_key: Annotated[str | None, Parameter(name="--key")] = None
    "Only messages of this ordering key."

    def read(self, client: Messages, account: str, limit: int = 0) -> Iterator[MessageState]:
        """The account's messages that match, newest first, up to `limit` or all for 0."""
        return output.limited(lambda size: client.messages(account, **vars(self), limit=size), limit)


@messages.command(name="list", help_epilogue="Example: fotahook messages list 0000123456-00001 --state dead --local")
def list_stored(account: Account, /, *, which: Filter = Filter(), limit: Limit = 50, source: Source = Source()) -> None:
    """List messages of an account, newest first."""
    with source.open() as client:
        if not output.print_list(MESSAGE, which.read(client, account, limit), as_json=source.as_json):
            warn_if_unknown(client, account)


@messages.command(name="show", help_epilogue="Example: fotahook messages show 019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42")
def show_message(message_id: MessageId, /, *, body: bool = False, as_: As = None, source: Source = Source()) -> None:
    """Show a message: its deliveries, and every attempt with what to do about a failure.

    Args:
        body: Print its exact bytes, and nothing else.
        as_: Print a shell command that posts the same bytes to the same URL, unsigned.
    """
    if body + (as_ is not None) + source.as_json > 1:
        raise UsageError("--body, --as and --json are three ways to print a message; choose one")
    if as_ is not None and source.inbox is not None:
        raise UsageError("--as curl repeats a delivery of a service; with --inbox, --body has the message's bytes")
    with source.open() as stored:
        if body or as_:
            content = stored.message_body(message_id) if body else _as_curl(stored, message_id)
            if sys.stdout.isatty():
                content = output.printable_json(content.decode(errors="replace")).encode(errors="replace")
            # Exactly these bytes, whatever the encoding of stdout.
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            return
        message, attempts = stored.message(message_id), stored.attempts(message_id)
    if source.as_json:
        output.print_json({**msgspec.to_builtins(message), "attempts": msgspec.to_builtins(attempts)})
        return
    output.print_table(None, [(name, cell(message) or "(none)") for name, cell in CARD.items()])
    print()
    output.print_records(DELIVERY, message.deliveries)
    for columns in (ATTEMPT, RESPONSE if source.inbox is None else FAILURE) if attempts else ():
        print()
        output.print_records(columns, attempts)
    if source.inbox is not None and (tracebacks := [attempt.excerpt for attempt in attempts if attempt.excerpt]):
        print("", *map(output.printable, tracebacks[-1].splitlines()), sep="\n")


def why(message_id: MessageId, /, *, remote: Remote = Remote()) -> None:
    """Explain the state of a message: what it waits for, until when, and what would send it now."""
    with remote.operator() as client:
        explained = client.why(message_id)
    if remote.as_json:
        output.print_json({"id": message_id, **msgspec.to_builtins(explained)})
    else:
        columns = {"state": lambda _: explained.state, **output.fields("reason=code text until")}
        output.print_records(columns, explained.reasons)


def redeliver(
    *ids: Annotated[str, Parameter(name="ID")],
    account: OptionalAccount = None,
    state: Literal["dead", "delivered"] | None = None,
    span: Span = Span(),
    dry_run: bool = False,
    as_new: bool = False,
    source: Source = Source(),
) -> int:
    """Deliver messages again that are dead or delivered: some by their ids, or all of an account in one state.

    Each goes to the tail of its ordering key, with fresh attempts and time to live. With several ids, a refusal does
    not stop the others; the exit code is then 4.

    Args:
        ids: Message ids.
        account: All messages of this account that are in --state, instead of ids.
        state: With --account: dead or delivered.
        dry_run: With --account: only count them.
        as_new: With ids: under a new id, so that receivers do not take it for a duplicate.
    """
    if account is None and not ids:
        raise UsageError("give the ids of messages, or --account A --state dead; see fotahook redeliver --help")
    if account is None and (state is not None or span != Span() or dry_run):
        raise UsageError("--state, --since, --until and --dry-run go with --account, not with ids")
    if account is not None and (ids or as_new):
        raise UsageError("--account takes no ids and no --as-new; leave it out to name messages one by one")
    if account is not None and state is None:
        raise UsageError("--account needs --state dead or --state delivered")
    with source.open() as stored:
        if account is not None and state is not None:
            count = stored.redeliver_all(account, state, since=span.since, until=span.until, dry_run=dry_run)
            if not count:
                warn_if_unknown(stored, account)
            facts = {"account": account, "state": state, "count": count, "dryRun": dry_run}
            output.print_facts(facts, as_json=source.as_json)
            return 0
        sent: list[dict[str, str]] = []
        try:
            for message_id in ids:
                try:
                    sent.append({"id": message_id, "sentAs": stored.redeliver(message_id, as_new=as_new).id})
                except ApiException as error:
                    if len(ids) == 1:
                        raise
                    output.note(f"{message_id}: {error}")
        finally:
            # Also if the service fails in between: what it has accepted is worth knowing.
            if sent:
                columns = {"id": lambda it: it["id"], "sent as": lambda it: it["sentAs"]}
                output.print_list(columns, sent, as_json=source.as_json)
    return 0 if len(sent) == len(ids) else REFUSED


def _as_curl(client: Messages, message_id: str) -> bytes:
    """A command for a POSIX shell that posts the exact bytes, without control characters."""
    message, body = client.message(message_id), client.message_body(message_id)
    # Of the last attempt at the message, or of the next one.
    urls = [attempt.url for attempt in client.attempts(message_id) if attempt.url is not None]
    if not urls and isinstance(client, OperatorClient) and (callback := client.account(message.account).callback):
        urls = [callback.url]
    if not urls:
        raise Failure(f"message {message.id} has no URL to go to: register a callback for account {message.account}")
    headers = (
        "Content-Type: application/json",
        f"User-Agent: fotahook/{VERSION}",
        f"Fotahook-Account: {quote(message.account, safe='')}",
        f"webhook-id: {message.id}",
    )
    printf = "%s", body.decode(errors="surrogateescape")
    if not printf[1].replace("\n", "").isprintable():
        printf = "%b", _NOT_PLAIN.sub(lambda found: b"\\0%03o" % ord(found[0]), body).decode()
    # The body comes through a pipe: the kernel limits an argument to 128 KiB.
    curl = "curl", "-sS", "--data-binary", "@-", *(part for it in headers for part in ("-H", it)), urls[-1]
    return f"{shlex.join(('printf', *printf))} | {shlex.join(curl)}\n".encode()


@accounts.command(name="list", help_epilogue="Example: fotahook accounts list --state trouble --local")
def list_accounts(*, state: AccountFilter | None = None, limit: Limit = 50, remote: Remote = Remote()) -> None:
    """List the accounts that have a callback, or ever had one or a message, by name.

    Args:
        state: Only accounts whose lane has this state; trouble: the endpoint fails or is gone, or messages wait for a
            callback.
    """
    with remote.operator() as client:
        found = output.limited(lambda size: client.accounts(state=state, limit=size), limit)
        output.print_list(ACCOUNT, found, as_json=remote.as_json)


@accounts.command(name="show", help_epilogue="Example: fotahook accounts show 0000123456-00001 --local")
def show_account(account: Account, /, *, remote: Remote = Remote()) -> None:
    """Show an account: its callback, the state of its lane, and what is not delivered."""
    _print_account("account", account, remote)


def pause(account: Account, /, *, remote: Remote = Remote()) -> None:
    """Stop delivery to an account until it is resumed. Messages are kept, and their time to live stands still."""
    _print_account("pause", account, remote)


def resume(account: Account, /, *, remote: Remote = Remote()) -> None:
    """End the pause of an account, or the wait for its failing endpoint: pending messages are sent."""
    _print_account("resume", account, remote)


def _print_account(call: Literal["account", "pause", "resume"], name: str, remote: Remote) -> None:
    with remote.operator() as client:
        account: AccountState = getattr(client, call)(name)
        output.print_list(ACCOUNT, [account], as_json=remote.as_json)
        warn_if_unknown(client, name, account)


@callbacks.command(name="list", help_epilogue="Example: fotahook callbacks list 0000123456-00001 --local")
def list_callback(account: Account, /, *, remote: Remote = Remote()) -> None:
    """Show the callback URL of an account."""
    with remote.client(Client) as client:
        summary = client.callbacks.list_registered_callbacks(account).data
    output.print_facts({"account": account, "url": None if summary is None else summary.url}, as_json=remote.as_json)
    if summary is None:
        # Only a service of fotahook can say it.
        with contextlib.suppress(FotahookError), remote.operator(max_retries=0) as operator:
            warn_if_unknown(operator, account)


@callbacks.command(help_epilogue="Example: fotahook callbacks register 0000123456-00001 https://fota.example.com/")
def register(account: Account, url: str, /, *, remote: Remote = Remote()) -> None:
    """Register the callback URL of an account; it replaces any other."""
    _set_url("register_callback", account, url, remote)


@callbacks.command(help_epilogue="Example: fotahook callbacks update 0000123456-00001 https://fota.example.com/")
def update(account: Account, url: str, /, *, remote: Remote = Remote()) -> None:
    """Change the callback URL of an account."""
    _set_url("update_callback", account, url, remote)


@callbacks.command(help_epilogue="Example: fotahook callbacks deregister 0000123456-00001")
def deregister(account: Account, /, *, remote: Remote = Remote()) -> None:
    """Deregister the callback URL of an account. ThingSpace then drops its messages; to change the URL, use update."""
    with remote.client(Client) as client:
        result = client.callbacks.deregister_callback(account).data
    output.print_facts({"account": account, "success": result.success}, as_json=remote.as_json)
    output.note(DEREGISTERED)


def _set_url(call: Literal["register_callback", "update_callback"], account: str, url: str, remote: Remote) -> None:
    with remote.client(Client) as client:
        calls = client.callbacks
        response = (calls.register_callback if call == "register_callback" else calls.update_callback)(account, url)
    output.print_facts({"account": account, "url": response.data.url}, as_json=remote.as_json)
    # The account was checked on the command line, and ThingSpace's ports do not matter on this machine.
    here = remote.local and re.match(r"https?://(localhost|127\.|\[::1\])", url)
    known = account_warning(account), port_warning(url) if here else None
    for warning in re.findall(r'299 [^ ]+ "([^"]*)"', response.headers.get("Warning", "")):
        if warning not in known:
            output.note(warning)


def tail(account: OptionalAccount = None, /, *, after: str | None = None, remote: Remote = Remote()) -> None:
    """Follow events: messages and attempts, lanes and callbacks. Ctrl-C ends it and prints how to continue.

    A lost connection is made again, and missed events are shown.

    Args:
        account: Only events of this account.
        after: Begin after this cursor, which an earlier tail printed, instead of now.
    """
    with remote.operator() as client, client.events(account, after=after) as found:
        try:
            for number, event in enumerate(found):
                if remote.as_json:
                    output.print_json({"event": event.name, "cursor": event.cursor, **msgspec.to_builtins(event.data)})
                else:
                    row = (event.data.at, event.name, event.data.account, *describe(event.data))
                    output.print_table(None if number else [*EVENT], [row], boxed=False, widths=[*EVENT.values()])
                sys.stdout.flush()
        except KeyboardInterrupt:
            # Once the service has answered there is a cursor, even if nothing was shown yet.
            if found.cursor is None:
                raise
            command = shlex.join(["fotahook", "tail", *filter(None, [account]), "--after", found.cursor])
            raise Failure(f"interrupted; {command} continues from here", INTERRUPTED) from None


def describe(data: events.EventData) -> tuple[str, str, str]:
    match data:
        case events.MessageAccepted():
            key = f", key {data.ordering_key}" if data.ordering_key else ""
            return "accepted", data.id, f"{data.type or 'no type'}, {data.size} bytes{key}"
        case events.AttemptFinished():
            took = f", {data.milliseconds:.0f} ms" if data.milliseconds is not None else ""
            return data.state, data.id, f"attempt {data.number}: {data.error_code or data.outcome}{took}"
        case events.MessageDead():
            return "dead", data.id, f"dead: {data.error_code or 'no reason known'}"
        case events.LaneChanged():
            until = f" until {output.format_time(data.until)}" if data.until else ""
            return data.state, "", f"lane {data.lane}{until}{f': {data.reason}' if data.reason else ''}"
        case events.CallbackChanged():
            return data.action, "", f"{data.url or 'nothing'} by {data.actor}"
