"""The decision about a request: a message for the inbox, or a refusal with its status and reason."""

import asyncio
import gzip
import hashlib
import json
import pickle
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fotahook
from fotahook.contract import signing
from fotahook.contract.errors import WebhookRejected
from fotahook.contract.keys import account_signing_seed, signing_seed
from fotahook.contract.messages import parse_message
from fotahook.listener.intake import BODY_LIMIT, DEDUPE_WINDOW, Verification, noted, read_headers, receive, unwrap
from fotahook.store import SqliteStore
from fotahook.store.records import NewMessage, Note

from .conftest import NOW, PROGRESS, SECRET, by_hmac

UNPROVED = Verification()
BY_SECRET = Verification(secrets=(SECRET,))


def take(body: bytes = PROGRESS, headers: dict[str, str] | None = None) -> NewMessage:
    return receive(headers or {}, body, verification=UNPROVED, now=NOW)


def about(content: object, headers: dict[str, str] | None = None) -> NewMessage:
    return take(json.dumps(content).encode(), headers)


def refusal(headers: dict[str, str], body: bytes, proof: Verification = UNPROVED) -> tuple[int, str]:
    with pytest.raises(WebhookRejected) as caught:
        receive(headers, body, verification=proof, now=NOW)
    return caught.value.status, str(caught.value)


# What is kept


def test_the_bytes_are_kept_as_they_came() -> None:
    body = b' {"type":"x",  "n": 1.50 }\n'
    message = take(body)
    assert (message.body, message.type, message.consumers) == (body, "x", ("handlers",))


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b"7", b'"text"', b"\xef\xbb\xbf{}", b'{"x":1e999}', rb'"\ud800"']
)
def test_any_json_is_taken(body: bytes) -> None:
    assert take(body).body == body


def test_content_type_and_other_headers_do_not_matter() -> None:
    assert take(headers={"content-type": "text/plain", "x": "y"}) == take()


# Whose it is


@pytest.mark.parametrize(
    ("named", "header", "account"),
    [
        ("a-1", None, "a-1"),
        (None, "a-1", "a-1"),
        (None, "%C3%BC%20b", "ü b"),
        ("a-1", "a-1", "a-1"),
        (None, None, ""),
        ("..", "a-2", "a-2"),
        ("a\n", "b%0A", ""),
        ("x" * 65, None, ""),
        (7, None, ""),
        (None, "%FF%00", ""),
    ],
)
def test_the_account_is_the_bodys_or_else_the_headers(named: object, header: str | None, account: str) -> None:
    assert about({"accountName": named}, {} if header is None else {"fotahook-account": header}).account == account


@pytest.mark.parametrize("named", ["a-2", "a-1 ", "A-1"])
def test_an_account_name_that_is_not_the_headers_is_refused(named: str) -> None:
    with pytest.raises(WebhookRejected, match="is not the account of its header Fotahook-Account") as caught:
        about({"accountName": named}, {"fotahook-account": "a-1"})
    assert caught.value.status == 400


def test_a_key_of_one_account_is_good_for_no_other() -> None:
    """A tenant of the same service has a delivery of its own, signed by the service, and replays it elsewhere."""
    secret_key = bytes(range(32))
    seeds = {name: account_signing_seed(secret_key, name) for name in ("a-1", "a-2")}
    service = signing_seed(secret_key)
    keys = [f"{name}={signing.format_public_key(seed)}" for name, seed in seeds.items()]
    verification = Verification.parse(public_keys=[*keys, signing.format_public_key(service)])

    def received(account: str, body: bytes, *by: bytes) -> NewMessage:
        signatures = [signing.signer(seeds=[seed])("m", int(NOW), body) for seed in by]
        headers = {**signing.headers("m", int(NOW), signatures), "fotahook-account": account}
        return receive(headers, body, verification=verification, now=NOW)

    for body in (b"{}", b'{"accountName": "a-1"}'):
        assert received("a-1", body, seeds["a-1"], service).account == "a-1"
        # Renamed on its way, and signed by the service for another account.
        for account, *by in (("a-1", seeds["a-2"], service), ("a-2", seeds["a-1"], service)):
            with pytest.raises(WebhookRejected, match="no signature matches") as caught:
                received(account, body, *by)
            assert caught.value.status == 401
    with pytest.raises(WebhookRejected, match="is not the account"):
        received("a-2", b'{"accountName": "a-1"}', seeds["a-2"])
    # An account without a key of its own: the service's key proves the bytes, but not the header.
    assert received("a-3", b"{}", service).account == ""
    assert received("a-3", b'{"accountName": "a-3"}', service).account == "a-3"


