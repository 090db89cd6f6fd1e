"""The commands. Each lives in a module of its own that is imported when it is used."""

import inspect
import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

from fotahook.contract.version import VERSION

from .shared import stdio
from .shared.configuration import SOURCES
from .shared.errors import Failure, told


def _default(value: object) -> str | None:
    """How help names a default; not at all where it is to do nothing."""
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
    # Markdown is what makes help slow to start, and ours has none.
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=_default),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    verbose=False,
)
app.command("fotahook.cli.serve:serve", help="Run the service: callbacks, messages, delivery.", config=SOURCES)
app.command("fotahook.cli.listen.command:listen", help="Receive messages into a durable inbox.", config=SOURCES)
app.command("fotahook.cli.demo.command:demo", help="Show the whole loop at work on this machine.")
app.command("fotahook.cli.callbacks:app", name="callbacks", help="List, register, update, deregister a callback.")
app.command("fotahook.cli.transfer.publish:publish", help="Hand a message over for delivery, or many.")
app.command("fotahook.cli.messages:app", name="messages", help="List messages, show what became of each.")
app.command("fotahook.cli.messages:why", help="Say why a message stands where it stands.")
app.command("fotahook.cli.redeliver:redeliver", help="Send messages once more.")
app.command("fotahook.cli.accounts:app", name="accounts", help="List accounts and show how they are.")
app.command("fotahook.cli.accounts:pause", help="Send nothing to an account until it is resumed.")
app.command("fotahook.cli.accounts:resume", help="End a pause, or a wait for an endpoint in trouble.")
app.command("fotahook.cli.transfer.export:export", help="Write the messages of an account to a file.")
app.command("fotahook.cli.transfer.import_:import_", name="import", help="Publish the messages of an export.")
app.command("fotahook.cli.tail:tail", help="Follow what happens: messages, attempts, lanes, callbacks.")
app.command("fotahook.cli.simulate.command:simulate", help="Send the messages of a campaign.")
app.command("fotahook.cli.doctor.command:doctor", help="Check a callback URL before it is registered.")
app.command("fotahook.cli.admin.credentials:app", name="admin", help="Clients, users and upkeep of a service.")
app.command("fotahook.cli.completion:completion", help="Print what a shell needs to complete commands and flags.")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Whatever goes wrong becomes one line on stderr."""
    stdio.open_missing()
    stdio.forgive(sys.stdout)
    try:
        _let_speak_for_itself(arguments)
        result = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BaseException as error:
        code, line = told(error)
        stdio.settle_output()
        details = error.details if isinstance(error, Failure) else ""
        stdio.complain(*filter(None, (details, line and f"fotahook: {line}")))
        return code
    return result if isinstance(result, int) else 0


def _let_speak_for_itself(names: Sequence[str]) -> None:
    """Give the command that is about to run the help of its own docstring; the lines above are for the list of all."""
    command = app
    for name in names:
        if name.startswith("-") or name not in command:
            break
        command = command[name]
    if command is not app and command.default_command is not None:
        command.help = _flowing(command.default_command.__doc__ or command.help)


def _flowing(docstring: str) -> str:
    """A docstring whose paragraphs are each one line, to be broken where the terminal ends."""
    told, rule, parameters = inspect.cleandoc(docstring).partition("\n\nParameters\n---")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in told.split("\n\n")) + rule + parameters
