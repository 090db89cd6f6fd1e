"""The listener of `fotahook demo`: its handler writes down the id of each message, in the order of handling."""

from pathlib import Path
from typing import Final

from fotahook.contract.messages import CallbackMessage
from fotahook.listener import Context, Listener

LEDGER: Final = Path("handled.txt")
"""In the listener's working directory."""

listener = Listener()


@listener.on_any
def write_down(message: CallbackMessage, context: Context) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{context.id}\n")


def handled_ids(folder: Path) -> list[str]:
    """The inbox ids of the messages handled so far; a line still being written is left out."""
    ledger = folder / LEDGER
    return ledger.read_text().split("\n")[:-1] if ledger.exists() else []
