"""The devices of a campaign, by number: none of them is kept, so that a million take as much room as one."""

from collections.abc import Callable
from math import gcd
from random import Random
from typing import Final

_SERIALS: Final = 1_000_000
# 01234567 is no type that was ever allocated to a maker.
_FIRST: Final = 1234567_000000

Place = Callable[[int], int]
"""Where a number goes in another order of the same numbers."""


class Fleet:
    """So many devices, and which of them fail: exactly their share, though of two devices or more at least one.

    ValueError for a share that is none, or less than one device.
    """

    def __init__(self, chance: Random, size: int, failures: float) -> None:
        if size < 1 or not 0 <= failures <= 1:
            raise ValueError("a campaign has at least one device, and a share of failures between 0 and 1")
        self.size = size
        self.failed = round(size * failures)
        if failures > 0 and size > 1:
            self.failed = max(self.failed, 1)
        self._serial = _shuffled(chance, max(size, _SERIALS))
        self._rank = _shuffled(chance, size)

    def imei(self, number: int) -> str:
        """Its IMEI, different for each device: 14 digits and the check digit over them."""
        return _with_check_digit(f"{_FIRST + self._serial(number):014d}")

    def failure(self, number: int) -> int | None:
        """Its number among those that fail; None if it does not."""
        rank = self._rank(number)
        return rank if rank < self.failed else None


def _shuffled(chance: Random, size: int) -> Place:
    factor = chance.randrange(size)
    while gcd(factor, size) != 1:
        factor = chance.randrange(size)
    shift = chance.randrange(size)
    return lambda number: (factor * number + shift) % size


_DOUBLED: Final = {digit: sum(divmod(2 * int(digit), 10)) for digit in "0123456789"}


def _with_check_digit(digits: str) -> str:
    """The number with its Luhn digit, as every IMEI ends."""
    total = sum(map(int, digits[::2])) + sum(_DOUBLED[digit] for digit in digits[1::2])
    return f"{digits}{-total % 10}"
