"""Makes the four calls: list, register, update, list again, deregister.

Reads THINGSPACE_OAUTH_OAUTH_CLIENT_ID, THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET, VZ_M2M_USERNAME, VZ_M2M_PASSWORD, and
THINGSPACE_BASE_URL for a service other than ThingSpace's production. Usage: python sdk_callbacks.py ACCOUNT [URL]
"""

import sys

from fotahook import ApiException, Client, FotaV2CallbackRegistrationRequest

EXAMPLE = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
MOVED = "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx"


def main(account: str, url: str = EXAMPLE) -> None:
    with Client.from_environment() as client:
        callbacks = client.software_management_callbacks_v2

        found = callbacks.list_registered_callbacks(account).data
        print("registered:", found.url if found else "nothing")

        body = FotaV2CallbackRegistrationRequest(url)
        print("registered:", callbacks.register_callback(account, body).data.url)

        body = FotaV2CallbackRegistrationRequest(MOVED)
        print("updated:", callbacks.update_callback(account, body).data.url)

        found = callbacks.list_registered_callbacks(account).data
        print("registered:", found.url if found else "nothing")

        print("deregistered:", callbacks.deregister_callback(account).data.success)
        client.logout()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ApiException as error:
        sys.exit(f"{error.reason} {error}")
