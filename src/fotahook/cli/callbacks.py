"""`fotahook callbacks`: the four calls, by hand."""

import re
import sys
from typing import Final

from cyclopts import App

from fotahook.contract.exchange import ApiResponse
from fotahook.contract.models import FotaV2CallbackRegistrationRequest, FotaV2CallbackRegistrationResult

from .shared.remote import DEFAULTS, Remote
from .shared.tables import print_facts

_WARNING: Final = re.compile(r'299 [^ ]+ "([^"]*)"')

app = App(name="callbacks", help="List, register, update and deregister the callback of an account.")


@app.command(name="list")
def list_(account: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Show the callback URL of an account.

    Example: fotahook callbacks list 0000123456-00001 --dev
    """
    with remote.client() as client:
        summary = client.software_management_callbacks_v2.list_registered_callbacks(account).data
    _print(account, None if summary is None else summary.url, remote)


@app.command
def register(account: str, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Register the callback URL of an account, in place of any other.

    Example: fotahook callbacks register 0000123456-00001 https://fota.example.com/messages
    """
    with remote.client() as client:
        body = FotaV2CallbackRegistrationRequest(url)
        response = client.software_management_callbacks_v2.register_callback(account, body)
    _print_registered(account, response, remote)


@app.command
def update(account: str, url: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Change the callback URL of an account.

    Example: fotahook callbacks update 0000123456-00001 https://fota.example.com/messages
    """
    with remote.client() as client:
        body = FotaV2CallbackRegistrationRequest(url)
        response = client.software_management_callbacks_v2.update_callback(account, body)
    _print_registered(account, response, remote)


@app.command
def deregister(account: str, /, *, remote: Remote = DEFAULTS) -> None:
    """Forget the callback URL of an account; its messages wait until there is one again.

    Example: fotahook callbacks deregister 0000123456-00001
    """
    with remote.client() as client:
        result = client.software_management_callbacks_v2.deregister_callback(account).data
    print_facts({"account": account, "success": result.success}, as_json=remote.as_json)


def _print_registered(account: str, response: ApiResponse[FotaV2CallbackRegistrationResult], remote: Remote) -> None:
    _print(account, response.data.url, remote)
    for warning in _WARNING.findall(response.headers.get("Warning", "")):
        print(f"fotahook: {warning}", file=sys.stderr)


def _print(account: str, url: str | None, remote: Remote) -> None:
    print_facts({"account": account, "url": url}, as_json=remote.as_json)
