"""`fotahook accounts`, `pause` and `resume`: how accounts are, and whether anything is sent to them."""

from collections.abc import Sequence
from typing import Literal

from cyclopts import App

from fotahook.contract.operator import AccountState

from .shared.paging import Pages
from .shared.remote import DEFAULTS, Remote
from .shared.tables import print_listing, print_structs
from .shared.times import shown_moment

app = App(name="accounts", help="List accounts and show how they are.")

State = Literal["trouble", "open", "waiting", "held", "paused"]

COLUMNS = ("account", "state", "reason", "until", "pending", "dead", "oldest", "callback")


@app.command(name="list")
def list_(*, state: State | None = None, limit: int = 50, remote: Remote = DEFAULTS) -> None:
    """List the accounts that have a callback, or ever had one or a message, by name.

    Example: fotahook accounts list --state trouble --dev

    Parameters
    ----------
    state
        Only accounts whose lane is so; trouble: the endpoint fails or is gone, or messages wait for a callback.
    limit
        At most so many; 0 for all of them.
    """
    with remote.operator() as client:

        def ask(cursor: str | None, count: int) -> tuple[Sequence[AccountState], str | None]:
            page = client.accounts(state=state, cursor=cursor, limit=count)
            return page.accounts, page.cursor

        print_listing(COLUMNS, Pages(ask, limit), _row, as_json=remote.as_json)


@app.command
def show(account: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Show an account: its callback, the state of its lane, and what is not delivered.

    Example: fotahook accounts show 0000123456-00001 --dev

    Parameters
    ----------
    account
        Which account.
    """
    with remote.operator() as client:
        _print(client.account(account), remote)


def pause(account: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Send nothing to an account until it is resumed. Everything is kept, and its time to live stands still.

    Example: fotahook pause 0000123456-00001 --dev

    Parameters
    ----------
    account
        Which account.
    """
    with remote.operator() as client:
        _print(client.pause(account), remote)


def resume(account: str, /, *, remote: Remote = DEFAULTS) -> None:
    """End a pause of an account, or its wait for an endpoint in trouble: what waits is sent.

    Example: fotahook resume 0000123456-00001 --dev

    Parameters
    ----------
    account
        Which account.
    """
    with remote.operator() as client:
        _print(client.resume(account), remote)


def _print(account: AccountState, remote: Remote) -> None:
    print_structs(COLUMNS, [account], _row, as_json=remote.as_json)


def _row(account: AccountState) -> Sequence[str]:
    return (
        account.account,
        account.lane.state,
        account.lane.reason or "",
        shown_moment(account.lane.until),
        str(account.backlog.pending),
        str(account.backlog.dead),
        shown_moment(account.backlog.oldest_accepted_at),
        "(none)" if account.callback is None else account.callback.url,
    )
