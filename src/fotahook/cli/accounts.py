"""`fotahook accounts`, `pause` and `resume`: the state of accounts, and whether they are delivered to."""

from cyclopts import App

from fotahook.contract.operator import AccountFilter, AccountState

from .shared.arguments import Account, Limit, warn_if_unknown
from .shared.output import Columns, limited, page_size, print_list
from .shared.remote import DEFAULTS, Remote

app = App(name="accounts", help="List accounts and show their state.")

COLUMNS: Columns[AccountState] = {
    "account": lambda it: it.account,
    "state": lambda it: it.lane.state if it.known or it.lane.state != "held" else "unknown",
    "reason": lambda it: it.lane.reason,
    "until": lambda it: it.lane.until,
    "pending": lambda it: it.backlog.pending,
    "dead": lambda it: it.backlog.dead,
    "oldest": lambda it: it.backlog.oldest_accepted_at,
    "in-flight limit": lambda it: it.limits.in_flight or "service default",
    "callback": lambda it: it.callback.url if it.callback else "(none)",
}


@app.command(name="list")
def list_(*, state: AccountFilter | None = None, limit: Limit = 50, remote: Remote = DEFAULTS) -> None:
    """List the accounts that have a callback, or ever had one or a message, by name.

    Example: fotahook accounts list --state trouble --local

    Args:
        state: Only accounts whose lane has this state; trouble: the endpoint fails or is gone, or messages wait for a
            callback.
    """
    with remote.operator() as client:
        found = client.accounts(state=state, limit=page_size(limit))
        print_list(COLUMNS, limited(found, limit), as_json=remote.as_json)


@app.command
def show(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Show an account: its callback, the state of its lane, and what is not delivered.

    Example: fotahook accounts show 0000123456-00001 --local
    """
    with remote.operator() as client:
        _print(client.account(account), remote)


def pause(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Stop delivery to an account until it is resumed. Messages are kept, and their time to live stands still.

    Example: fotahook pause 0000123456-00001 --local
    """
    with remote.operator() as client:
        _print(client.pause(account), remote)


def resume(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """End the pause of an account, or the wait for its failing endpoint: pending messages are sent.

    Example: fotahook resume 0000123456-00001 --local
    """
    with remote.operator() as client:
        _print(client.resume(account), remote)


def _print(account: AccountState, remote: Remote) -> None:
    print_list(COLUMNS, [account], as_json=remote.as_json)
    warn_if_unknown(account)
