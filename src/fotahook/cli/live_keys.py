"""Keys as they are pressed at a terminal, which until then keeps them until the line is ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

from .output import on_terminal

NAMES: Final = {
    **dict.fromkeys(("\x1b[A", "\x1bOA", "k"), "up"),
    **dict.fromkeys(("\x1b[B", "\x1bOB", "j"), "down"),
}
"""Names of keys that have several; the others are themselves."""


def keys_can_be_read() -> bool:
    """Whether a person sits at both ends, and this process is the one that they talk to."""
    if not (on_terminal() and sys.stdin.isatty()):
        return False
    try:
        import termios  # noqa: F401  # Windows has none
    except ModuleNotFoundError:
        return False
    return _in_foreground(sys.stdin.fileno())


@contextlib.contextmanager
def keys(hear: Callable[[str], object]) -> Iterator[None]:
    """Call `hear` with each key that is pressed until the block ends; Ctrl-C is a signal as ever."""
    import termios
    import tty

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def take() -> None:
        if _in_foreground(terminal):
            tty.setcbreak(terminal)

    before = termios.tcgetattr(terminal)
    take()
    # After Ctrl-Z the shell has set the terminal as it likes it.
    loop.add_signal_handler(signal.SIGCONT, take)
    loop.add_reader(terminal, lambda: _read(terminal, hear))
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        loop.remove_signal_handler(signal.SIGCONT)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _in_foreground(terminal: int) -> bool:
    """Whether this process may touch the terminal: one in the background would be stopped for it."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True  # it is not the terminal that controls this process


def _read(terminal: int, hear: Callable[[str], object]) -> None:
    try:
        pressed = os.read(terminal, 64).decode(errors="replace")
    except OSError:
        pressed = ""  # the terminal is gone, and so are we in a moment
    if not pressed:
        asyncio.get_running_loop().remove_reader(terminal)
    # An arrow comes as three characters, and what is pasted as many.
    for key in [pressed] if pressed.startswith("\x1b") else pressed:
        hear(NAMES.get(key, key))
