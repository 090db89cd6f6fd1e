"""Stores the token in a file, so that the next process does not fetch one, and prints requests and responses.

Reads the same variables as sdk_callbacks.py. Usage: python sdk_tokens.py ACCOUNT TOKEN_FILE
"""

import json
import logging
import os
import sys
from pathlib import Path

from fotahook import ApiResponse, Client, OauthToken, Request, ThingspaceOauthCredentials


def show_request(request: Request) -> None:
    print(">", request.method, request.url)


def show_response(response: ApiResponse[None]) -> None:
    print("<", response.status_code, *response.errors)


def main(account: str, token_file: str) -> None:
    kept = Path(token_file)

    def keep(token: OauthToken) -> None:
        kept.touch(mode=0o600)
        kept.write_text(json.dumps(token.to_dict()))

    credentials = ThingspaceOauthCredentials(
        oauth_client_id=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_ID"],
        oauth_client_secret=os.environ["THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"],
        oauth_token=OauthToken(**json.loads(kept.read_text())) if kept.exists() else None,
        oauth_on_token_update=keep,
    )
    with Client.from_environment(
        thingspace_oauth_credentials=credentials, on_request=show_request, on_response=show_response
    ) as client:
        client.software_management_callbacks_v2.list_registered_callbacks(account)


if __name__ == "__main__":
    # One line per request, without secrets.
    logging.basicConfig()
    logging.getLogger("fotahook.client").setLevel(logging.DEBUG)
    main(*sys.argv[1:])
