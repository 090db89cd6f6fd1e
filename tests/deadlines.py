"""The deadline of everything that tests wait for: far beyond what it takes, for the machine may have other work."""

from typing import Final

DEADLINE: Final = 60.0