def test_without_a_key_for_its_account_a_message_is_refused() -> None:
    verification = Verification.parse(secrets=[f"a-1={signing.format_secret(SECRET)}"])
    body = b"{}"
    signed = signing.headers("m", int(NOW), [signing.signer(secrets=[SECRET])("m", int(NOW), body)])
    assert receive({**signed, "fotahook-account": "a-1"}, body, verification=verification, now=NOW).account == "a-1"
    for headers, named in (({}, r"\(none named by Fotahook-Account\)"), ({"fotahook-account": "a-2"}, "a-2")):
        with pytest.raises(WebhookRejected, match=f"no key is known for account {named}"):
            receive({**signed, **headers}, body, verification=verification, now=NOW)


# Order


@pytest.mark.parametrize(
    ("progress", "key"),
    [
        ({"id": "c", "deviceList": [{"deviceId": "d"}]}, "d"),
        ({"id": "c", "deviceList": [{"deviceId": "d"}, {"deviceId": "d"}, {"status": "x"}]}, "d"),
        ({"id": "c", "deviceList": [{"deviceId": "d"}, {"deviceId": "e"}]}, "c"),
        ({"id": "c", "deviceList": [{"deviceId": ""}]}, "c"),
        ({"id": "c"}, "c"),
        ({"id": ""}, None),
        ({"deviceList": [{"deviceId": "d"}, {"deviceId": "e"}]}, None),
    ],
)
def test_order_is_kept_by_device_or_else_by_campaign(progress: object, key: str | None) -> None:
    assert about({"upgradeProgress": progress}).ordering_key == key


def test_long_names_are_kept_by_their_hash() -> None:
    message = about({"type": "t" * 257, "upgradeProgress": {"id": "c" * 257}})
    assert message.type is not None
    assert message.ordering_key is not None
    assert {len(message.type), len(message.ordering_key)} == {len("sha256:") + 64}
    assert message.type != message.ordering_key
    assert about({"type": "t" * 256}).type == "t" * 256


def test_a_name_with_a_nul_is_kept_by_its_hash() -> None:
    message = about({"type": "a\0b", "upgradeProgress": {"id": "\0"}}, {"webhook-id": "\0"})
    assert "\0" not in f"{message.type}{message.ordering_key}{message.idempotency_key}"


# Repetitions


def test_a_webhook_id_identifies_duplicates() -> None:
    first = take(headers={"webhook-id": "a"})
    assert first.idempotency_window is None
    assert take(b"{}", {"webhook-id": "a"}).idempotency_key == first.idempotency_key
    assert take(headers={"webhook-id": "b"}).idempotency_key != first.idempotency_key


def test_without_an_id_the_same_content_is_a_duplicate_within_the_window() -> None:
    assert take().idempotency_window == DEDUPE_WINDOW
    assert about({"a": 1, "b": [1.0]}).idempotency_key == take(b' {"b":[1.0],\n"a":1}').idempotency_key
    assert take(b"\xef\xbb\xbf[7]").idempotency_key == take(b"[7]").idempotency_key


CONTENT = {"accountName": "a-1", "requestId": "r-1", "upgradeProgress": {"id": "c-1", "username": "x"}}


def test_what_the_sender_changes_between_its_tries_makes_no_difference() -> None:
    tries = {"callbackCount": 1, "maxCallbackThreshold": 4, "username": "me", "password": "old"}
    again = {**tries, "callbackCount": 2, "password": "new"}
    key = about(CONTENT).idempotency_key
    assert about({**CONTENT, **tries}).idempotency_key == about({**again, **CONTENT}).idempotency_key == key


