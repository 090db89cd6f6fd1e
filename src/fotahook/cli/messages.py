"""`fotahook messages`, `why` and `redeliver`: accepted messages, their deliveries and attempts."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from cyclopts import App, Parameter

from fotahook.client import OperatorClient
from fotahook.contract.errors import ApiException
from fotahook.contract.operator import Attempt, MessageState, MessageStateName
from fotahook.contract.version import VERSION

from .shared import output
from .shared.arguments import EVER, Account, Limit, MessageId, OptionalAccount, Span
from .shared.errors import REFUSED, Failure, UsageError
from .shared.remote import DEFAULTS, SERVICE, Messages, Remote, Source, warn_if_unused

app = App(name="messages", help="List messages; show one with its attempts.")

CARD: Final[output.Columns[MessageState]] = {
    **output.fields("id account"),
    "type": lambda it: it.type or "(none)",
    "ordering key": lambda it: it.ordering_key or "(none)",
    "size": lambda it: f"{it.size} bytes",
    **output.fields("sha256 accepted=accepted_at"),
}
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
FAILURE: Final[output.Columns[Attempt]] = {
    **RESPONSE,
    "answer": lambda it: (it.excerpt or "").strip().rpartition("\n")[2],
}
"""In an inbox, an excerpt is a handler's traceback: the table has its last line."""

_NOT_PLAIN: Final = re.compile(rb"[^ -&(-\[\]-~]")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filter(Span):
    """Which messages of an account to take."""

    state: MessageStateName | None = None
    "Only messages in this state."
    type: str | None = None
    "Only messages of this type."
    key: str | None = None
    "Only messages of this ordering key."

    def read(self, client: Messages, account: str, limit: int = 0) -> Iterator[MessageState]:
        """The account's messages that match, newest first, up to `limit` or all for 0."""
        found = client.messages(
            account,
            state=self.state,
            message_type=self.type,
            ordering_key=self.key,
            since=self.since,
            until=self.until,
            limit=output.page_size(limit),
        )
        return output.limited(found, limit)


ALL = Filter()


@app.command(name="list")
def list_(account: Account, /, *, which: Filter = ALL, limit: Limit = 50, source: Source = SERVICE) -> None:
    """List messages of an account, newest first.

    Example: fotahook messages list 0000123456-00001 --state dead --since 2h --local
    """
    with source.open() as client:
        if not output.print_list(MESSAGE, which.read(client, account, limit), as_json=source.as_json):
            warn_if_unused(client, account)


@app.command
def show(
    message_id: MessageId,
    /,
    *,
    body: bool = False,
    as_: Annotated[Literal["curl"] | None, Parameter(name="--as")] = None,
    source: Source = SERVICE,
) -> None:
    """Show a message: its deliveries, and every attempt with what to do about a failure.

    Example: fotahook messages show 019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42 --local

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
            output.print_bytes(stored.message_body(message_id) if body else _as_curl(stored, message_id))
            return
        message, attempts = stored.message(message_id), stored.attempts(message_id)
    if source.as_json:
        output.print_json({**msgspec.to_builtins(message), "attempts": msgspec.to_builtins(attempts)})
        return
    output.print_table(None, [(name, cell(message)) for name, cell in CARD.items()])
    print()
    output.print_records(DELIVERY, message.deliveries)
    for columns in (ATTEMPT, RESPONSE if source.inbox is None else FAILURE) if attempts else ():
        print()
        output.print_records(columns, attempts)
    if source.inbox is not None and (tracebacks := [attempt.excerpt for attempt in attempts if attempt.excerpt]):
        print("", *map(output.printable, tracebacks[-1].splitlines()), sep="\n")


def why(message_id: MessageId, /, *, remote: Remote = DEFAULTS) -> None:
    """Explain the state of a message: what it waits for, until when, and what would send it now.

    Example: fotahook why 019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42 --local
    """
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
    span: Span = EVER,
    dry_run: bool = False,
    as_new: bool = False,
    source: Source = SERVICE,
) -> int:
    """Deliver messages again that are dead or delivered: some by their ids, or all of an account in one state.

    Each goes to the tail of its ordering key, with fresh attempts and time to live. With several ids, a refusal does
    not stop the others; the exit code is then 4.

    Example: fotahook redeliver --account 0000123456-00001 --state dead --since 2h --dry-run --local

    Args:
        ids: Message ids.
        account: All messages of this account that are in --state, instead of ids.
        state: With --account: dead or delivered.
        dry_run: With --account: only count them.
        as_new: With ids: under a new id, so that receivers do not take it for a duplicate.
    """
    if account is None and not ids:
        raise UsageError("give the ids of messages, or --account A --state dead; see fotahook redeliver --help")
    if account is None and (state is not None or span != EVER or dry_run):
        raise UsageError("--state, --since, --until and --dry-run go with --account, not with ids")
    if account is not None and (ids or as_new):
        raise UsageError("--account takes no ids and no --as-new; leave it out to name messages one by one")
    if account is not None and state is None:
        raise UsageError("--account needs --state dead or --state delivered")
    with source.open() as stored:
        if account is None or state is None:
            return _redeliver_each(stored, ids, as_new=as_new, as_json=source.as_json)
        count = stored.redeliver_all(account, state, since=span.since, until=span.until, dry_run=dry_run)
        if not count:
            warn_if_unused(stored, account)
    output.print_facts({"account": account, "state": state, "count": count, "dryRun": dry_run}, as_json=source.as_json)
    return 0


def _redeliver_each(stored: Messages, ids: tuple[str, ...], *, as_new: bool, as_json: bool) -> int:
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
            output.print_list({"id": lambda it: it["id"], "sent as": lambda it: it["sentAs"]}, sent, as_json=as_json)
    return 0 if len(sent) == len(ids) else REFUSED


def _as_curl(client: Messages, message_id: str) -> bytes:
    """A command for a POSIX shell that posts the exact bytes, without control characters.

    The body comes from printf through a pipe: the kernel limits an argument to 128 KiB.
    """
    message, body = client.message(message_id), client.message_body(message_id)
    # The URL of the last attempt at the message, or of the next one.
    url = next((attempt.url for attempt in reversed(client.attempts(message_id)) if attempt.url is not None), None)
    if url is None:
        callback = client.account(message.account).callback if isinstance(client, OperatorClient) else None
        if callback is None:
            raise Failure(
                f"message {message_id} has no URL to go to: register a callback for account {message.account}"
            )
        url = callback.url
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"fotahook/{VERSION}",
        "Fotahook-Account": quote(message.account, safe=""),
        "webhook-id": message.id,
    }
    printf = "%s", body.decode(errors="surrogateescape")
    if not printf[1].replace("\n", "").isprintable():
        printf = "%b", _NOT_PLAIN.sub(lambda found: b"\\0%03o" % ord(found[0]), body).decode()
    flags = [part for header in headers.items() for part in ("-H", ": ".join(header))]
    curl = "curl", "-sS", "--data-binary", "@-", *flags, url
    return f"{shlex.join(('printf', *printf))} | {shlex.join(curl)}\n".encode()
