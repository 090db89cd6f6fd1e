"""The challenge of a new URL: only a receiver that wants an account's messages answers it."""

import asyncio
import json

import pytest

from fotahook import Listener
from fotahook.contract import signing
from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.keys import account_signing_key, account_signing_seed
from fotahook.delivery.sender import SenderSettings, challenge_receiver
from fotahook.testing import listener_client

from .test_sender import OK, Behaviour, Request, answering, read_request, receiver, status

SECRET_KEY = bytes(range(32))
SENDER = SenderSettings(secret_key=SECRET_KEY, allowed_networks=EVERYWHERE)
ACCOUNT = "0000123456-00001"


def echo(requests: list[Request], *, wrong: bool = False) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        requests.append(request)
        value = "x" * 32 if wrong else json.loads(request.body)["challenge"]
        body = json.dumps({"challenge": value}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return behave


async def test_a_receiver_that_echoes_the_challenge_is_accepted_and_can_verify_it() -> None:
    requests: list[Request] = []
    async with receiver(echo(requests)) as port:
        assert await challenge_receiver(f"http://127.0.0.1:{port}/", ACCOUNT, ["key"], sender=SENDER) is None
        assert await challenge_receiver(f"http://127.0.0.1:{port}/", ACCOUNT, ["key"], sender=SENDER) is None
    first, second = requests
    content = json.loads(first.body)
    assert (content["type"], content["accountName"]) == ("fotahookChallenge", ACCOUNT)
    assert content["challenge"] != json.loads(second.body)["challenge"]
    now = float(first.headers["webhook-timestamp"])
    public = signing.parse_public_key(signing.format_public_key(account_signing_seed(SECRET_KEY, ACCOUNT)))
    signing.verify(first.headers, first.body, public_keys=[public], now=now)
    signing.verify(first.headers, first.body, secrets=[account_signing_key(SECRET_KEY, "key")], now=now)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answering(OK), "its answer does not contain the challenge"),
        (echo([], wrong=True), "its answer does not contain the challenge"),
        (answering(status("401 Unauthorized")), "it answered 401"),
        (answering(status("302 Found")), "it answered 302"),
    ],
)
async def test_any_other_answer_is_a_reason_not_to_register(behaviour: Behaviour, reason: str) -> None:
    async with receiver(behaviour) as port:
        assert await challenge_receiver(f"http://127.0.0.1:{port}/", ACCOUNT, sender=SENDER) == reason
    refused = await challenge_receiver(f"http://127.0.0.1:{port}/", ACCOUNT, sender=SENDER)
    assert refused == "the request failed: connection_refused"


async def test_a_listener_answers_the_challenges_of_its_account_alone() -> None:
    own = signing.format_public_key(account_signing_seed(SECRET_KEY, ACCOUNT))
    with listener_client(Listener(public_keys=[f"{ACCOUNT}={own}"]), serve=True) as client:
        assert await challenge_receiver(client.url, ACCOUNT, sender=SENDER) is None
        assert await challenge_receiver(client.url, "other", sender=SENDER) == "it answered 401"
        missing = [{"type": "fotahookChallenge"}, {"type": "fotahookChallenge", "challenge": "x" * 129}]
        assert [answer.status for answer in await asyncio.to_thread(client.post, *missing)] == [400, 400]
        # It is no message: no handler gets it.
        assert client.handled == []
