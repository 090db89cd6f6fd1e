"""Puts it together: the command line; the only room that reads the environment and the clock."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; without arguments, that of the process."""
    try:
        from .commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fotahook"):
            raise
        print(f"fotahook: the command line needs {error.name}: pip install 'fotahook[cli]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fotahook: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
