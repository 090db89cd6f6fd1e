"""`fotahook callbacks`: ThingSpace's four calls."""

import contextlib
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from cyclopts import App

from fotahook.contract.calls import DEREGISTERED
from fotahook.contract.errors import FotahookError
from fotahook.contract.exchange import ApiResponse
from fotahook.contract.models import FotaV2CallbackRegistrationRequest, FotaV2CallbackRegistrationResult
from fotahook.contract.urls import account_warning, port_warning

from .shared.arguments import Account, warn_if_unknown
from .shared.output import note, print_facts
from .shared.remote import DEFAULTS, Remote

_WARNING: Final = re.compile(r'299 [^ ]+ "([^"]*)"')

app = App(name="callbacks", help="List, register, update and deregister the callback of an account.")


@app.command(name="list")
def list_(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Show the callback URL of an account.

    Example: fotahook callbacks list 0000123456-00001 --local
    """
    with remote.client() as client:
        summary = client.software_management_callbacks_v2.list_registered_callbacks(account).data
    print_facts({"account": account, "url": None if summary is None else summary.url}, as_json=remote.as_json)
    if summary is None:
        # Only a service of fotahook can say it.
        with contextlib.suppress(FotahookError), remote.operator(max_retries=0) as operator:
            warn_if_unknown(operator.account(account))


@app.command
def register(account: Account, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Register the callback URL of an account; it replaces any other.

    Example: fotahook callbacks register 0000123456-00001 https://fota.example.com/messages
    """
    with remote.client() as client:
        _set_url(client.software_management_callbacks_v2.register_callback, account, url, remote)


@app.command
def update(account: Account, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Change the callback URL of an account.

    Example: fotahook callbacks update 0000123456-00001 https://fota.example.com/messages
    """
    with remote.client() as client:
        _set_url(client.software_management_callbacks_v2.update_callback, account, url, remote)


@app.command
def deregister(account: Account, /, *, remote: Remote = DEFAULTS) -> None:
    """Deregister the callback URL of an account. ThingSpace then drops its messages; to change the URL, use update.

    Example: fotahook callbacks deregister 0000123456-00001
    """
    with remote.client() as client:
        result = client.software_management_callbacks_v2.deregister_callback(account).data
    print_facts({"account": account, "success": result.success}, as_json=remote.as_json)
    note(DEREGISTERED)


def _set_url(
    call: Callable[[str, FotaV2CallbackRegistrationRequest], ApiResponse[FotaV2CallbackRegistrationResult]],
    account: str,
    url: str,
    remote: Remote,
) -> None:
    response = call(account, FotaV2CallbackRegistrationRequest(url))
    print_facts({"account": account, "url": response.data.url}, as_json=remote.as_json)
    # The account was checked on the command line, and ThingSpace's ports do not matter on this machine.
    expected = {account_warning(account), port_warning(url) if remote.local and _is_loopback(url) else None}
    for warning in _WARNING.findall(response.headers.get("Warning", "")):
        if warning not in expected:
            note(warning)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
