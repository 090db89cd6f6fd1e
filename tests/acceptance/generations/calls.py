"""The calls of one generation of the official SDK: `python -S calls.py GENERATION BASE_URL`, one line for each.

Runs with nothing but that generation's packages, since all of them are called `verizon`.
"""

import sys
from typing import Any

ACCOUNT = "0000123456-00001"
URL = "https://example.com/listener"


def said(call: Any, *arguments: Any) -> str:
    """What a call comes to, in one line."""
    try:
        found = call(*arguments)
    except Exception as error:
        status = getattr(error, "response_code", None) or getattr(error, "status_code", None)
        return f"{type(error).__name__} {status} {getattr(getattr(error, 'error', error), 'error_code', None)}"
    body = getattr(found, "body", found)
    return str(getattr(body, "url", None) or getattr(body, "success", None) or body)


def controllers(base_url: str) -> None:
    """The generations that end with `Controller` or `Api`: the same names below the client."""
    from verizon.configuration import Configuration, Environment, Server
    from verizon.http.auth import vz_m2m_token
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
    from verizon.models.log_in_request import LogInRequest
    from verizon.verizon_client import VerizonClient

    servers = Configuration.environments[Environment.PRODUCTION]
    servers[Server.SOFTWARE_MANAGEMENT_V2] = f"{base_url}/api/fota/v2"
    servers[Server.OAUTH_SERVER] = f"{base_url}/api/ts/v1"
    servers[Server.THINGSPACE] = f"{base_url}/api"
    servers[Server.M2M] = f"{base_url}/api/m2m"
    oauth = ThingspaceOauthCredentials(oauth_client_id="dev", oauth_client_secret="dev-secret")
    login = VerizonClient(thingspace_oauth_credentials=oauth).session_management
    session = login.start_connectivity_management_session(LogInRequest(username="dev", password="dev-password"))
    # The name differs in one letter.
    kind = getattr(vz_m2m_token, "VZM2mTokenCredentials", None) or vz_m2m_token.VzM2MTokenCredentials
    client = VerizonClient(
        thingspace_oauth_credentials=oauth,
        vz_m2m_token_credentials=kind(session.body.session_token),
    )
    callbacks, body = client.software_management_callbacks_v2, FotaV2CallbackRegistrationRequest(url=URL)
    print(said(callbacks.list_registered_callbacks, ACCOUNT))
    print(said(callbacks.register_callback, ACCOUNT, body))
    print(said(callbacks.update_callback, ACCOUNT, body))
    print(said(callbacks.list_registered_callbacks, ACCOUNT))
    print(said(callbacks.register_callback, ACCOUNT, FotaV2CallbackRegistrationRequest(url="nonsense")))
    print(said(callbacks.deregister_callback, ACCOUNT))


def newest(base_url: str) -> None:
    """The generation on pydantic and httpx2, whose register and update take no body."""
    from verizon.client import VerizonClient

    def at(path: str) -> dict[str, dict[str, str]]:
        return {"production": {"base_url": f"{base_url}/api{path}"}}

    servers = {
        "software_management_v2": at("/fota/v2"),
        "o_auth_server": at("/ts/v1"),
        "thingspace": at(""),
        "m2_m": at("/m2m"),
    }
    with VerizonClient(
        server_config=servers,
        thingspace_oauth={"client_id": "dev", "client_secret": "dev-secret"},
        vz_m2_m_token=sys.argv[3],
    ) as client:
        callbacks = client.software_management_callbacks_v2
        print(said(callbacks.list_registered_callbacks4, ACCOUNT))
        print(said(callbacks.register_callback4, ACCOUNT))
        print(said(callbacks.update_callback, ACCOUNT))
        print(said(callbacks.list_registered_callbacks4, sys.argv[4]))
        print(said(callbacks.deregister_callback4, ACCOUNT))


if __name__ == "__main__":
    if sys.argv[1] == "vz-apimatic-v-4-sdk":
        newest(sys.argv[2])
    else:
        controllers(sys.argv[2])
