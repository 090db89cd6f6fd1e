"""The live view's terminal: messages scroll by, and the last line tells which one is chosen and what keys do with it.

It has a thread of its own: a terminal that somebody holds with Ctrl-S must not hold up the messages.
"""

import base64
import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from fotahook.contract.messages import CallbackMessage, parse_message
from fotahook.delivery import Outcome
from fotahook.store.base import Delivery, Lease

from . import live_text
from .curl import as_curl

MOST_KEPT: Final = 1000
"""Messages that can be chosen, the newest ones."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""The same by size."""
MOST_WAITING: Final = 10_000
"""Events that wait for a terminal that stands still; what comes then is counted instead."""
_END_SECONDS: Final = 2.0
_CLIPBOARD_LIMIT: Final = 64 * 1024

_KEYS: Final = "↑↓ choose  b body  c curl"


class Came(msgspec.Struct, frozen=True):
    """A message is about to be handled."""

    lease: Lease
    delivery: Delivery


class Handled(msgspec.Struct, frozen=True):
    """The handlers have seen it."""

    lease: Lease
    delivery: Delivery
    outcome: Outcome
    seconds: float


class Sent(msgspec.Struct, frozen=True):
    """It was forwarded, or replayed."""

    lease: Lease
    delivery: Delivery
    way: str
    outcome: Outcome


class Pressed(msgspec.Struct, frozen=True):
    """A key."""

    key: str


class Opened(msgspec.Struct, frozen=True):
    """Messages come in at a URL."""

    url: str


class Said(msgspec.Struct, frozen=True):
    """A line of the log."""

    text: str
    style: str = ""


Event = Came | Handled | Sent | Opened | Pressed | Said


class Kept(msgspec.Struct, frozen=True):
    """A message that can be chosen."""

    number: int
    lease: Lease
    delivery: Delivery
    message: CallbackMessage


class Screen:
    """Shows events. `replay_to`, `replay`: where a message can be sent once more, and how. `leave` ends the program."""

    def __init__(
        self,
        console: Console,
        *,
        proof: str,
        handlers: bool,
        keys: bool,
        replay_to: str | None,
        replay: Callable[[Kept], None],
        leave: Callable[[], None],
    ) -> None:
        self._console = console
        self._proof = proof
        self._handlers = handlers
        self._keys = keys
        self._replay_to = replay_to
        self._replay = replay
        self._leave = leave
        self._events: queue.Queue[Event | None] = queue.Queue(MOST_WAITING)
        self._missed = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        self._count = 0
        self._chosen: str | None = None
        """None follows the newest."""
        self._url = ""

    def tell(self, event: Event) -> None:
        """Have an event shown, when the terminal is ready for it."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._missed += 1

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show what is told until the block ends."""
        thread = threading.Thread(target=self._run, name="fotahook-screen", daemon=True)
        thread.start()
        try:
            yield
        finally:
            # A terminal that stands still is not waited for.
            with contextlib.suppress(queue.Full):
                self._events.put(None, timeout=_END_SECONDS)
                thread.join(_END_SECONDS)

    def _run(self) -> None:
        with self._last_line() as update:
            while (event := self._events.get()) is not None:
                self._show(event)
                if self._missed:
                    missed, self._missed = self._missed, 0
                    self._console.print(Text(f"{missed} more were not shown: the terminal stood still", style="yellow"))
                update()

    @contextlib.contextmanager
    def _last_line(self) -> Iterator[Callable[[], None]]:
        if not self._keys:
            yield lambda: None
            return
        # What handlers print goes above it; the log has a way of its own.
        with Live(
            self._status(), console=self._console, auto_refresh=False, transient=True, redirect_stderr=False
        ) as live:
            live.refresh()
            yield lambda: live.update(self._status(), refresh=True)

    def _show(self, event: Event) -> None:
        match event:
            case Came():
                self._keep(event.lease, event.delivery)
            case Handled() if self._handlers or event.outcome.code != "delivered":
                number = self._keep(event.lease, event.delivery).number
                self._console.print(live_text.handled(number, event.delivery, event.outcome, event.seconds))
            case Sent():
                number = self._keep(event.lease, event.delivery).number
                self._console.print(live_text.sent(number, event.way, event.outcome))
            case Opened():
                self._url = event.url
            case Pressed():
                self._press(event.key)
            case Said():
                self._console.print(Text(live_text.printable(event.text), style=event.style))

    def _keep(self, lease: Lease, delivery: Delivery) -> Kept:
        """A message among those that can be chosen; shown, if it was not there."""
        if (known := self._kept.get(delivery.message)) is not None:
            return known
        self._count += 1
        kept = Kept(self._count, lease, delivery, parse_message(delivery.body))
        self._kept[delivery.message] = kept
        self._bytes += len(delivery.body)
        while len(self._kept) > MOST_KEPT or (self._bytes > MOST_BYTES and len(self._kept) > 1):
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.delivery.body)
        self._console.print(live_text.entry(kept.number, delivery, kept.message, self._proof))
        return kept

    # Keys

    def _press(self, key: str) -> None:
        if key == "q":
            self._leave()
        elif (kept := self._choice()) is None:
            return
        elif key in ("up", "down"):
            self._choose(kept, -1 if key == "up" else 1)
        elif key == "b":
            self._console.print(live_text.title(kept.number, kept.delivery, kept.message))
            self._console.print(live_text.body_text(kept.message))
        elif key == "c":
            self._copy(kept)
        elif key == "r" and self._replay_to is not None:
            self._replay(kept)
        elif key == "r":
            self._console.print(Text("to replay a message, start with --replay-to URL", style="yellow"))

    def _choice(self) -> Kept | None:
        if not self._kept:
            return None
        chosen = self._kept.get(self._chosen or "")
        return chosen or next(reversed(self._kept.values()))

    def _choose(self, kept: Kept, step: int) -> None:
        ids = list(self._kept)
        place = ids.index(kept.delivery.message) + step
        self._chosen = ids[max(0, place)] if place < len(ids) - 1 else None

    def _copy(self, kept: Kept) -> None:
        account = quote(kept.delivery.account, safe="")
        headers = {
            "Content-Type": "application/json",
            **({"Fotahook-Account": account} if account else {}),
            "webhook-id": kept.delivery.message,
        }
        command = as_curl(self._replay_to or self._url, headers, kept.delivery.body)
        self._console.print(Text(command.decode().rstrip("\n")), soft_wrap=True)
        if len(command) <= _CLIPBOARD_LIMIT:
            # Most terminals put this into the clipboard; the others pass over it.
            self._console.file.write(f"\x1b]52;c;{base64.b64encode(command).decode()}\x07")

    def _status(self) -> Text:
        kept = self._choice()
        if kept is None:
            text = Text(f"waiting for messages at {self._url}" if self._url else "starting")
        else:
            text = live_text.title(kept.number, kept.delivery, kept.message).append(f"   {_KEYS}")
            text.append("  r replay" if self._replay_to else "")
        text.append("  q quit")
        text.stylize("reverse")
        text.no_wrap, text.overflow = True, "ellipsis"
        return text
