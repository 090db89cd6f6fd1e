"""Standard Webhooks signatures, against the reference library (v1) and the ed25519 of cryptography (v1a)."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from fotahook.contract import signing
from fotahook.contract.signing import SignatureRefused

SECRET, OTHER_SECRET = bytes(range(24)), bytes(range(32, 64))
SEED, OTHER_SEED = bytes(32), bytes(range(32))
PUBLIC = signing.parse_public_key(signing.format_public_key(SEED))
OTHER_PUBLIC = signing.parse_public_key(signing.format_public_key(OTHER_SEED))
NOW = 1_800_000_000
BODY = b'{"accountName": "0000123456-00001",  "type":"upgradeProgress"}'


def signed(*signatures: str, message_id: str = "msg-1", timestamp: int = NOW) -> dict[str, str]:
    return signing.headers(message_id, timestamp, signatures)


def by_hmac(key: bytes = SECRET, *, timestamp: int = NOW, body: bytes = BODY) -> dict[str, str]:
    return signed(signing.signer(secrets=[key])("msg-1", timestamp, body), timestamp=timestamp)


def verify(headers: Mapping[str, str], body: bytes = BODY, **changes: object) -> None:
    facts: dict[str, object] = {"secrets": [SECRET], "public_keys": [PUBLIC], "now": NOW}
    signing.verify(headers, body, **facts | changes)  # type: ignore[arg-type]


# Other implementations


@given(st.binary(min_size=24, max_size=64), st.text(min_size=1))
def test_the_reference_library_accepts_what_we_sign(key: bytes, body: str) -> None:
    now = int(datetime.now(UTC).timestamp())
    headers = signed(signing.signer(secrets=[key])("msg-1", now, body.encode()), timestamp=now)
    standardwebhooks.Webhook(signing.format_secret(key)).verify(body, headers, json_parse=False)


@given(st.binary(min_size=24, max_size=64), st.text(min_size=1))
def test_we_accept_what_the_reference_library_signs(key: bytes, body: str) -> None:
    signature = standardwebhooks.Webhook(key).sign("msg-1", datetime.fromtimestamp(NOW, UTC), body)
    verify(signed(signature), body.encode(), secrets=[key])
    assert signature == signing.signer(secrets=[key])("msg-1", NOW, body.encode())


def test_the_reference_library_ignores_our_ed25519_signature() -> None:
    now = int(datetime.now(UTC).timestamp())
    both = (signing.signer(seeds=[SEED])("msg-1", now, BODY), signing.signer(secrets=[SECRET])("msg-1", now, BODY))
    webhook = standardwebhooks.Webhook(signing.format_secret(SECRET))
    assert webhook.verify(BODY, signed(*both, timestamp=now))["type"] == "upgradeProgress"


def test_an_ed25519_signature_is_over_id_timestamp_and_body() -> None:
    version, _, text = signing.signer(seeds=[SEED])("msg-1", NOW, BODY).partition(",")
    assert version == "v1a"
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(base64.b64decode(text), b"msg-1.1800000000." + BODY)


def test_we_accept_what_any_ed25519_signer_made() -> None:
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(b"msg-1.1800000000." + BODY)
    verify(signed("v1a," + base64.b64encode(signature).decode()))


def test_the_specifications_ed25519_example_is_made_and_accepted() -> None:
    # The specification shows only the signature; the tests of Svix's server have its input.
    seed = base64.b64decode("6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=")
    public = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
    shown = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    message_id, timestamp, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    assert signing.signer(seeds=[seed])(message_id, timestamp, body) == shown
    assert signing.format_public_key(seed) == public
    headers = signing.headers(message_id, timestamp, [shown])
    signing.verify(headers, body, public_keys=[signing.parse_public_key(public)], now=timestamp)
    with pytest.raises(SignatureRefused):
        signing.verify(headers, body + b" ", public_keys=[signing.parse_public_key(public)], now=timestamp)


# Keys as text


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_is_parsed_with_and_without_prefix_and_padding(key: bytes) -> None:
    text = signing.format_secret(key)
    bare = text.removeprefix("whsec_")
    assert {signing.parse_secret(spelling) for spelling in (text, bare, text.rstrip("="), f" {text}\n")} == {key}


def test_a_public_key_is_derived_from_the_seed() -> None:
    expected = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    assert expected == PUBLIC
    assert signing.format_public_key(SEED).startswith("whpk_")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "24 to 64 bytes"),
        ("whsec_", "24 to 64 bytes"),
        (signing.format_secret(bytes(23)), "24 to 64 bytes"),
        (signing.format_secret(bytes(65)), "24 to 64 bytes"),
        ("whsec_!!!!", "base64"),
        ("whsec_ä", "base64"),
        ("whsec_A", "base64"),
        (signing.format_public_key(SEED), "base64"),
    ],
)
def test_an_error_about_an_invalid_secret_does_not_quote_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        signing.parse_secret(text)
    assert len(text) < 7 or text.removeprefix("whsec_") not in str(caught.value)


@pytest.mark.parametrize("text", ["", "whpk_AAAA", signing.format_secret(bytes(33)), "whpk_?", "whpk_ä"])
def test_an_invalid_public_key_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes|base64"):  # noqa: RUF043
        signing.parse_public_key(text)


# Accepted


def test_either_kind_of_key_verifies() -> None:
    verify(by_hmac(), public_keys=[])
    verify(signed(signing.signer(seeds=[SEED])("msg-1", NOW, BODY)), secrets=[])


def test_any_of_several_keys_verifies() -> None:
    verify(by_hmac(OTHER_SECRET), secrets=[SECRET, OTHER_SECRET])
    verify(
        signed(*(signing.signer(secrets=[key])("msg-1", NOW, BODY) for key in (OTHER_SECRET, SECRET))),
        secrets=iter([SECRET]),
    )
    verify(
        signed(*(signing.signer(seeds=[seed])("msg-1", NOW, BODY) for seed in (OTHER_SEED, SEED))),
        public_keys=iter([OTHER_PUBLIC, PUBLIC]),
    )


def test_unknown_versions_and_garbage_before_a_valid_signature_are_ignored() -> None:
    good = signing.signer(secrets=[SECRET])("msg-1", NOW, BODY)
    verify(signed("v2,AAAA", "v1", "v1,", "v1,ä", "v1,*", "v1a,AAAA", ",", "", "v1,a,b", good))


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_a_clock_may_differ_by_the_tolerance(skew: int) -> None:
    verify(by_hmac(timestamp=NOW - skew))


def test_the_timestamp_is_verified_as_written() -> None:
    digits = f"00{NOW}"
    key = signing.signer(secrets=[SECRET])("msg-1.00", NOW, BODY).replace("msg-1.00", "")  # another text: refused below
    with pytest.raises(SignatureRefused, match="no signature matches"):
        verify({"webhook-id": "msg-1", "webhook-timestamp": digits, "webhook-signature": key})
    with pytest.raises(SignatureRefused, match="no signature matches"):
        verify(by_hmac() | {"webhook-timestamp": digits})


# Refused


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_all_three_headers_are_required(missing: str) -> None:
    headers = by_hmac()
    for incomplete in ({k: v for k, v in headers.items() if k != missing}, headers | {missing: ""}):
        with pytest.raises(SignatureRefused, match="is missing"):
            verify(incomplete)


@pytest.mark.parametrize(
    ("skew", "reason"),
    [
        (301, "the message is 301 s old, more than 300 s"),
        (-301, "the message is 301 s ahead of this clock, more than 300 s"),
    ],
)
def test_an_old_or_future_message_is_refused_with_the_skew(skew: int, reason: str) -> None:
    with pytest.raises(SignatureRefused, match=reason):
        verify(by_hmac(timestamp=NOW - skew))


def test_a_timestamp_is_checked_before_the_body_is_hashed() -> None:
    with pytest.raises(SignatureRefused, match="s old, more than 300 s"):
        verify(by_hmac(OTHER_SECRET, timestamp=5))


def test_many_ed25519_signatures_are_refused_even_if_one_is_right() -> None:
    good = signing.signer(seeds=[SEED])("msg-1", NOW, BODY)
    wrong = ["v1a," + base64.b64encode(bytes([n]) * 64).decode() for n in range(44)]
    verify(signed(*wrong[:3], good))
    with pytest.raises(SignatureRefused, match="has more than 4 signatures of version v1a"):
        verify(signed(*wrong[:4], good))
    with pytest.raises(SignatureRefused, match="has more than 4 signatures of version v1a"):
        signing.check_headers(signed(good, *wrong), now=NOW)


@pytest.mark.parametrize(
    "headers",
    [
        by_hmac(OTHER_SECRET),
        by_hmac(body=BODY + b" "),
        by_hmac() | {"webhook-id": "msg-2"},
        by_hmac() | {"webhook-timestamp": str(NOW + 1)},
        by_hmac() | {"webhook-signature": by_hmac()["webhook-signature"].replace("v1,", "v2,")},
        by_hmac() | {"webhook-signature": by_hmac()["webhook-signature"].replace("v1,", "v1a,")},
        signed(signing.signer(seeds=[OTHER_SEED])("msg-1", NOW, BODY)),
        signed(signing.signer(seeds=[SEED])("msg-1", NOW, BODY).replace("v1a,", "v1,")),
    ],
)
def test_a_signature_for_anything_else_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureRefused, match="no signature matches a known key; if the key is right"):
        verify(headers)


def test_without_keys_every_message_is_refused() -> None:
    with pytest.raises(SignatureRefused):
        verify(by_hmac(), secrets=[], public_keys=[])


def test_a_public_key_off_the_curve_verifies_nothing() -> None:
    with pytest.raises(SignatureRefused):
        verify(signed(signing.signer(seeds=[SEED])("msg-1", NOW, BODY)), public_keys=[b"\xff" * 32])


@pytest.mark.parametrize("timestamp", ["now", "-5", "1.8e9", "1800000000.5", "١٢٣", "²", "9" * 13, " 1800000000"])
def test_a_timestamp_must_be_a_plain_number_of_seconds(timestamp: str) -> None:
    with pytest.raises(SignatureRefused, match="not a number of seconds"):
        verify(by_hmac() | {"webhook-timestamp": timestamp})


def test_an_id_must_be_ascii() -> None:
    with pytest.raises(SignatureRefused, match="not ASCII"):
        verify(by_hmac() | {"webhook-id": "msg-ü"})


def test_only_the_first_signatures_are_checked() -> None:
    good = signing.signer(secrets=[SECRET])("msg-1", NOW, BODY)
    verify(signed(*["v1," + base64.b64encode(bytes(32)).decode()] * 20, good))
    with pytest.raises(SignatureRefused):
        verify(signed(*["v1," + base64.b64encode(bytes(32)).decode()] * 5000, good))


def test_a_refusal_quotes_nothing_of_the_request() -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify({"webhook-id": "id-e5f1", "webhook-timestamp": str(NOW), "webhook-signature": "v1,c2VjcmV0"})
    assert not any(text in str(caught.value) for text in ("id-e5f1", "c2VjcmV0", "accountName", str(NOW)))


anything = st.text(st.characters(exclude_categories=()))
signatures = st.lists(
    st.builds("{}{}{}".format, st.sampled_from(["v1", "v1a", "v2", ""]), st.sampled_from([",", ""]), anything)
).map(" ".join)


@given(anything, anything | st.integers().map(str), anything | signatures, st.binary())
@example("ü", str(NOW), "v1,AAAA", b"")
@example("id", "9" * 400, "v1,AAAA", b"")
@example("id", str(NOW), "v1", b"\xff")
@example("id", str(NOW), "v1a," + "A" * 86 + "==", b"\xff")
def test_any_unsigned_request_is_refused_with_a_text(message_id: str, timestamp: str, given: str, body: bytes) -> None:
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": given}
    with pytest.raises(SignatureRefused):
        verify(headers, body)


@given(st.binary(), st.binary(), st.integers(0, 2**33), st.integers(0, 200))
def test_one_changed_byte_is_enough_to_be_refused(body: bytes, more: bytes, timestamp: int, at: int) -> None:
    headers = signed(
        signing.signer(secrets=[SECRET])("msg-1", timestamp, body),
        signing.signer(seeds=[SEED])("msg-1", timestamp, body),
        timestamp=timestamp,
    )
    verify(headers, body, now=timestamp)
    changed = body[:at] + more + body[at:]
    if changed != body:
        with pytest.raises(SignatureRefused):
            verify(headers, changed, now=timestamp)
