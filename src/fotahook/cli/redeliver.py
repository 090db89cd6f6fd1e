"""`fotahook redeliver`: deliver messages again, by their ids or all of an account in one state."""

from typing import Annotated, Literal

from cyclopts import Parameter

from fotahook.contract.errors import ApiException

from .shared.arguments import EVER, OptionalAccount, Span
from .shared.errors import REFUSED, UsageError
from .shared.output import note, print_facts, print_list
from .shared.remote import SERVICE, Messages, Source, warn_if_unused


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
    if account is None:
        if not ids:
            raise UsageError("give the ids of messages, or --account A --state dead; see fotahook redeliver --help")
        if state is not None or span != EVER or dry_run:
            raise UsageError("--state, --since, --until and --dry-run go with --account, not with ids")
        with source.open() as stored:
            return _redeliver_each(stored, ids, as_new=as_new, as_json=source.as_json)
    if ids or as_new:
        raise UsageError("--account takes no ids and no --as-new; leave it out to name messages one by one")
    if state is None:
        raise UsageError("--account needs --state dead or --state delivered")
    with source.open() as stored:
        count = stored.redeliver_all(account, state, since=span.since, until=span.until, dry_run=dry_run)
        if not count:
            warn_if_unused(stored, account)
    print_facts({"account": account, "state": state, "count": count, "dryRun": dry_run}, as_json=source.as_json)
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
                note(f"{message_id}: {error}")
    finally:
        # Also if the service fails in between: what it has accepted is worth knowing.
        if sent:
            print_list({"id": lambda it: it["id"], "sent as": lambda it: it["sentAs"]}, sent, as_json=as_json)
    return 0 if len(sent) == len(ids) else REFUSED
