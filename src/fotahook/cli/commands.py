"""The commands. Each lives in a module of its own that is imported when it is used."""

import inspect
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import Final, Literal

from cyclopts import App, Parameter

from fotahook.contract.version import VERSION
from fotahook.hosting import discard

from .shared.errors import describe

_ACCOUNT: Final = "0000123456-00001"
_WIDTHS: Final = range(20, 4097)
COMMANDS: Final = {
    "serve": ("serve:app", "Run the service: callbacks, messages, delivery.", None),
    "listen": ("listen:app", "Receive messages into a durable inbox.", None),
    "demo": ("simulate:demo", "Run the whole loop on this machine.", "--devices 20"),
    "callbacks": ("operate:callbacks", "List, register, update, deregister a callback.", None),
    "publish": ("publish:publish", "Publish one message, or many.", f"{_ACCOUNT} message.json --ordering-key d1"),
    "messages": ("operate:messages", "List messages; show one with its attempts.", None),
    "why": ("operate:why", "Explain the state of a message.", "019a0c1f-6b7e-7000-a3f3-0e6c1e6f0f42 --local"),
    "redeliver": ("operate:redeliver", "Deliver messages again.", f"--account {_ACCOUNT} --state dead --dry-run"),
    "accounts": ("operate:accounts", "List accounts and show their state.", None),
    "pause": ("operate:pause", "Stop delivery to an account.", f"{_ACCOUNT} --local"),
    "resume": ("operate:resume", "End a pause, or the wait for a failing endpoint.", f"{_ACCOUNT} --local"),
    "export": ("publish:export", "Write the messages of an account to a file.", f"{_ACCOUNT} messages.jsonl --local"),
    "import": ("publish:import_", "Publish the messages of an export.", "messages.jsonl --local"),
    "ledger": ("ledger:app", "Show who has reported in a campaign; fetch what never came.", None),
    "tail": ("operate:tail", "Follow events: messages, attempts, lanes, callbacks.", f"{_ACCOUNT} --local"),
    "simulate": ("simulate:simulate", "Send the messages of a campaign.", f"{_ACCOUNT} --to http://127.0.0.1:8081/"),
    "doctor": ("doctor:app", "Check a callback URL before registering it.", None),
    "mcp": ("mcp:mcp", "Serve the operator API to AI agents (MCP).", "--base-url https://fotahook.example.com"),
    "admin": ("admin:app", "Manage clients, users and the store of a service.", None),
    "completion": ("commands:completion", "Print a shell's completion script.", "bash > fotahook.bash"),
}
"""Module and name of each command, its line in `fotahook --help`, and what an example has behind its name."""


def _default(value: object) -> str | None:
    """How help shows a default; None for one that does nothing."""
    values = [one for one in (value if isinstance(value, tuple) else (value,)) if one is not None and one is not False]
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values) or None


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
for name, (place, line, example) in COMMANDS.items():
    more = {} if example is None else {"help_epilogue": f"Example: fotahook {name} {example}"}
    app.command(f"fotahook.cli.{place}", name=name, help=line, **more)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes fotahook's commands, flags and their values."""
    print(app.generate_completion(prog_name="fotahook", shell=shell), end="")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default that of the process; the exit code. Every error becomes one line on stderr."""
    for name in ("stdin", "stdout", "stderr"):
        # Else the next file opened would take the descriptor of a closed stream, the lowest that is free.
        setattr(sys, name, getattr(sys, name) or os.fdopen(os.open(os.devnull, os.O_RDWR), "r+", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the encoding lacks must not make a command fail after its work is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    if (width := shutil.get_terminal_size().columns) not in _WIDTHS or "COLUMNS" in os.environ:
        # With other widths, help never ends.
        os.environ["COLUMNS"] = str(min(max(width, _WIDTHS[0]), _WIDTHS[-1]))
    if arguments is None:
        arguments = sys.argv[1:]
        # SIGTERM and SIGHUP end a command as Ctrl-C does, so that it restores what it changed. Servers handle them in
        # their own way. Under nohup, SIGHUP is ignored, and stays so.
        for number in () if {"serve", "listen"}.intersection(arguments[:1]) else (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
    try:
        command = app
        for name in arguments:
            if name.startswith("-") or name not in command:
                break
            command = command[name]
        if command is not app and command.default_command is not None:
            # In place of its line in the list of commands: its docstring, each paragraph on one line for help to wrap.
            command.help = None
            text, rule, parameters = inspect.cleandoc(command.help).partition("\n\nArgs:\n")
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text) + rule + parameters
        result = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BaseException as error:
        from fotahook.contract.errors import one_line

        code, line = describe(error, next(iter(arguments), ""))
        for stream, text in ((sys.stdout, ""), (sys.stderr, f"fotahook: {one_line(line)}\n" if line else "")):
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                # Else Python would fail for it at exit.
                discard(stream)
        return code
    return result if isinstance(result, int) else 0
