"""Checks of settings: TypeError or ValueError, with its name, for what is invalid."""

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

T = TypeVar("T")


def seconds(name: str, value: float) -> None:
    # NaN fails every comparison, so it fails this one.
    if not 0 < number(name, value) < float("inf"):
        raise ValueError(f"{name} must be a number of seconds above 0")


def duration(name: str, value: float, unit: str) -> None:
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must be a number of {unit}, 0 or more")


def number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return value


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return value


def items(name: str, values: object) -> tuple[object, ...]:
    """The items of a list; a single string is none."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list: write (value,) for a single value")
    return tuple(values)


def texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Several strings, of which the error shows none."""
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
