"""Lists the callbacks of many accounts concurrently, with one AsyncClient. Needs the extra `async`.

Reads the same variables as sdk_callbacks.py. Usage: python sdk_async.py ACCOUNT...
"""

import asyncio
import sys

from fotahook import AsyncClient, FotahookError


async def listed(client: AsyncClient, account: str) -> str:
    try:
        response = await client.software_management_callbacks_v2.list_registered_callbacks(account)
    except FotahookError as error:
        return f"{account}: {error}"
    return f"{account}: {response.data.url if response.data else 'nothing registered'}"


async def main(accounts: list[str]) -> None:
    async with AsyncClient.from_environment(timeout=20) as client:
        # Their first calls share one token and one session.
        for line in await asyncio.gather(*(listed(client, account) for account in accounts)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