@pytest.mark.parametrize(
    "other",
    [
        {**CONTENT, "requestId": "r-2"},
        {**CONTENT, "upgradeProgress": {"id": "c-1"}},
        {**CONTENT, "count": 2},
        [CONTENT],
    ],
)
def test_any_other_difference_makes_another_message(other: object) -> None:
    assert about(other).idempotency_key != about(CONTENT).idempotency_key


def test_many_different_messages_have_as_many_keys() -> None:
    assert len({about({**CONTENT, "requestId": f"r-{number}"}).idempotency_key for number in range(2000)}) == 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)


def respelled(content: object) -> bytes:
    """The same content with other spaces, characters as they are, and members in another order."""

    def turned(value: object) -> object:
        if isinstance(value, dict):
            return {name: turned(member) for name, member in reversed(value.items())}
        return [turned(item) for item in value] if isinstance(value, list) else value

    return json.dumps(turned(content), indent=1, ensure_ascii=False).encode()


@given(JSON, JSON)
@example(1, 1.0)
@example(1, True)
@example({}, [])
@example({"a": 0.0}, {"a": -0.0})
def test_two_messages_are_one_if_their_content_is_the_same_and_only_then(one: object, other: object) -> None:
    assert about(one).idempotency_key == take(respelled(one)).idempotency_key
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (about(one).idempotency_key == about(other).idempotency_key) == same


@pytest.mark.parametrize("odd", [b'{"a":1e999}', rb'"\ud800"'])
def test_what_not_every_reader_takes_is_compared_by_its_bytes(odd: bytes) -> None:
    assert take(odd).idempotency_key == take(odd).idempotency_key
    assert take(odd).idempotency_key != take(odd + b" ").idempotency_key
    assert take(odd).idempotency_key not in {take(b'{"a":null}').idempotency_key, about("\ufffd").idempotency_key}


@pytest.mark.parametrize("body", [PROGRESS, b'{"unknown": [1, 2]}', rb'{"x": "\ud800"}', b"\xef\xbb\xbfnull"])
def test_a_body_is_decoded_as_a_value_once(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, decoded = msgspec.json.decode, list[bytes]()

    def counting(raw: bytes) -> object:
        decoded.append(raw)
        return decode(raw)

    monkeypatch.setattr(msgspec.json, "decode", counting)
    take(body)
    assert len(decoded) == 1


def test_a_window_of_0_accepts_every_duplicate_without_an_id() -> None:
    unnamed = receive({}, PROGRESS, verification=UNPROVED, now=NOW, dedupe_window=0)
    assert (unnamed.idempotency_key, unnamed.idempotency_window) == (None, None)
    named = receive({"webhook-id": "a"}, PROGRESS, verification=UNPROVED, now=NOW, dedupe_window=0)
    assert (named.idempotency_key, named.idempotency_window) == ("id:a", None)


@pytest.mark.parametrize("odd", ["x" * 257, "ü", "a b", "\x80"])
def test_an_unusual_webhook_id_is_valid(odd: str) -> None:
    assert take(headers={"webhook-id": odd}) == take(headers={"webhook-id": odd})
    assert take(headers={"webhook-id": odd}).idempotency_key != take().idempotency_key


@pytest.mark.parametrize("odd", [f"sha256:{hashlib.sha256(PROGRESS).hexdigest()}", "x" * 257])
def test_an_id_cannot_pass_for_the_hash_of_a_message(odd: str) -> None:
    # Which is what a store may keep in place of a key.
    assert (take(headers={"webhook-id": odd}).idempotency_key or "").startswith("id:")


# Verification


def test_a_signed_message_is_taken_and_an_unsigned_one_is_not() -> None:
    assert receive(by_hmac(PROGRESS), PROGRESS, verification=BY_SECRET, now=NOW).idempotency_key == "id:msg-1"
    assert refusal({}, PROGRESS, BY_SECRET)[0] == 401
    assert refusal(by_hmac(b"{}"), PROGRESS, BY_SECRET)[0] == 401
    assert refusal(by_hmac(PROGRESS, timestamp=int(NOW) - 301), PROGRESS, BY_SECRET)[0] == 401


def test_the_signature_is_checked_before_the_content() -> None:
    assert refusal({}, b"not JSON", BY_SECRET)[0] == 401
    assert refusal(by_hmac(b"not JSON"), b"not JSON", BY_SECRET)[0] == 400


# What is refused


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'"\xff"', b"a=b", b"[" * 200 + b"]" * 200])
def test_invalid_json_is_rejected(body: bytes) -> None:
    status, reason = refusal({}, body)
    assert (status, reason.startswith("the body is ")) == (400, True)


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_is_named_as_such(body: bytes) -> None:
    assert refusal({"content-encoding": "gzip"}, body) == (400, "the body is empty")


