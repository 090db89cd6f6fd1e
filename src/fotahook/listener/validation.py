"""What a Listener may be told: an impossible value is refused where it is given, in words."""

from collections.abc import Iterable, Sequence
from typing import Final, cast

_INFINITE: Final = float("inf")


def seconds(name: str, value: float) -> float:
    """A time limit; TypeError or ValueError if it cannot be one."""
    # Not "0 or below": that would let pass what is no number.
    if not 0 < number(name, value) < _INFINITE:
        raise ValueError(f"{name} is a number of seconds above 0")
    return value


def span(name: str, value: float, unit: str) -> float:
    """A time for which something is kept or known; TypeError or ValueError if it cannot be one."""
    if not number(name, value) >= 0:
        raise ValueError(f"{name} is a number of {unit}, 0 or more")
    return value


def pauses(name: str, value: Sequence[float]) -> tuple[float, ...]:
    """A pause before each attempt; TypeError or ValueError if they cannot be that."""
    each = [number(f"each pause of {name}", pause) for pause in listed(name, value)]
    if not each or not all(0 <= pause < _INFINITE for pause in each):
        raise ValueError(f"{name} has a pause of 0 seconds or more for each attempt, and at least one")
    return tuple(each)


def store_url(name: str, value: str) -> str:
    """The URL of a store, as far as can be told before it is opened."""
    if not text(name, value):
        raise ValueError(f"{name} is empty; name a store, such as sqlite:///inbox.db")
    return value


def text(name: str, value: object) -> str:
    """A text; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, not of type {_type(value)}")
    return value


def texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Several texts; TypeError, which shows none of them, for anything else."""
    found = listed(name, values)
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"{name} has texts only, and one of them is of type {_type(each)}")
    return cast("tuple[str, ...]", found)


def number(name: str, value: object) -> float:
    """A number; TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number, not of type {_type(value)}")
    return value


def listed(name: str, values: object) -> tuple[object, ...]:
    """What a list holds; TypeError for what is none, such as a single text."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is a list: write (value,) for a single one")
    return tuple(values)


def _type(value: object) -> str:
    return type(value).__name__
