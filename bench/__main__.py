"""Runs the sections named on the command line, or all of them, and writes what they found to docs/benchmarks.md."""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench import report


def sections() -> list[str]:
    """The names of the sections: the modules in this folder that have a `main(report)`."""
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    return [name for name in names if "\ndef main(report: " in (folder / f"{name}.py").read_text()]


def summary(name: str) -> str:
    """The first paragraph of a section's docstring."""
    text = import_module(f"bench.{name}").__doc__ or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def main(arguments: Sequence[str] | None = None, page: Path = report.PAGE) -> int:
    known = sections()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="sections:\n" + "\n".join(f"  {name:11} {summary(name)}" for name in known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", default=known, help="all of them by default")
    wanted = parser.parse_args(arguments).sections
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"unknown section: {', '.join(unknown)}; sections: {', '.join(known)}")
    return max(run(name, page) for name in wanted)


def run(name: str, page: Path) -> int:
    """Measure a section and put it into the page. If its run has an error, the page stays as it is; 1 then."""
    module = import_module(f"bench.{name}")
    print(f"## {name}\n", flush=True)
    found, began = report.Report(), time.perf_counter()
    try:
        module.main(found)
    except Exception as error:
        traceback.print_exception(error)
        print(f"{name} failed: {page.name} keeps its last figures", file=sys.stderr, flush=True)
        return 1
    seconds = time.perf_counter() - began
    where = report.conditions(getattr(module, "PEERS", ()))
    text = report.section(summary(name), time.strftime("%Y-%m-%d"), where, seconds, found)
    # Read just now: another section may have been written meanwhile.
    written = report.earlier_sections(page.read_text() if page.exists() else "")
    page.write_text(report.render(written | {name: text}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
