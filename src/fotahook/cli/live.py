"""`fotahook listen` at a terminal: an inbox to look at, with keys to take a message out of it or to send it on."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import msgspec
from rich.console import Console

from fotahook.contract.messages import CallbackMessage
from fotahook.delivery import Deliver, Outcome
from fotahook.listener import Listener
from fotahook.listener.forward import Forward, Forwards
from fotahook.listener.receive import HANDLERS
from fotahook.store.base import Delivery, Lease

from .live_keys import keys, keys_can_be_read
from .live_screen import Came, Handled, Kept, Opened, Pressed, Said, Screen, Sent
from .live_text import proved

_STYLES: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}


class LiveInbox:
    """What comes to a listener, shown as it comes. `replay_to`: where a chosen message is sent when somebody asks."""

    def __init__(self, listener: Listener, *, handlers: bool, replay_to: str | None) -> None:
        self._listener = listener
        self._replay_to = replay_to
        self._forwards = Forwards(listener.forwarding)
        if replay_to is not None:
            # A replay is a forward of one message: the same rules, the same signature.
            self._forwards.add(replay_to, None, None)
            self._consumer = Forward(url=replay_to, types=None, accounts=None).consumer
        self._deliver: Deliver
        self._replays: set[asyncio.Task[None]] = set()
        self._keys = keys_can_be_read()
        self._screen = Screen(
            Console(),
            proof=proved(listener.reception.proof),
            handlers=handlers,
            keys=self._keys,
            replay_to=replay_to,
            replay=self._replay,
            leave=lambda: signal.raise_signal(signal.SIGTERM),
        )
        # Without any handler forwards would be all that messages go to.
        listener.on_any(_seen)

    def around(self, deliver: Deliver) -> Deliver:
        """The same deliverer, with what it does told to the screen."""

        async def shown(lease: Lease, delivery: Delivery) -> Outcome:
            self._screen.tell(Came(lease, delivery))
            began = time.monotonic()
            outcome = await deliver(lease, delivery)
            if lease.consumer == HANDLERS:
                self._screen.tell(Handled(lease, delivery, outcome, time.monotonic() - began))
            else:
                self._screen.tell(Sent(lease, delivery, "forwarded to", outcome))
            return outcome

        return shown

    def ready(self, url: str) -> None:
        """Messages come in at this URL."""
        self._screen.tell(Opened(url))

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Show what comes until the block ends. ValueError if nothing may be replayed to where it is to be."""
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            if self._replay_to is not None:
                sending = self._forwards.sending(self._listener.inbox, self._listener.reception.clock)
                self._deliver = await stack.enter_async_context(sending)
            stack.enter_context(self._logging())
            stack.enter_context(self._screen.showing())
            if self._keys:
                stack.enter_context(keys(lambda key: self._screen.tell(Pressed(key))))
            yield
            await asyncio.gather(*self._replays)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """The log on the screen, unless it goes somewhere else; as JSON again afterwards."""
        if not sys.stderr.isatty():
            yield
            return
        before = logging.root.handlers[:]
        logging.root.handlers[:] = [OnScreen(self._screen)]
        try:
            yield
        finally:
            logging.root.handlers[:] = before

    def _replay(self, kept: Kept) -> None:
        # In the screen's thread.
        self._loop.call_soon_threadsafe(self._begin_replay, kept)

    def _begin_replay(self, kept: Kept) -> None:
        task = asyncio.create_task(self._send_again(kept))
        self._replays.add(task)
        task.add_done_callback(self._replays.discard)

    async def _send_again(self, kept: Kept) -> None:
        lease = msgspec.structs.replace(kept.lease, consumer=self._consumer)
        outcome = await self._deliver(lease, kept.delivery)
        self._screen.tell(Sent(kept.lease, kept.delivery, "replayed to", outcome))


class OnScreen(logging.Handler):
    """Shows the log's lines among the messages."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        self._screen.tell(Said(self.format(record), _STYLES.get(record.levelno, "dim")))


async def _seen(message: CallbackMessage) -> None:
    """What is shown is shown around the handlers."""
