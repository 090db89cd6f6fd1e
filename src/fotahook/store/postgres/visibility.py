"""Which rows of the PostgreSQL store are visible: rows become visible in another order than that of their numbers.

A writer has a transaction before it draws a number, since it locks the lanes first. Once all transactions are over that
had begun when the last number was drawn, every row up to that number is visible, or was rolled back. Waiting for that
costs the writers nothing. A long write transaction of any client of the server delays events.
"""

from ..events import EventCursor
from ..session import Session


class VisibilityTracker:
    """Tracks up to which numbers every row is visible, for the readers of one process."""

    def __init__(self) -> None:
        self._visible = EventCursor()
        self._pending: tuple[EventCursor, int] | None = None
        """The last numbers drawn at a moment, and a transaction that began after all that had drawn them."""

    async def visible(self, db: Session, present: EventCursor) -> EventCursor:
        """The numbers up to which a statement that begins now sees all rows; `present` has the last ones drawn."""
        if present == self._visible:
            return present
        if self._pending is None:
            self._pending = present, await db.value("next_transaction")
        # Another reader may have been here meanwhile.
        drawn, transaction = self._pending
        if await db.value("oldest_transaction") > transaction:
            self._visible = self._visible.merge(drawn)
            self._pending = None
        return self._visible
