"""Dead letters: messages that failed on every attempt. They stay in the inbox and can be redelivered."""

import msgspec

from fotahook.store import Store
from fotahook.store.records import MessageFilter


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that failed on every attempt."""

    id: str
    """The id to pass to ``Listener.redeliver``."""
    account: str
    kind: str | None
    received_at: float
    """When the message was stored, in Unix seconds."""
    raw: bytes | None
    """The bytes as received; None once they are removed, after `keep_days`."""
    attempts: int
    """Attempts by handlers and forwards together."""
    failure: str
    """The last failure: a handler's name and traceback, or what a forward answered."""


async def dead_letters(store: Store, account: str, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters of an account, newest first."""
    found: list[DeadLetter] = []
    before: int | None = None
    while True:
        page = await store.messages(account, MessageFilter(state="dead"), before=before, limit=limit - len(found))
        for listed in page.messages:
            message, attempts = await store.message(listed.id), await store.attempts(listed.id)
            assert message is not None  # rows are never deleted, so that repetitions stay known
            # There is one: a message dies of a failed attempt, and attempts are kept.
            last = [attempt for attempt in attempts if attempt.outcome != "delivered"][-1]
            letter = DeadLetter(
                id=message.id,
                account=message.account,
                kind=message.type,
                received_at=message.accepted_at,
                raw=message.body,
                attempts=len(attempts),
                failure=last.excerpt or last.error_code or last.outcome,
            )
            found.append(letter)
        before = page.next
        if before is None or len(found) == limit:
            return found