def test_an_encoded_body_is_rejected_with_its_encoding() -> None:
    packed = gzip.compress(PROGRESS)
    status, reason = refusal({"content-encoding": "gzip"}, packed)
    assert (status, reason) == (415, "Content-Encoding gzip is not supported; send the body without one")
    assert refusal({"content-encoding": "identity, br"}, packed)[0] == 415
    long = refusal({"content-encoding": "\x1b" + "x" * 200}, packed)[1]
    assert (len(long) < 120, long.isprintable()) == (True, True)
    for plain in ("", "identity", " Identity ,identity"):
        assert refusal({"content-encoding": plain}, packed)[0] == 400


@pytest.mark.parametrize("encoding", ["UTF-8", "gzip"])
def test_json_is_taken_whatever_encoding_is_named(encoding: str) -> None:
    assert take(headers={"content-encoding": encoding}) == take()


def test_content_encoding_may_be_repeated() -> None:
    assert read_headers([(b"Content-Encoding", b"gzip"), (b"content-encoding", b"br")]) == {
        "content-encoding": "gzip,br"
    }


def test_a_body_has_a_limit() -> None:
    fits = b'"' + b"x" * (BODY_LIMIT - 2) + b'"'
    assert take(fits).body == fits
    assert refusal({}, fits + b" ") == (413, "the body has more than 1048576 bytes")


