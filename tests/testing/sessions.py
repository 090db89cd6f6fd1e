"""Session tokens, and a client that cannot renew them."""

import urllib3

from fotahook import Client
from fotahook.contract.auth import ThingspaceOauthCredentials, VZM2mTokenCredentials
from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from fotahook.testing import Sandbox


def session_of(sandbox: Sandbox) -> str:
    """Log in and return the session token."""
    with urllib3.PoolManager() as http:
        basic = urllib3.make_headers(basic_auth=":".join(DEV_CLIENT))
        url = f"{sandbox.base_url}/api/ts/v1/oauth2/token"
        bearer = http.request("POST", url, body=b"grant_type=client_credentials", headers=basic)
        user = dict(zip(("username", "password"), DEV_USER, strict=True))
        headers = {"Authorization": f"Bearer {bearer.json()['access_token']}"}
        login = http.request("POST", f"{sandbox.base_url}/api/m2m/v1/session/login", json=user, headers=headers)
        return str(login.json()["sessionToken"])


def with_static_session(sandbox: Sandbox, session: str) -> Client:
    """A client that does not retry and does not log in."""
    return Client(
        base_url=sandbox.base_url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(*DEV_CLIENT),
        vz_m2m_token_credentials=VZM2mTokenCredentials(session),
        max_retries=0,
        proxy="",
    )
