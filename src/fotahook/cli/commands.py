"""The commands. Each lives in a module of its own that is imported when it is used."""

import io
import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

from fotahook.contract.version import VERSION

from .configuration import SOURCES
from .failures import Failure, told

app = App(
    name="fotahook",
    help="Software Management Callbacks V2: the service, the listener, and the tools around them.",
    version=VERSION,
    # Markdown is what makes help slow to start, and ours has none.
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    verbose=False,
)
app.command("fotahook.cli.serve:serve", help="Run the service: callbacks, messages, delivery.", config=SOURCES)
app.command("fotahook.cli.listen:listen", help="Receive messages into a durable inbox.", config=SOURCES)
app.command("fotahook.cli.demo:demo", help="Show the whole loop at work on this machine.")
app.command("fotahook.cli.callbacks:app", name="callbacks", help="List, register, update, deregister a callback.")
app.command("fotahook.cli.publish:publish", help="Hand a message over for delivery, or many.")
app.command("fotahook.cli.messages:app", name="messages", help="List messages, show what became of each.")
app.command("fotahook.cli.messages:why", help="Say why a message stands where it stands.")
app.command("fotahook.cli.redeliver:redeliver", help="Send messages once more.")
app.command("fotahook.cli.accounts:app", name="accounts", help="List accounts and show how they are.")
app.command("fotahook.cli.accounts:pause", help="Send nothing to an account until it is resumed.")
app.command("fotahook.cli.accounts:resume", help="End a pause, or a wait for an endpoint in trouble.")
app.command("fotahook.cli.export:export", help="Write the messages of an account to a file.")
app.command("fotahook.cli.import_:import_", name="import", help="Publish the messages of an export.")
app.command("fotahook.cli.simulate:simulate", help="Send the messages of a campaign.")
app.command("fotahook.cli.doctor:doctor", help="Check a callback URL before it is registered.")
app.command("fotahook.cli.admin:app", name="admin", help="Clients, users and upkeep of a service.")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Whatever goes wrong becomes one line on stderr."""
    _forgive(sys.stdout)
    try:
        _let_speak_for_itself(*arguments[:1])
        result = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BaseException as error:
        code, line = told(error)
        if isinstance(error, Failure) and error.details:
            print(error.details, file=sys.stderr)
        if line:
            print(f"fotahook: {line}", file=sys.stderr)
        return code
    return result if isinstance(result, int) else 0


def _let_speak_for_itself(name: str = "") -> None:
    """Give the command that is about to run the help of its own docstring; the lines above are for the list of all."""
    command = app[name] if name and not name.startswith("-") and name in app else None
    if command is not None and command.default_command is not None:
        command.help = command.default_command.__doc__ or ""


def _forgive(stream: object) -> None:
    """Print what the terminal's encoding lacks as an escape, rather than fail after the work was done."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
