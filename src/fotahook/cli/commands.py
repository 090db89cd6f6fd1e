"""The commands. Each lives in a module of its own that is imported when it is used."""

import inspect
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, Literal, TextIO

from cyclopts import App, Parameter

from fotahook.contract.version import VERSION
from fotahook.hosting import discard

from .shared.errors import describe

COMMANDS: Final = {
    "serve": ("serve:app", "Run the service: callbacks, messages, delivery."),
    "listen": ("listen:app", "Receive messages into a durable inbox."),
    "demo": ("simulate:demo", "Run the whole loop on this machine."),
    "callbacks": ("accounts:callbacks", "List, register, update, deregister a callback."),
    "publish": ("publish:publish", "Publish one message, or many."),
    "messages": ("messages:app", "List messages; show one with its attempts."),
    "why": ("messages:why", "Explain the state of a message."),
    "redeliver": ("messages:redeliver", "Deliver messages again."),
    "accounts": ("accounts:accounts", "List accounts and show their state."),
    "pause": ("accounts:pause", "Stop delivery to an account."),
    "resume": ("accounts:resume", "End a pause, or the wait for a failing endpoint."),
    "export": ("publish:export", "Write the messages of an account to a file."),
    "import": ("publish:import_", "Publish the messages of an export."),
    "ledger": ("ledger:app", "Show who has reported in a campaign; fetch what never came."),
    "tail": ("accounts:tail", "Follow events: messages, attempts, lanes, callbacks."),
    "simulate": ("simulate:simulate", "Send the messages of a campaign."),
    "doctor": ("doctor:app", "Check a callback URL before registering it."),
    "mcp": ("mcp:mcp", "Serve the operator API to AI agents (MCP)."),
    "admin": ("admin:app", "Manage clients, users and the store of a service."),
    "completion": ("commands:completion", "Print a shell's completion script."),
}
"""Module and name of each command, and its line in `fotahook --help`."""


def _default(value: object) -> str | None:
    """How help shows a default; None for one that does nothing."""
    match value:
        case None | False | ():
            return None
        case float():
            return f"{value:g}"
        case tuple():
            return " ".join(filter(None, map(_default, value)))
    return str(value)


app = App(
    name="fotahook",
    help="Software Management Callbacks V2: the service, the listener, and the tools around them.",
    version=VERSION,
    # Parsing Markdown makes help slow, and ours has none.
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=_default),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    verbose=False,
)
for name, (place, line) in COMMANDS.items():
    app.command(f"fotahook.cli.{place}", name=name, help=line)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes fotahook's commands, flags and their values.

    Example: fotahook completion bash > ~/.local/share/bash-completion/completions/fotahook
    """
    print(app.generate_completion(prog_name="fotahook", shell=shell), end="")


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that it restores what it changed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup, SIGHUP is ignored, and stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Every error becomes one line on stderr."""
    # Else the next file opened would take the descriptor of a closed stream, the lowest that is free.
    sys.stdin = sys.stdin or _null("r")
    sys.stdout = sys.stdout or _null("w")
    sys.stderr = sys.stderr or _null("w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the encoding lacks must not make a command fail after its work is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _use_docstring(arguments)
        result = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BaseException as error:
        code, line = describe(error, next(iter(arguments), ""))
        for stream, text in ((sys.stdout, ""), (sys.stderr, f"fotahook: {line}\n" if line else "")):
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                # Else Python would fail for it at exit.
                discard(stream)
        return code
    return result if isinstance(result, int) else 0


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")


def _use_docstring(names: Sequence[str]) -> None:
    """Let the command that is about to run show its docstring as help; the lines above are for the list of commands."""
    command = app
    for name in names:
        if name.startswith("-") or name not in command:
            break
        command = command[name]
    if command is not app and command.default_command is not None:
        command.help = _unwrap(command.default_command.__doc__ or command.help)


def _unwrap(docstring: str) -> str:
    """A docstring with each paragraph on one line, which help wraps to the terminal."""
    text, rule, parameters = inspect.cleandoc(docstring).partition("\n\nArgs:\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")) + rule + parameters
