"""How messages look in the live view: a line for each, and beneath it the devices that it tells of."""

import json
import re
from datetime import datetime
from typing import Final

from rich.text import Text

from fotahook.contract.messages import CallbackMessage, Device
from fotahook.contract.refusals import one_line
from fotahook.delivery import Outcome
from fotahook.listener import Proof
from fotahook.store.base import Delivery

from .printing import readable

MOST_DEVICES: Final = 10
MOST_TEXT: Final = 64 * 1024
"""Characters of a body that are shown."""
_NAME: Final = 100

_BAD = re.compile("fail|reject|abort|cancel", re.IGNORECASE)
_GOOD = re.compile("success|finish|succeed|ended", re.IGNORECASE)


def proved(proof: Proof) -> str:
    """What every message that came in had to show."""
    ways = {"signed": proof.signed, "from a known address": proof.sources, "with its password": proof.basic}
    return ", ".join(way for way, asked in ways.items() if asked) or "not proved"


def entry(number: int, delivery: Delivery, message: CallbackMessage, proof: str) -> Text:
    """A message that has come."""
    text = title(number, delivery, message)
    for part in (_shown(delivery.account) or "no account", _campaign(message), f"{len(delivery.body)} bytes", proof):
        if part:
            text.append(f"  {part}")
    for status in filter(None, (part.status for part in message.parts)):
        text.append("  ").append_text(_status(status))
    for device in message.devices[:MOST_DEVICES]:
        text.append("\n    ").append_text(_device(device))
    if (more := len(message.devices) - MOST_DEVICES) > 0:
        text.append(f"\n    and {more} more devices", style="dim")
    return text


def title(number: int, delivery: Delivery, message: CallbackMessage) -> Text:
    """Number, time and kind of a message; its type beside that where it is another."""
    text = Text().append(f"#{number}", style="bold")
    text.append(f"  {clock_time(delivery.accepted_at)}", style="dim")
    text.append(f"  {_shown(message.kind) or 'of unknown kind'}", style="bold cyan")
    if message.type is None and message.kind is not None:
        text.append(" (no type)", style="dim")
    return text


def handled(number: int, delivery: Delivery, outcome: Outcome, seconds: float) -> Text:
    """What the handlers made of a message."""
    attempt = delivery.attempts + delivery.strikes + 1
    told = "" if attempt == 1 else f" at attempt {attempt}"
    if outcome.code == "delivered":
        return Text(f"#{number}  handled in {seconds * 1000:.0f} ms{told}", style="green")
    return Text(f"#{number}  {outcome.code}{told}: {_last_line(outcome.excerpt)}", style="red")


def sent(number: int, way: str, outcome: Outcome) -> Text:
    """What came of sending a message somewhere: forwarded, or replayed."""
    text = Text(f"#{number}  {way} {_shown(outcome.url) or 'nowhere'}: ")
    if outcome.code == "delivered":
        return text.append(f"{outcome.status} in {outcome.phases['total']:.0f} ms", style="green")
    answered = "" if outcome.status is None else f" ({outcome.status})"
    return text.append(f"{outcome.code}{answered}. {outcome.fix or ''}", style="red")


def body_text(message: CallbackMessage) -> Text:
    """All of a message, laid out; without the password that ThingSpace may echo."""
    laid_out = json.dumps(readable(message), ensure_ascii=False, indent=2)
    cut = f"\n… {len(laid_out) - MOST_TEXT} more characters" if len(laid_out) > MOST_TEXT else ""
    return Text(printable(laid_out[:MOST_TEXT]) + cut)


def printable(text: str) -> str:
    """Lines without what would steer a terminal: each such character by its number."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}" for char in text)


def clock_time(moment: float) -> str:
    """The time of day, here."""
    return f"{datetime.fromtimestamp(moment).astimezone():%H:%M:%S}"


def _campaign(message: CallbackMessage) -> str:
    return f"campaign {_shown(message.campaign_id)}" if message.campaign_id else ""


def _device(device: Device) -> Text:
    text = Text(f"{_shown(device.device_id) or 'no device id':<15}  ").append_text(
        _status(device.status or "no status")
    )
    return text.append(f"  {_shown(device.result_reason)}") if device.result_reason else text


def _status(status: str) -> Text:
    style = "red" if _BAD.search(status) else "green" if _GOOD.search(status) else "yellow"
    return Text(_shown(status), style=style)


def _last_line(excerpt: str) -> str:
    return _shown((excerpt.rstrip().splitlines() or [""])[-1], 4 * _NAME)


def _shown(text: str | None, limit: int = _NAME) -> str:
    """What a sender wrote, short and without what would steer a terminal."""
    return one_line(text or "", limit)
