"""`fotahook messages` and `why`: what was accepted, what became of it, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from cyclopts import App, Parameter

from fotahook.client import OperatorClient
from fotahook.contract.operator import Attempt, DeliveryState, MessageState, Reason
from fotahook.contract.version import VERSION

from .shared.curl import as_curl
from .shared.errors import Failure, UsageError
from .shared.inbox import SERVICE, Messages, Source
from .shared.paging import Pages
from .shared.remote import DEFAULTS, Remote
from .shared.tables import print_bytes, print_card, print_json, print_lines, print_listing, print_table
from .shared.times import Span, shown_moment

app = App(name="messages", help="List messages and show what became of each.")

COLUMNS = ("id", "state", "type", "ordering key", "attempts", "last outcome", "accepted")
DELIVERY = ("lane", "state", "attempts", "due", "expires", "last outcome")
ATTEMPT = ("attempt", "started", "outcome", "status", "dns", "connect", "tls", "first byte", "total")
ANSWER = ("attempt", "url", "answer", "fix")
REASON = ("state", "reason", "text", "until")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filter(Span):
    """Which messages of an account are meant."""

    state: Literal["pending", "delivered", "dead"] | None = None
    "Only messages in this state."
    type: str | None = None
    "Only messages of this type."
    key: str | None = None
    "Only messages of this ordering key."

    def pages(self, client: Messages, account: str, limit: int = 0) -> Pages[MessageState]:
        """The messages of an account that are meant, newest first."""
        since, until = self.ends()

        def ask(cursor: str | None, count: int) -> tuple[Sequence[MessageState], str | None]:
            page = client.messages(
                account,
                state=self.state,
                message_type=self.type,
                ordering_key=self.key,
                since=since,
                until=until,
                cursor=cursor,
                limit=count,
            )
            return page.messages, page.cursor

        return Pages(ask, limit)


ALL = Filter()


@app.command(name="list")
def list_(account: str, /, *, which: Filter = ALL, limit: int = 50, source: Source = SERVICE) -> None:
    """List messages of an account, newest first.

    Example: fotahook messages list 0000123456-00001 --state dead --since 2h --dev

    Parameters
    ----------
    account
        Whose messages.
    limit
        At most so many; 0 for all of them.
    """
    with source.stored() as client:
        print_listing(COLUMNS, which.pages(client, account, limit), _row, as_json=source.as_json)


@app.command
def show(
    message_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    body: bool = False,
    as_: Annotated[Literal["curl"] | None, Parameter(name="--as")] = None,
    source: Source = SERVICE,
) -> None:
    """Show a message: where it stands, and every attempt at it with what to do about a failure.

    Example: fotahook messages show 019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42 --dev

    Parameters
    ----------
    message_id
        The message's id.
    body
        Print its bytes, exactly, and nothing else.
    as_
        Print a command for the shell that posts the same bytes to the same URL, unsigned.
    """
    if body + (as_ is not None) + source.as_json > 1:
        raise UsageError("--body, --as and --json are three ways to print a message; choose one")
    if as_ is not None:
        if source.inbox is not None:
            raise UsageError("--as curl repeats a delivery of a service; with --inbox, --body has the message's bytes")
        with source.operator() as client:
            print_bytes(_as_curl(client, message_id))
        return
    with source.stored() as stored:
        if body:
            print_bytes(stored.message_body(message_id))
            return
        message, attempts = stored.message(message_id), stored.attempts(message_id)
    if source.as_json:
        print_json({**msgspec.to_builtins(message), "attempts": msgspec.to_builtins(attempts)})
    else:
        _show(message, attempts if source.inbox is None else [_briefly(attempt) for attempt in attempts])
        if source.inbox is not None:
            _show_last_failure(attempts)


def why(message_id: Annotated[str, Parameter(name="ID")], /, *, remote: Remote = DEFAULTS) -> None:
    """Say why a message stands where it stands: what it waits for, until when, and what would send it now.

    Example: fotahook why 019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42 --dev

    Parameters
    ----------
    message_id
        The message's id.
    """
    with remote.operator() as client:
        told = client.why(message_id)
    if remote.as_json:
        print_json({"id": message_id, **msgspec.to_builtins(told)})
    else:
        print_table(REASON, [_reason(told.state, reason) for reason in told.reasons])


def _as_curl(client: OperatorClient, message_id: str) -> bytes:
    message = client.message(message_id)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"fotahook/{VERSION}",
        "Fotahook-Account": quote(message.account, safe=""),
        "webhook-id": message.id,
    }
    return as_curl(_url(client, message), headers, client.message_body(message_id))


def _url(client: OperatorClient, message: MessageState) -> str:
    """Where the last attempt at a message went, or the next one goes."""
    tried = [attempt.url for attempt in client.attempts(message.id) if attempt.url is not None]
    if tried:
        return tried[-1]
    callback = client.account(message.account).callback
    if callback is None:
        raise Failure(f"message {message.id} has no URL to go to: register a callback for account {message.account}")
    return callback.url


def _show(message: MessageState, attempts: Sequence[Attempt]) -> None:
    print_card(
        {
            "id": message.id,
            "account": message.account,
            "type": message.type or "(none)",
            "ordering key": message.ordering_key or "(none)",
            "size": f"{message.size} bytes",
            "sha256": message.sha256,
            "accepted": shown_moment(message.accepted_at),
        }
    )
    print()
    print_table(DELIVERY, [_delivery(delivery) for delivery in message.deliveries])
    if attempts:
        print()
        print_table(ATTEMPT, [_attempt(attempt) for attempt in attempts])
        print()
        print_table(ANSWER, [_answer(attempt) for attempt in attempts])


def _briefly(attempt: Attempt) -> Attempt:
    """A handler's failure by the last line of its traceback."""
    lines = (attempt.excerpt or "").strip().splitlines()
    return msgspec.structs.replace(attempt, excerpt=lines[-1] if lines else None)


def _show_last_failure(attempts: Sequence[Attempt]) -> None:
    """What the last attempt that failed says in whole: a handler's traceback has many lines."""
    said = [attempt.excerpt for attempt in attempts if attempt.excerpt]
    if said:
        print()
        print_lines(said[-1])


def _row(message: MessageState) -> Sequence[str]:
    deliveries = message.deliveries
    return (
        message.id,
        ", ".join(delivery.state for delivery in deliveries),
        message.type or "",
        message.ordering_key or "",
        str(sum(delivery.attempts for delivery in deliveries)),
        ", ".join(delivery.last_outcome or "" for delivery in deliveries),
        shown_moment(message.accepted_at),
    )


def _delivery(delivery: DeliveryState) -> Sequence[str]:
    return (
        delivery.lane,
        delivery.state,
        str(delivery.attempts),
        shown_moment(delivery.due),
        shown_moment(delivery.expires_at),
        delivery.last_outcome or "",
    )


def _attempt(attempt: Attempt) -> Sequence[str]:
    phases = attempt.phases
    parts = (phases.dns, phases.connect, phases.tls, phases.first_byte, phases.total)
    return (
        str(attempt.number),
        shown_moment(attempt.started_at),
        attempt.outcome + ", sent twice" * bool(attempt.resent),
        str(attempt.http_status or ""),
        *("" if part is None else f"{part:.1f}" for part in parts),
    )


def _answer(attempt: Attempt) -> Sequence[str]:
    return (str(attempt.number), attempt.url or "", attempt.excerpt or "", attempt.fix or "")


def _reason(state: str, reason: Reason) -> Sequence[str]:
    return state, reason.code, reason.text, shown_moment(reason.until)
