"""ThingSpace's four calls."""

import msgspec
import pytest

from fotahook.contract.addresses import parse_networks
from fotahook.service import Settings, build_app

from .conftest import ACCOUNT, CALLBACK, SECRET_KEY, URL, Api


def registration(url: object) -> bytes:
    return msgspec.json.encode({"url": url})


async def test_nothing_registered_is_200_and_no_body(api: Api) -> None:
    answer = await api("GET", CALLBACK, headers=api.both)
    assert (answer.status, answer.body) == (200, b"")


async def test_what_is_registered_is_listed(api: Api) -> None:
    registered = await api("POST", CALLBACK, registration(URL), api.both)
    assert (registered.status, registered.json) == (200, {"url": URL})
    listed = await api("GET", CALLBACK, headers=api.both)
    assert (listed.status, listed.json) == (200, {"url": URL})


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_both_post_and_put_replace(api: Api, method: str) -> None:
    await api("POST", CALLBACK, registration(URL), api.both)
    answer = await api(method, CALLBACK, registration(URL + "/2"), api.both)
    assert answer.json == {"url": URL + "/2"}
    callback = await api.store.callback(ACCOUNT)
    assert callback is not None
    assert (callback.url, callback.revision) == (URL + "/2", 2)
