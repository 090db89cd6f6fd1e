"""Checks of a listener's settings: an invalid value is refused where it is given, with its name."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar, cast

T = TypeVar("T")

_INFINITY: Final = float("inf")


def seconds(name: str, value: float) -> float:
    """A time limit above 0. TypeError or ValueError for anything else."""
    # NaN fails every comparison, so it fails this one.
    if not 0 < number(name, value) < _INFINITY:
        raise ValueError(f"{name} must be a number of seconds above 0")
    return value


def duration(name: str, value: float, unit: str) -> float:
    """How long something is kept: 0 or more, in `unit`. TypeError or ValueError for anything else."""
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must be a number of {unit}, 0 or more")
    return value


def schedule(name: str, value: Sequence[float]) -> tuple[float, ...]:
    """The delay before each attempt. TypeError or ValueError for anything else."""
    delays = [number(f"each delay in {name}", delay) for delay in items(name, value)]
    if not delays or not all(0 <= delay < _INFINITY for delay in delays):
        raise ValueError(f"{name} must have at least one delay, each of 0 seconds or more")
    return tuple(delays)


def text(name: str, value: object) -> str:
    """A string. TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return value


def texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Several strings. TypeError, which shows none of them, for anything else."""
    found = items(name, values)
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"{name} must have only strings, and one of them is {type(each).__name__}")
    return cast("tuple[str, ...]", found)


def parse_each(name: str, values: Iterable[str], parse: Callable[[str], T]) -> tuple[T, ...]:
    """What each string stands for. A ValueError names a bad one by its position, because it may be a secret."""
    given, parsed = texts(name, values), []
    for position, value in enumerate(given, 1):
        try:
            parsed.append(parse(value))
        except ValueError as error:
            which = f"{name} (number {position} of {len(given)})" if len(given) > 1 else name
            raise ValueError(f"{which}: {error}") from error
    return tuple(parsed)


def number(name: str, value: object) -> float:
    """A number. TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return value


def items(name: str, values: object) -> tuple[object, ...]:
    """The items of a list. TypeError for anything that is not one, such as a single string."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list: write (value,) for a single value")
    return tuple(values)
