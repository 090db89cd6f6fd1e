"""Runs the sections named on the command line, or all of them, and prints their tables."""

import sys
from importlib import import_module
from pathlib import Path


def sections() -> list[str]:
    """The names of the sections: the modules in this folder that have a `main()`."""
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    return [name for name in names if "\ndef main(" in (folder / f"{name}.py").read_text()]


def main() -> int:
    known = sections()
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"unknown section: {', '.join(unknown)}; sections: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in wanted:
        import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
