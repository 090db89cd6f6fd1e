"""What an operator looks through in the PostgreSQL store: accounts, messages, the history of a callback."""

from collections.abc import Collection, Sequence

import msgspec

from ..records import (
    SCAN_LIMIT,
    Account,
    AccountState,
    Callback,
    CallbackChange,
    DeliveryStatus,
    Limits,
    Message,
    MessageFilter,
    Page,
)
from .connection import Db, Row, rows
from .rows import read_key, read_lane, read_placement


async def list_accounts(
    db: Db, state: AccountState | None, among: Collection[str] | None, after: str, limit: int
) -> list[Account]:
    names = None if among is None else list(among)
    found = await rows(db, "accounts", state=state, among=names, after=after, limit=limit)
    return [_account(row) for row in found]


async def list_messages(db: Db, account: str, wanted: MessageFilter, before: int | None, limit: int) -> Page:
    """Of the newest that may be wanted, those that are."""
    statement = f"recent_{wanted.state}" if wanted.state in ("pending", "dead") else "recent"
    before = (1 << 63) - 1 if before is None else before
    seqs = [row["seq"] for row in await rows(db, statement, account=account, before=before, limit=SCAN_LIMIT)]
    found = await rows(db, "wanted", seqs=seqs, limit=limit, **msgspec.structs.asdict(wanted))
    more = found[-1]["seq"] if len(found) == limit else seqs[-1] if len(seqs) == SCAN_LIMIT else None
    return Page(messages=tuple(await read_messages(db, found)), next=more)


async def list_changes(db: Db, account: str, limit: int) -> list[CallbackChange]:
    return [CallbackChange(**row) for row in await rows(db, "callback_history", account=account, limit=limit)]


async def read_messages(db: Db, found: Sequence[Row]) -> list[Message]:
    """Messages with their placements."""
    placements: dict[int, list[DeliveryStatus]] = {row["seq"]: [] for row in found}
    for row in await rows(db, "placements", seqs=list(placements)):
        placements[row["seq"]].append(read_placement(row))
    return [_message(row, placements[row["seq"]]) for row in found]


def _message(row: Row, placements: Sequence[DeliveryStatus]) -> Message:
    values = dict(row)
    del values["seq"]
    values["idempotency_key"] = read_key(row["idempotency_key"])
    return Message(**values, deliveries=tuple(placements))


def _account(row: Row) -> Account:
    account, url = row["account"], row["url"]
    return Account(
        account=account,
        callback=url
        and Callback(account=account, url=url, revision=row["revision"], registered_at=row["registered_at"]),
        limits=Limits(in_flight=row["in_flight"], per_second=row["per_second"]),
        lane=read_lane(row),
    )
