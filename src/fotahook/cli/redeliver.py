"""`fotahook redeliver`: messages once more, some by their ids or an account's of one state."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter
from msgspec import Struct
from msgspec.structs import astuple

from fotahook.contract.errors import ApiException

from .shared.errors import REFUSED, UsageError
from .shared.inbox import SERVICE, Messages, Refused, Source
from .shared.tables import print_facts, print_structs
from .shared.times import EVER, Span


class Sent(Struct, frozen=True, rename="camel"):
    """A message that is sent once more, and the id that it has then."""

    id: str
    sent_as: str


def redeliver(
    *ids: Annotated[str, Parameter(name="ID")],
    account: str | None = None,
    state: Literal["dead", "delivered"] | None = None,
    span: Span = EVER,
    dry_run: bool = False,
    as_new: bool = False,
    source: Source = SERVICE,
) -> int:
    """Send messages that are dead or delivered once more: some by their ids, or an account's of one state.

    Each goes to the tail of its ordering key, with attempts and time to live afresh. Of several ids each is tried; exit
    code 4 if one was refused.

    Example: fotahook redeliver --account 0000123456-00001 --state dead --since 2h --dry-run --dev

    Parameters
    ----------
    ids
        Ids of messages.
    account
        All messages of this account that are in --state, in place of ids.
    state
        With --account: dead or delivered.
    dry_run
        With --account: only count them.
    as_new
        With ids: under a new id, so that receivers take it for another message.
    """
    if account is None:
        if not ids:
            raise UsageError("give the ids of messages, or --account A --state dead; see fotahook redeliver --help")
        if state is not None or span != EVER or dry_run:
            raise UsageError("--state, --since, --until and --dry-run go with --account, not with ids")
        with source.stored() as stored:
            return _each(stored, ids, as_new=as_new, as_json=source.as_json)
    if ids or as_new:
        raise UsageError("--account takes no ids and no --as-new; leave it out to name messages one by one")
    if state is None:
        raise UsageError("--account needs --state dead or --state delivered")
    since, until = span.ends()
    with source.stored() as stored:
        count = stored.redeliver_all(account, state, since=since, until=until, dry_run=dry_run)
    facts: dict[str, str | int | None] = {"account": account, "state": state, "count": count, "dryRun": dry_run}
    print_facts(facts, as_json=source.as_json)
    return 0


def _each(stored: Messages, ids: tuple[str, ...], *, as_new: bool, as_json: bool) -> int:
    """Each by itself; a refusal of one is told, and the others are tried all the same."""
    sent: list[Sent] = []
    try:
        for message_id in ids:
            try:
                sent.append(Sent(message_id, stored.redeliver(message_id, as_new=as_new).id))
            except (ApiException, Refused) as error:
                if len(ids) == 1:
                    raise
                print(f"fotahook: {message_id}: {error}", file=sys.stderr)
    finally:
        # Also where the service went away in the middle: what it has taken is worth knowing.
        if sent:
            print_structs(("id", "sent as"), sent, astuple, as_json=as_json)
    return 0 if len(sent) == len(ids) else REFUSED
