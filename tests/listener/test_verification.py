"""What may be asked of a sender: keys, addresses, a password; and that none of it is ever shown."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract import signing
from fotahook.contract.addresses import parse_networks, sender_address
from fotahook.contract.errors import WebhookRejected
from fotahook.contract.messages import CallbackMessage
from fotahook.listener import THINGSPACE_SOURCES
from fotahook.listener.intake import Verification

from .conftest import NOW, PROGRESS, SECRET, SEED, by_hmac, rich_text

PROXIES = parse_networks(("10.0.0.0/8", "fd00::/8"))
BY_SOURCE = Verification.parse(sources=["192.0.2.0/24", "2001:db8::/32"], trusted_proxies=["10.0.0.0/8"])
BY_PASSWORD = Verification.parse(basic=("user", "hunter2"))


# Signatures


def test_verification_parses_keys() -> None:
    written = Verification.parse(secrets=[signing.format_secret(SECRET)], public_keys=[signing.format_public_key(SEED)])
    assert written == Verification(secrets=(SECRET,), public_keys=written.public_keys)
    assert written.required
    assert not Verification().required
    written.check_signature(by_hmac(PROGRESS), PROGRESS, NOW)
    by_seed = signing.headers("m", int(NOW), [signing.signer(seeds=[SEED])("m", int(NOW), PROGRESS)])
    written.check_signature(by_seed, PROGRESS, NOW)
    with pytest.raises(WebhookRejected) as caught:
        written.check_signature({}, PROGRESS, NOW)
    assert caught.value.status == 401


def test_headers_without_a_signature_are_refused_before_the_body_is_read() -> None:
    signed = Verification(secrets=(SECRET,))
    signed.check_head(by_hmac(PROGRESS), None, NOW)
    with pytest.raises(WebhookRejected, match="webhook-signature is missing") as caught:
        signed.check_head({}, None, NOW)
    assert caught.value.status == 401


def test_an_account_in_front_makes_a_key_that_accounts_own() -> None:
    secret, public = signing.format_secret(SECRET), signing.format_public_key(SEED)
    parsed = Verification.parse(secrets=[secret, f"a=b={secret}", f"a=b={secret}"], public_keys=[f"ü={public}"])
    key = signing.parse_public_key(public)
    assert parsed.secrets == (SECRET,)
    assert parsed.account_keys == {"a=b": ((SECRET, SECRET), ()), "ü": ((), (key,))}
    assert Verification().updated(parsed) == parsed
    assert Verification(account_keys=parsed.account_keys).required
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match=r"^secrets: an account name"):
            Verification.parse(secrets=[f"{name}={secret}"])


@pytest.mark.parametrize("name", ["secrets", "public_keys", "sources", "trusted_proxies"])
def test_anything_but_a_list_of_strings_raises_type_error(name: str) -> None:
    for value in ("192.0.2.0/24", 5):
        with pytest.raises(TypeError, match=f"^{name} must be a list"):
            Verification.parse(**{name: value})  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match=r"^basic must be a list"):
        Verification.parse(basic="ab")
    with pytest.raises(TypeError, match=f"^{name} must have only strings, and one of them is int"):
        Verification.parse(**{name: [5]})  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secrets": ["whsec_AAAA"]}, "24 to 64 bytes"),
        ({"sources": ["here"]}, "not a network in CIDR notation: 'here'"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "10.0.0.1/8"),
        ({"basic": ("user", "")}, "neither of them empty"),
        ({"basic": ("user",)}, "a user name and a password"),
        ({"basic": ("user", 5)}, "a user name and a password"),
        ({"basic": [("user", "password"), ("user",)]}, "a user name and a password"),
    ],
)
def test_invalid_values_raise_value_error(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Verification.parse(**options)  # type: ignore[arg-type]  # what is refused


# Addresses


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # anybody can write the header
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),  # the rest may be invented
        ("10.0.0.1", "198.51.100.7, 10.9.9.9", "198.51.100.7"),  # two proxies
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", " 198.51.100.7:4711 ", "198.51.100.7"),
        ("fd00::1", "[2001:db8::7]:443", "2001:db8::7"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("10.0.0.1", "unknown", None),
        ("10.0.0.1", "198.51.100.7,", None),
        (None, "198.51.100.7", None),
        ("", "", None),
    ],
)
def test_the_sender_is_the_peer_or_whom_a_trusted_proxy_names(
    peer: str | None, forwarded: str, address: str | None
) -> None:
    assert sender_address(peer, forwarded, PROXIES) == (ip_address(address) if address else None)


def test_without_trusted_proxies_the_header_is_ignored() -> None:
    assert sender_address("10.0.0.1", "192.0.2.1", ()) == ip_address("10.0.0.1")


@given(st.text(max_size=30) | st.sampled_from(["[", "]", "[::1", ":", "::", ",", "1.2.3.4:", "fe80::1%eth0"]))
def test_any_header_is_an_address_or_none(text: str) -> None:
    for peer in ("10.0.0.1", text):
        assert isinstance(sender_address(peer, text, PROXIES), IPv4Address | IPv6Address | None)


@pytest.mark.parametrize(
    ("peer", "forwarded", "reason"),
    [
        ("198.51.100.7", "", "came from 198.51.100.7, which is in none"),
        ("198.51.100.7", "192.0.2.1", "came from 198.51.100.7"),
        ("10.0.0.1", "198.51.100.7", "came from 198.51.100.7"),
        ("10.0.0.1", "nonsense\n", "the address of the sender is unknown"),
        (None, "", "the address of the sender is unknown"),
    ],
)
def test_a_message_from_another_network_is_rejected(peer: str | None, forwarded: str, reason: str) -> None:
    with pytest.raises(WebhookRejected, match=reason) as caught:
        BY_SOURCE.check_head({"x-forwarded-for": forwarded}, peer, NOW)
    assert caught.value.status == 403
    assert str(caught.value).isprintable()
    Verification().check_head({"x-forwarded-for": forwarded}, peer, NOW)


@pytest.mark.parametrize(("peer", "forwarded"), [("192.0.2.1", ""), ("2001:db8::1", ""), ("10.0.0.1", "192.0.2.9")])
def test_a_message_from_a_source_passes(peer: str, forwarded: str) -> None:
    BY_SOURCE.check_head({"x-forwarded-for": forwarded}, peer, NOW)


def test_the_published_addresses_are_networks() -> None:
    assert len(Verification.parse(sources=THINGSPACE_SOURCES).sources) == 9
    Verification.parse(sources=THINGSPACE_SOURCES).check_head({}, "68.128.212.217", NOW)


# Passwords


@pytest.mark.parametrize(
    ("username", "password", "passes"),
    [
        ("user", "hunter2", True),
        ("user", "hunter", False),
        ("User", "hunter2", False),
        ("hunter2", "user", False),
        (None, "hunter2", False),
        ("user", None, False),
        ("user\ud800", "hunter2", False),
    ],
)
def test_the_password_in_the_message_must_be_the_one_registered(
    username: str | None, password: str | None, passes: bool
) -> None:
    message = CallbackMessage(username=username, password=password)
    Verification().check_password(message)
    if passes:
        BY_PASSWORD.check_password(message)
        return
    with pytest.raises(WebhookRejected) as caught:
        BY_PASSWORD.check_password(message)
    assert caught.value.status == 401
    assert "hunter2" not in str(caught.value)


def test_any_of_several_pairs_of_user_name_and_password_is_enough() -> None:
    rotating = Verification.parse(basic=[("user", "hunter2"), ["user", "next"]])
    rotating.check_password(CallbackMessage(username="user", password="next"))
    rotating.check_password(CallbackMessage(username="user", password="hunter2"))
    for user, password in (("user", "other"), ("next", "user"), (None, None)):
        with pytest.raises(WebhookRejected):
            rotating.check_password(CallbackMessage(username=user, password=password))


# All together


def test_an_update_replaces_the_parts_that_are_set() -> None:
    secrets = Verification.parse(secrets=[signing.format_secret(SECRET)])
    keys = Verification.parse(public_keys=[signing.format_public_key(SEED)])
    assert secrets.updated(Verification()) == secrets
    assert secrets.updated(keys) == keys  # keys of both kinds are one list
    both = secrets.updated(BY_SOURCE).updated(BY_PASSWORD)
    assert (both.secrets, both.sources, both.basic) == (secrets.secrets, BY_SOURCE.sources, BY_PASSWORD.basic)
    assert both.trusted_proxies == BY_SOURCE.trusted_proxies


def test_a_verification_shows_no_key() -> None:
    proof = Verification(secrets=(b"hunter2" * 4,), public_keys=(bytes(32),), basic=(("user", "hunter2"),))
    for shown in (repr(proof), str(proof), rich_text(proof)):
        assert "hunter2" not in shown
        assert "x00" not in shown
        assert "signed=True" in shown