@pytest.mark.parametrize("name", ["webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "fotahook-account"])
def test_a_repeated_header_is_rejected(name: str) -> None:
    raw = name.encode()
    assert read_headers([(raw, b"\xfc"), (b"x", b"1"), (b"x", b"2")]) == {name.lower(): "ü"}
    with pytest.raises(WebhookRejected, match="is repeated") as caught:
        read_headers([(raw, b"a"), (raw.lower(), b"a")])
    assert caught.value.status == 400


# What it reports


def reports(content: object) -> list[tuple[str, str, str, int]]:
    return [(one.campaign, one.device, one.status, one.rank) for one in about(content).reports]


def test_the_statuses_of_devices_and_campaign_are_reported() -> None:
    devices = [
        {"deviceId": "d-1", "status": "UpgradedFailed"},
        {"deviceId": "d-2", "status": "New"},
        {"deviceId": "d-3"},
        {"status": "x"},
        {"deviceId": "d-2", "status": "UpgradeSuccess"},
        {"deviceId": "d-2", "status": "Accepted"},
    ]
    found = reports({"upgradeProgress": {"id": "c", "status": "CampaignScheduled", "deviceList": devices}})
    assert sorted(found) == [
        ("c", "", "CampaignScheduled", 3),
        ("c", "d-1", "UpgradeFailed", 5),
        ("c", "d-2", "UpgradeSuccess", 6),
    ]
    assert reports({"id": "c", "campaign": {"status": "CampaignRequestQueued"}}) == [("c", "", "CampaignQueued", 2)]
    for nothing in (
        b"{}",
        b"[]",
        b'{"campaign":{"status":"x"}}',
        b'{"campaign":{"id":"c"}}',
        b'{"campaign":{"id":""}}',
    ):
        assert take(nothing).reports == ()
    long = reports({"campaign": {"id": "c" * 300, "deviceList": [{"deviceId": "\0", "status": "s" * 300}]}})
    assert all(len(name) < 100 and "\0" not in name for name in long[0][:3])


def test_a_note_tells_source_and_staleness() -> None:
    devices = [{"deviceId": "d-1", "status": "Accepted"}, {"deviceId": "d-2", "status": "Accepted"}, {"status": "x"}]
    content = {"upgradeProgress": {"id": "c", "deviceList": devices}, "campaign": {"id": "c", "status": "x"}}
    message = parse_message(json.dumps(content).encode())
    assert noted(message, None) is message
    partly = noted(message, Note(stale=("d-1",)))
    assert (partly.source, partly.stale, [device.stale for device in partly.devices]) == (
        "callback",
        False,
        [True, False, False],
    )
    wholly = noted(message, Note(by_report=True, stale=("d-1", "d-2", "")))
    assert (wholly.source, wholly.stale, wholly.raw) == ("report", True, message.raw)
    assert not noted(message, Note(by_report=True)).stale


# Without a listener


def test_unwrap_verifies_and_parses_as_the_listener_does() -> None:
    secrets = [signing.format_secret(SECRET)]
    signed = by_hmac(PROGRESS, timestamp=int(time.time()))
    headers = {name.title(): value for name, value in signed.items()}
    assert unwrap(PROGRESS, headers, secrets=secrets).campaign_id == "c-1"
    assert unwrap(PROGRESS, {}).source == "callback"
    for body, others, status in (
        (PROGRESS + b" ", {"secrets": secrets}, 401),
        (PROGRESS, {"basic": ("user", "hunter2")}, 401),
        (PROGRESS, {"sources": ["thingspace"], "peer": "192.0.2.1"}, 403),
        (PROGRESS, {"sources": ["thingspace"]}, 403),
        (b"", {}, 400),
        (b" " * (BODY_LIMIT + 1), {}, 413),
    ):
        with pytest.raises(fotahook.FotahookError) as caught:
            unwrap(body, headers, **others)
        assert isinstance(caught.value, fotahook.WebhookRejected)
        assert caught.value.status == status
        assert pickle.loads(pickle.dumps(caught.value)).status == status
    assert unwrap(PROGRESS, {}, sources=["thingspace"], peer="3.87.163.45").kind == "upgradeProgress"


# Anything

header_values = st.text(st.characters(max_codepoint=255)) | st.sampled_from(
    ["msg-1", "1800000000", "v1,AAAA", "%ff%0d", "a"]
)
headers_of_all_kinds = st.lists(
    st.tuples(
        st.sampled_from([b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"Fotahook-Account", b"x-other"]),
        header_values.map(lambda text: text.encode("latin-1")),
    ),
    unique_by=lambda pair: pair[0],
)
names = st.sampled_from(["accountName", "type", "upgradeProgress", "deviceList", "deviceId", "id", "status"])
texts = st.text(st.characters(exclude_categories=()), max_size=8) | st.just("\x00") | st.just("x" * 300)
json_bodies = st.recursive(
    st.none() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=15,
).map(lambda value: json.dumps(value).encode())


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbox")


@settings(max_examples=150, deadline=None)
@given(headers_of_all_kinds, json_bodies | st.binary())
@example([(b"webhook-id", b"\xff" * 300)], rb'{"accountName":"\ud800","type":"\udc00","id":"\u0000"}')
@example([(b"fotahook-account", b"%ED%A0%80")], b'{"later":1e999}')
def test_any_request_is_refused_with_4xx_or_the_inbox_takes_it(
    anywhere: Path, pairs: list[tuple[bytes, bytes]], body: bytes
) -> None:
    for proof in (UNPROVED, BY_SECRET):
        try:
            message = receive(read_headers(pairs), body, verification=proof, now=NOW)
        except WebhookRejected as error:
            refused = error.status, str(error).isprintable()
            assert refused in ((400, True), (401, True))
            continue
        assert asyncio.run(kept(anywhere / "inbox.db", message)) == body


async def kept(path: Path, message: NewMessage) -> bytes | None:
    store = await SqliteStore.open(path)
    try:
        (accepted,) = await store.accept([message])
        found = await store.message(accepted.id)
        assert found is not None
        return found.body if not accepted.conflict else message.body
    finally:
        await store.close()
