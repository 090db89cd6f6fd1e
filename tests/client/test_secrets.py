"""No structure and no traceback shows a secret, in any of the ways in which Python shows things."""

import copy
import inspect
import io
import json
import pickle
import pprint
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import msgspec
import pytest
import sentry_sdk
import structlog
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

import fotahook
from fotahook.contract.exchange import Headers, Reply, Secret
from fotahook.contract.servers import parse_proxy

from .conftest import ACCOUNT, BODY, OpenSdk, Peer, respond

# Put together, because some tracebacks show the source of the test as well.
MARK = "-".join(("q7", "z9", "k3"))
SECRETS = tuple(f"{MARK}-{part}" for part in ("client", "user", "token", "session", "proxy"))
OAUTH = fotahook.ThingspaceOauthCredentials("an-id", SECRETS[0])
USER = fotahook.SessionCredentials("a-user", SECRETS[1])

MADE: list[object] = [
    OAUTH,
    USER,
    fotahook.ThingspaceOauthCredentials("an-id", SECRETS[0], fotahook.OauthToken(SECRETS[2], refresh_token=MARK)),
    fotahook.VZM2mTokenCredentials(SECRETS[3]),
    fotahook.OauthToken(SECRETS[2]),
    Reply(200, "OK", Headers(), MARK.encode()),
    Secret(MARK),
    parse_proxy(f"http://user:{SECRETS[4]}@proxy.example:1"),
    fotahook.Client(
        thingspace_oauth_credentials=OAUTH, vz_m2m_token_credentials=USER, proxy=f"http://u:{MARK}@proxy.example"
    ),
]


def ways_to_show(value: object) -> Iterator[str]:
    yield repr(value)
    yield str(value)
    yield f"{value}"
    yield pprint.pformat(value)
    yield pretty_repr(value)
    yield pretty_repr({"inside": [value]})
    yield str(getattr(value, "__dict__", ""))
    for convert in (msgspec.to_builtins, msgspec.json.encode, json.dumps):
        try:
            yield str(convert(value))
        except (TypeError, ValueError):
            continue


@pytest.mark.parametrize("value", MADE, ids=lambda value: type(value).__name__)
def test_no_structure_shows_a_secret(value: object) -> None:
    for shown in ways_to_show(value):
        assert MARK not in shown


@pytest.mark.parametrize("value", MADE[:5], ids=lambda value: type(value).__name__)
def test_credentials_are_values(value: Any) -> None:
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
        assert hash(other) == hash(value)
    assert value != SECRETS[0]


def test_a_token_can_be_stored_and_restored() -> None:
    token = fotahook.OauthToken("token", expires_in=60, scope="a", expiry=5.0, refresh_token="r")
    assert fotahook.OauthToken(**token.to_dict()) == token  # type: ignore[arg-type]
    assert (token.access_token, token.refresh_token) == ("token", "r")


SECRET_WORDS = {"secret", "password", "access_token", "session_token", "secret_key", "new_password", "old_password"}


def structs() -> Iterator[type[msgspec.Struct]]:
    for found in walk_packages(fotahook.__path__, "fotahook."):
        if "postgres" in found.name or "__main__" in found.name:
            continue
        for value in vars(import_module(found.name)).values():
            if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == found.name:
                yield value


def test_every_struct_with_a_secret_hides_it() -> None:
    holders = [one for one in structs() if SECRET_WORDS & set(one.__struct_fields__)]
    assert holders
    for one in holders:
        assert one.__rich_repr__ is not msgspec.Struct.__rich_repr__, one
        assert one.__repr__ is not msgspec.Struct.__repr__, one
        assert not SECRET_WORDS & set(getattr(one, "shown", ())), one


Failing = Callable[[Peer], None]


def refuse(peer: Peer) -> None:
    peer.routes["callbacks/"] = lambda seen: respond(400, {"errorCode": seen.headers["authorization"]})


def cut_off(peer: Peer) -> None:
    peer.routes["callbacks/"] = lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", None]


def nonsense(peer: Peer) -> None:
    peer.routes["callbacks/"] = lambda seen: [seen.headers["authorization"].encode() + b"\r\n\r\n", None]


