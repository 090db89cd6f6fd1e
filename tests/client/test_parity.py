"""Both clients make the same of any answer, and take what the official SDK takes unless the table says why not."""

from collections.abc import Iterator
from typing import Any

import pytest

import fotahook

from .answers import ANSWERS
from .conftest import ACCOUNT, Peer, opened
from .test_official import official_client

TOKENS: dict[str, Any] = {
    "thingspace_oauth_credentials": fotahook.ThingspaceOauthCredentials("i", "s", fotahook.OauthToken("token")),
    "vz_m2m_token_credentials": fotahook.VZM2mTokenCredentials("session"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_gives_the_same_in_both_clients(peer: Peer, kind: str, name: str) -> None:
    answer = ANSWERS[name]
    peer.routes["callbacks/"] = lambda _: [answer.raw, None]
    async with opened(kind, peer.url, None, max_retries=0, **TOKENS) as sdk:
        try:
            response = await sdk.call("list_registered_callbacks", ACCOUNT)
            found = f"{response.status_code} {response.data.url if response.data else None}"
        except fotahook.ApiException as error:
            found = f"{type(error).__name__} {error.error_code}"
        except fotahook.FotahookError as error:
            found = type(error).__name__
    assert found == answer.result


@pytest.fixture(scope="module")
def peer_of_the_module() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_official_sdk_takes_is_taken_unless_the_table_says_why_not(
    peer_of_the_module: Peer, name: str
) -> None:
    answer = ANSWERS[name]
    peer_of_the_module.routes["callbacks/"] = lambda _: [answer.raw, None]
    with official_client(peer_of_the_module) as official:
        try:
            takes = official.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).is_success()
        except Exception:
            takes = False
    ours = answer.result[0] == "2"
    assert ours or not takes or answer.why
    # The reasons are for answers that the official SDK does take.
    assert takes or not answer.why


def test_the_table_is_long() -> None:
    assert len(ANSWERS) >= 60
