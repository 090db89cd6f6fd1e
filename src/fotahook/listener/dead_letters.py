"""Quarantine: messages whose every attempt failed. They stay in the inbox until somebody asks for them once more."""

import msgspec

from fotahook.store import Store
from fotahook.store.records import Message, MessageFilter


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A message in quarantine."""

    id: str
    """What ``Listener.redeliver`` takes."""
    account: str
    kind: str | None
    received_at: float
    """When the message was stored, in Unix seconds."""
    raw: bytes | None
    """The bytes as they came; None once they are removed, `keep_days` after."""
    attempts: int
    """How often it was tried, by handlers and forwards together."""
    failure: str
    """What the last attempt that failed said: of handlers the name and the traceback, of a forward what it answered."""


async def quarantined(store: Store, account: str, limit: int) -> list[Quarantined]:
    """Up to `limit` dead messages of an account, newest first."""
    found: list[Quarantined] = []
    before: int | None = None
    while True:
        page = await store.messages(account, MessageFilter(state="dead"), before=before, limit=limit - len(found))
        for listed in page.messages:
            message = await store.message(listed.id)
            assert message is not None  # its row stays for ever, so that dedupe never weakens
            found.append(await _quarantined(store, message))
        before = page.next
        if before is None or len(found) == limit:
            return found


async def _quarantined(store: Store, message: Message) -> Quarantined:
    attempts = await store.attempts(message.id)
    # A delivery dies of a failed attempt, and attempts are kept for good.
    last = [attempt for attempt in attempts if attempt.outcome != "delivered"][-1]
    return Quarantined(
        id=message.id,
        account=message.account,
        kind=message.type,
        received_at=message.accepted_at,
        raw=message.body,
        attempts=len(attempts),
        failure=last.excerpt or last.error_code or last.outcome,
    )