def wrong_body(peer: Peer) -> None:
    peer.routes["callbacks/"] = lambda _: respond(200, {"url": 5})


def refuse_login(peer: Peer) -> None:
    peer.routes["session/login"] = lambda seen: respond(400, seen.body)


def odd_token(peer: Peer) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(200, {"access_token": f"{MARK} with a space"})


def no_token(peer: Peer) -> None:
    peer.routes["oauth2/token"] = lambda seen: respond(401, seen.headers["authorization"].encode())


FAILURES = [refuse, cut_off, nonsense, wrong_body, refuse_login, odd_token, no_token]


def tokens(peer: Peer) -> None:
    peer.routes["oauth2/token"] = lambda _: respond(200, {"access_token": SECRETS[2], "expires_in": 3600})
    peer.routes["session/login"] = lambda _: respond(200, {"sessionToken": SECRETS[3]})


def shown_by_rich(error: BaseException) -> str:
    output = io.StringIO()
    console = Console(file=output, width=400)
    console.print(
        Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, locals_max_length=99)
    )
    return output.getvalue()


def shown_by_structlog(error: BaseException) -> str:
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True, locals_max_string=5000)
    return json.dumps(transform((type(error), error, error.__traceback__)))


def shown_by_sentry(error: BaseException) -> str:
    events: list[Any] = []
    with sentry_sdk.new_scope() as scope:
        client = sentry_sdk.Client(
            dsn="http://key@127.0.0.1:1/1",
            before_send=lambda event, _: events.append(event),
            default_integrations=False,
            max_value_length=100_000,
        )
        scope.set_client(client)
        scope.capture_exception(error)
        client.close(timeout=0)
    assert events
    return json.dumps(events)


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
async def test_no_traceback_shows_a_secret_in_a_local_variable(peer: Peer, open_sdk: OpenSdk, fail: Failing) -> None:
    tokens(peer)
    fail(peer)
    options = {"thingspace_oauth_credentials": OAUTH, "vz_m2m_token_credentials": USER, "max_retries": 0}
    async with open_sdk(**options) as sdk:
        with pytest.raises(fotahook.FotahookError) as caught:
            await sdk.call("register_callback", ACCOUNT, BODY)
    for shown in (shown_by_rich(caught.value), shown_by_structlog(caught.value), shown_by_sentry(caught.value)):
        # Not a vacuous test: the frames of the SDK are there.
        assert "_flow" in shown
        assert MARK not in shown


WAYS: dict[str, dict[str, str]] = {
    "directly": {"url": "http://127.0.0.1:1", "proxy": ""},
    "by a proxy": {"url": "http://far.invalid", "proxy": f"http://u:{MARK}@127.0.0.1:1"},
    "by a tunnel": {"url": "https://far.invalid", "proxy": f"http://u:{MARK}@127.0.0.1:1"},
}


async def test_a_refused_connection_shows_no_secret(open_sdk: OpenSdk) -> None:
    static = {
        "thingspace_oauth_credentials": fotahook.ThingspaceOauthCredentials(
            "an-id", SECRETS[0], fotahook.OauthToken(SECRETS[2])
        ),
        "vz_m2m_token_credentials": fotahook.VZM2mTokenCredentials(SECRETS[3]),
    }
    for where in WAYS:
        async with open_sdk(**WAYS[where], max_retries=0, **static) as sdk:
            with pytest.raises(fotahook.ConnectionFailed) as caught:
                await sdk.call("list_registered_callbacks", ACCOUNT)
        shown = shown_by_sentry(caught.value)
        assert "_flow" in shown
        assert MARK not in shown


async def test_a_deadline_that_passes_shows_no_secret(peer: Peer, open_sdk: OpenSdk) -> None:
    tokens(peer)
    peer.routes["callbacks/"] = lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
    options = {"thingspace_oauth_credentials": OAUTH, "vz_m2m_token_credentials": USER, "max_retries": 0}
    async with open_sdk(**options) as sdk:
        await sdk.do("login")
        with pytest.raises(fotahook.TimedOut) as caught:
            await sdk.call("register_callback", ACCOUNT, BODY, timeout=0.3)
    for shown in (shown_by_rich(caught.value), shown_by_structlog(caught.value), shown_by_sentry(caught.value)):
        assert MARK not in shown
