"""The program of official.py, ported to fotahook. Usage: python ported.py ACCOUNT URL TOKEN_FILE"""

import json
import os
import sys
from pathlib import Path

from fotahook import (
    Client,
    FotaV2CallbackRegistrationRequest,
    FotaV2ResultException,
    LoginRefused,
    OauthToken,
    SessionCredentials,
    ThingspaceOauthCredentials,
)


def main(account: str, url: str, token_file: str) -> None:
    kept = Path(token_file)

    def provide(last_token: OauthToken | None) -> OauthToken | None:
        if last_token is None and kept.exists():
            return OauthToken(**json.loads(kept.read_text()))
        return None  # Fetch it as usual.

    def keep(token: OauthToken) -> None:
        kept.write_text(json.dumps(token.to_dict()))

    oauth = ThingspaceOauthCredentials(
        oauth_client_id=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_ID"],
        oauth_client_secret=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"],
        oauth_token_provider=provide,
        oauth_on_token_update=keep,
    )
    # Logs in with VZ_M2M_USERNAME and VZ_M2M_PASSWORD when it first needs a session.
    client = Client.from_environment(thingspace_oauth_credentials=oauth)
    callbacks = client.software_management_callbacks_v2

    try:
        callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(url="nonsense"))
    except FotaV2ResultException as error:
        print("refused:", error.status_code, error.error_code)

    body = FotaV2CallbackRegistrationRequest(url)
    print("registered:", callbacks.register_callback(account, body).data.url)
    print("updated:", callbacks.update_callback(account, body).data.url)
    listed = callbacks.list_registered_callbacks(account)
    print("listed:", listed.status_code, listed.is_success, json.loads(listed.raw_body)["url"])
    print("deregistered:", callbacks.deregister_callback(account).data.success)

    wrong = SessionCredentials(os.environ["VZ_M2M_USERNAME"], "wrong")
    try:
        Client.from_environment(vz_m2m_token_credentials=wrong).login()
    except LoginRefused as refused:
        print("login:", refused.status_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
