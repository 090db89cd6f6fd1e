"""A program written for the official SDK (`sdksio-verizon-apis-sdk` 2.0.0); ported.py is its port to fotahook.

Registers a callback URL, and keeps the OAuth token in a file. Usage: python official.py ACCOUNT URL TOKEN_FILE
"""

import json
import os
import sys
from pathlib import Path

from verizon.exceptions.api_exception import APIException
from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest
from verizon.models.log_in_request import LogInRequest
from verizon.models.oauth_token import OauthToken
from verizon.verizon_client import VerizonClient


def main(account: str, url: str, token_file: str) -> None:
    kept = Path(token_file)

    def provide(last_token, auth_manager):  # type: ignore[no-untyped-def]
        if last_token is None and kept.exists():
            return OauthToken.from_dictionary(json.loads(kept.read_text()))
        return auth_manager.fetch_token()

    def keep(token):  # type: ignore[no-untyped-def]
        kept.write_text(json.dumps({"access_token": token.access_token, "token_type": token.token_type}))

    oauth = ThingspaceOauthCredentials(
        oauth_client_id=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_ID"],
        oauth_client_secret=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"],
        oauth_token_provider=provide,
        oauth_on_token_update=keep,
    )
    client = VerizonClient.from_environment(thingspace_oauth_credentials=oauth)
    login = LogInRequest(os.environ["VZ_M2M_USERNAME"], os.environ["VZ_M2M_PASSWORD"])
    session = client.session_management.start_connectivity_management_session(login)
    token = VZM2mTokenCredentials(vz_m2m_token=session.body.session_token)
    client = VerizonClient(config=client.config.clone_with(vz_m2m_token_credentials=token))
    callbacks = client.software_management_callbacks_v2

    try:
        callbacks.register_callback(account, FotaV2CallbackRegistrationRequest(url="nonsense"))
    except FotaV2ResultException as error:
        print("refused:", error.response_code, error.error_code)

    body = FotaV2CallbackRegistrationRequest()
    body.url = url
    print("registered:", callbacks.register_callback(account, body).body.url)
    print("updated:", callbacks.update_callback(account, body).body.url)
    listed = callbacks.list_registered_callbacks(account)
    print("listed:", listed.status_code, listed.is_success(), json.loads(listed.text)["url"])
    print("deregistered:", callbacks.deregister_callback(account).body.success)

    try:
        wrong = LogInRequest(os.environ["VZ_M2M_USERNAME"], "wrong")
        client.session_management.start_connectivity_management_session(wrong)
    except APIException as error:
        print("login:", error.response_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
