"""The commands and their flags as Markdown, from the help that the commands print."""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Final

from cyclopts import App
from cyclopts.help import HelpPanel
from rich.console import Console, ConsoleOptions

from fotahook.cli.commands import app, run

from .markdown import code, plain, table

_NO_DEFAULT: Final = ("False", "()")
"""What help shows as the default of a flag that is not set, and of a repeatable flag."""


def commands() -> str:
    """A section for each command, in the order of `fotahook --help`."""
    # Help omits the variable of a flag that is set by it.
    for name in [name for name in os.environ if name.startswith("FOTAHOOK_")]:
        del os.environ[name]
    # Wide enough that no example wraps.
    os.environ["COLUMNS"] = "200"
    return "".join(_section(path) for path in _paths(app))


def _paths(group: App, *above: str) -> Iterator[tuple[str, ...]]:
    for name in group:
        if not name.startswith("-"):
            command = group[name]
            yield from _paths(command, *above, name) if command.default_command is None else [(*above, name)]


def _section(path: tuple[str, ...]) -> str:
    page = _Page()
    app.help_formatter = page
    with redirect_stdout(io.StringIO()) as printed:
        code = run([*path, "--help"])
    # The page formats all but the example at the end.
    example = printed.getvalue().strip()
    if code or not example.startswith("Example: ") or "\n" in example:
        raise ValueError(f"fotahook {' '.join(path)} --help: code {code}, printed {example!r}")
    return f"## fotahook {' '.join(path)}\n\n{page.text}```sh\n{example.removeprefix('Example: ')}\n```\n\n"


class _Page:
    """Formats a command's help as Markdown instead of for a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """The usage line."""
        self.text += f"```text\n{_text(usage).removeprefix('Usage: ').strip()}\n```\n\n"

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        """The description."""
        self.text += "".join(f"{plain(paragraph)}\n\n" for paragraph in _text(description).strip().split("\n\n"))

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """A table of arguments or flags; a named group of flags gets its name above the table."""
        if not panel.entries:
            return
        rows = [
            (
                ", ".join(code(name) for name in entry.display_labels_with_metavar),
                plain(_text(entry.description)) + (" Required." if entry.required else ""),
                code(", ".join(entry.env_var or ())),
                code("" if entry.default in _NO_DEFAULT else entry.default or ""),
            )
            for entry in panel.entries
        ]
        columns = [0, 1, *(column for column in (2, 3) if any(row[column] for row in rows))]
        title = _text(panel.title).strip()
        kind = {"Arguments": "argument", "Commands": "command"}.get(title, "flag")
        if kind == "flag" and title not in ("Parameters", ""):
            self.text += f"**{title}**\n\n"
        header = (kind, "", "variable", "default")
        self.text += table([header[n] for n in columns], ([row[n] for n in columns] for row in rows))


def _text(renderable: object) -> str:
    if renderable is None:
        return ""
    # Wide enough that no line wraps.
    console = Console(file=io.StringIO(), width=10_000, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(renderable, end="")
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
