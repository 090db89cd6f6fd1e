"""Derived keys: stable, separate by purpose, and never quoted in an error."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract import keys

KEY = bytes(range(32))
SEED = "d7af54e1a9bcc5d420d2aab246a1fc5d42a2f6a0454f6d0be4344f3d5e050507"
ACCOUNT_SEED = "c55326f996b0ac83cce079b95a77c46ba20981f68642b5916e97036c352662ce"
SIGNING_KEY = "ea4692da5c9201db114d236d8108583321928d17981676acd4317677e51c2727"
TOKEN = "q4e6u39P7XZaXEtc8JMYW7nVudMex2UbGNirCfKdrgM"


def test_generated_secret_keys_can_be_parsed_and_differ() -> None:
    one, other = keys.generate_secret_key(), keys.generate_secret_key()
    assert len(keys.parse_secret_key(one)) == keys.SECRET_KEY_BYTES
    assert one != other


def test_a_key_from_a_file_may_end_in_a_newline() -> None:
    text = base64.urlsafe_b64encode(KEY).decode()
    assert keys.parse_secret_key(f" {text}\n") == KEY


@given(st.binary(min_size=32, max_size=64))
def test_any_key_of_32_bytes_or_more_is_parsed(key: bytes) -> None:
    assert keys.parse_secret_key(base64.urlsafe_b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        base64.urlsafe_b64encode(bytes(31)).decode(),
        base64.urlsafe_b64encode(KEY).decode().rstrip("="),
        base64.urlsafe_b64encode(KEY).decode().replace("A", "!"),
        "ä" * 44,
        "correct horse battery staple, correct horse battery staple",
    ],
)
def test_an_error_about_a_mistyped_key_does_not_quote_it(text: str) -> None:
    with pytest.raises(ValueError, match="base64 of at least 32 bytes") as caught:
        keys.parse_secret_key(text)
    assert not text or text not in str(caught.value)


def test_derived_keys_are_stable_across_releases() -> None:
    """Receivers pin the public key, and tokens outlive an upgrade: other values would break them."""
    assert keys.signing_seed(KEY).hex() == SEED
    assert keys.account_signing_seed(KEY, "0000123456-00001").hex() == ACCOUNT_SEED
    assert keys.account_signing_key(KEY, "key-1").hex() == SIGNING_KEY
    assert keys.access_token(KEY, "client", 1_800_000_000.5) == TOKEN
    assert keys.fingerprint("secret").hex() == "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def test_each_purpose_and_owner_has_a_different_key() -> None:
    derived = [
        keys.signing_seed(KEY),
        keys.signing_seed(KEY[::-1]),
        keys.account_signing_seed(KEY, ""),
        keys.account_signing_seed(KEY, "a"),
        keys.account_signing_seed(KEY, "b"),
        keys.account_signing_seed(KEY[::-1], "a"),
        keys.account_signing_key(KEY, "a"),
        keys.account_signing_key(KEY, "b"),
        keys.account_signing_key(KEY, ""),
        keys.account_signing_key(KEY[::-1], "a"),
    ]
    tokens = [
        keys.access_token(KEY, "client", 1.0),
        keys.access_token(KEY, "client1", 0.0),
        keys.access_token(KEY, "client", 1.5),
        keys.access_token(KEY[::-1], "client", 1.0),
    ]
    assert len({*derived, *tokens}) == len(derived) + len(tokens)


def test_the_same_token_is_derived_every_time() -> None:
    assert keys.access_token(KEY, "client", 1) == keys.access_token(KEY, "client", 1.0)
    assert set(keys.access_token(KEY, "ü", 1.0)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_different_texts_have_different_fingerprints(one: str, other: str) -> None:
    assert (keys.fingerprint(one) == keys.fingerprint(other)) == (one == other)
