"""Validation of account names and callback URLs."""

import contextlib
import re
from ipaddress import IPv6Address, ip_address
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from fotahook.contract.addresses import (
    ACCOUNT_LIMIT,
    EVERYWHERE,
    URL_LIMIT,
    account_refusal,
    account_warning,
    origin,
    parse_networks,
    port_warning,
    refusal,
    same_url,
    url_refusal,
    without_password,
)
from fotahook.contract.servers import checked_base_url, parse_proxy

# The mission document's own examples.
DOCUMENTED = [
    "http://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx",
    "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx",
    "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx",
]

LONG_NAME = ".".join(["a" * 63] * 3 + ["b" * 62])
"""One character longer than a host name may be."""


def strictly(url: object) -> str | None:
    return url_refusal(url, allow_http=False, allowed=())


def in_development(url: object) -> str | None:
    return url_refusal(url, allow_http=True, allowed=EVERYWHERE)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/",
        "HTTPS://Example.COM/Callbacks",
        "https://example.com:8443/a/b?c=d&e",
        "https://example.com:00443/",
        "https://example.com./",
        "https://a_b-c.example/%C3%A9?x=%2F",
        "https://bücher.example/",
        "https://BÜCHER.example/",
        "https://xn--bcher-kva.example/",
        "https://xn--fa-hia.example/",  # a ß by the rules of today, of which those of 2003 would make ss
        "https://localhost/",  # a name: judged when it is resolved
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:443/x",
        "https://[::ffff:8.8.8.8]/",
        "https://1.2.3.4.example/",
        "https://example.com/" + "a" * (URL_LIMIT - 20),
        f"https://{LONG_NAME[1:]}/",
    ],
)
def test_valid_urls_are_accepted(url: str) -> None:
    assert strictly(url) is None


@pytest.mark.parametrize("url", DOCUMENTED)
def test_the_documented_examples_register_in_development(url: str) -> None:
    assert in_development(url) is None


@pytest.mark.parametrize("url", DOCUMENTED)
def test_elsewhere_the_error_for_the_documented_examples_says_how_to_allow_them(url: str) -> None:
    assert ("--dev" if url.startswith("http:") else "--allow-network") in (strictly(url) or "")
    assert "--allow-network" in (url_refusal(url, allow_http=True, allowed=()) or "")


def test_an_allowed_network_allows_its_addresses() -> None:
    allowed = parse_networks(["10.0.0.0/8"])
    assert url_refusal(DOCUMENTED[1], allow_http=False, allowed=allowed) is None
    assert url_refusal(DOCUMENTED[2], allow_http=False, allowed=allowed) is not None


def test_the_error_of_a_development_service_names_both_schemes() -> None:
    why = url_refusal("ftp://example.com", allow_http=True, allowed=())
    assert why == "url must begin with https:// or http://"


BAD: dict[str, list[object]] = {
    # not a URL
    "url must be a string": [None, 7, True, ["https://example.com"], {"url": "https://example.com"}, b"https://a.b"],
    "url has more than 2048 characters": ["https://example.com/" + "a" * (URL_LIMIT - 19)],
    "url must begin with https://": [
        "",
        "example.com",
        "//example.com",
        "/callbacks",
        "ftp://example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https",
        "httpss://example.com",
        "ws://example.com",
        "http://example.com",
    ],
    "url has no host": ["https://", "https:///path", "https:example.com", "https:/example.com", "https://:443/"],
    "url must not carry credentials": ["https://user@example.com", "https://user:password@example.com", "https://@a.b"],
    "url must not have a fragment": ["https://example.com/#top", "https://example.com#", "https://example.com/?#"],
    "url has a character that must be percent-encoded": [
        "https://example.com/a b",
        " https://example.com",
        "https://example.com\n",
        "https://exa\tmple.com",
        "https://example.com/\r\nHost: evil",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://example.com\\@evil.example/",
        'https://example.com/"',
        "https://example.com/<b>",
        "https://example.com/{id}",
        "https://example.com/é",
        "https://example.com/?q=é",
        "https://example.com/\ud800",
        "https://example.com/\u2028",
        "https://example.com/%",
        "https://example.com/%4",
        "https://example.com/%zz",
    ],
    "url has an invalid host or port": [
        "https://example.com:http/",
        "https://example.com:-1/",
        "https://example.com:/",
        "https://example.com:443443/",
        "https://example.com:\uff14\uff14\uff13/",
        "https://a:1:2/",
        "https://[::1]x/",
        "https://x[::1]/",
        "https://[::1]:x/",
    ],
    "url has no usable port": ["https://example.com:0/", "https://example.com:65536/", "https://[::1]:99999/"],
    "url cannot be parsed": ["https://[::1/", "https://::1]/", "https://℀.example/"],
    "url has an invalid IPv6 address": ["https://[v1.x]/"],
    "url must not name a network interface": ["https://[fe80::1%25eth0]/", "https://[2606:4700::1%25eth0]/"],
    "url has an invalid host name": [
        f"https://{LONG_NAME}/",
        "https://exa%6dple.com/",
        "https://-example.com/",
        "https://example-.com/",
        "https://a..b/",
        "https://./",
        "https://.example.com/",
        "https://exam!ple.com/",
        "https://example,com/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
        "https://\u202eexample.com/",
    ],
    "url has a host name that is not in its plain form": [
        "https://exam\u00adple.com/",
        "https://exam\u200bple.com/",
        "https://stra\u00dfe.example/",
        "https://\uff45xample.com/",
        "https://example\u3002com/",
    ],
    "looks like a number": [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0X7F.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.0x1/",
        "https://127.0.0.01/",
        "https://1.2.3.4.5/",
        "https://256.256.256.256/",
        "https://127.0.0.1./",
        "https://0x/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://127。0。0。1/",
        "https://①②⑦.0.0.1/",
    ],
    "is not globally reachable": [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://192.168.0.1:8443/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
    ],
}


@pytest.mark.parametrize(("reason", "url"), [(reason, url) for reason, urls in BAD.items() for url in urls])
def test_invalid_urls_are_refused_with_the_reason(reason: str, url: object) -> None:
    refused = strictly(url)
    assert refused is not None
    assert reason in refused


@pytest.mark.parametrize("inside", ["", "::1::", "v1.x", "127.0.0.1", "example.com", "::1]["])
def test_brackets_need_an_ipv6_address(inside: str) -> None:
    # Depending on the Python release, urllib.parse or our rule refuses it.
    assert strictly(f"https://[{inside}]/") is not None


@pytest.mark.parametrize("url", [url for reason, urls in BAD.items() if "reachable" not in reason for url in urls])
def test_development_relaxes_only_scheme_and_network(url: object) -> None:
    assert (in_development(url) is None) == (isinstance(url, str) and url.startswith("http://"))


characters = st.characters(exclude_categories=()) | st.sampled_from("/:@[]#?%.0123456789abcdefx\\ ")


@given(st.text(characters, max_size=40).map(lambda text: f"https://{text}") | st.text(characters) | st.integers())
@example("https://[")
@example("https://a\ud800b/")
@example("https://⒛εo.example/")
def test_any_value_is_accepted_or_refused_with_a_text(url: object) -> None:
    reason = strictly(url)
    assert reason is None or (reason and reason.encode())


def test_an_accepted_host_is_the_same_for_the_sender() -> None:
    # Every letter but Chinese, Korean and most of the rare ones, which are many and all alike.
    numbers = chain(range(0x80, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x10000), range(0x10000, 0x110000, 499))
    hosts = [f"a{chr(number)}b.example" for number in numbers]
    taken = [host for host in hosts if strictly(f"https://{host}/") is None]
    assert len(taken) > 5_000
    assert [host for host in taken if URL(f"https://{host}/").raw_host != host.encode("idna").decode()] == []


@given(st.text(characters, max_size=40).map(lambda text: f"https://{text}"))
@example("https://\U000e0080")
def test_the_sender_connects_to_the_checked_host(url: str) -> None:
    if strictly(url) is not None:
        return
    parsed = URL(url)
    assert parsed.scheme == "https"
    assert parsed.host
    assert parsed.user is None
    try:
        address = ip_address(parsed.host)
    except ValueError:
        return
    assert not (isinstance(address, IPv6Address) and address.scope_id)
    assert refusal(address) is None


@pytest.mark.parametrize(
    "account", ["0000123456-00001", "MyAccount-1", "a b", "ü", "…", "a.b", "?", "x" * ACCOUNT_LIMIT]
)
def test_valid_account_names_are_accepted(account: str) -> None:
    assert account_refusal(account) is None


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ("", "missing"),
        (".", "change the path"),
        ("..", "change the path"),
        ("x" * (ACCOUNT_LIMIT + 1), "at most 64"),
        ("a/b", "slash"),
        ("/", "slash"),
        ("a\x00", "control"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("a\u2028", "control"),
        ("\ud800", "control"),
    ],
)
def test_invalid_account_names_are_refused_with_the_reason(account: str, reason: str) -> None:
    assert reason in (account_refusal(account) or "")


@given(st.text(st.characters(exclude_categories=())))
def test_an_accepted_account_can_be_encoded_in_a_path(account: str) -> None:
    if account_refusal(account) is None:
        assert account.encode()
        assert account.isprintable() or not set(account) & set(map(chr, range(32)))


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://a.example/", None),
        ("http://a.example/", None),
        ("https://10.120.102.183:50559/x.asmx", None),
        ("https://[2606:4700::1]:28220/", None),
        ("https://a.example:00443/", None),
        ("https://a.example:8443/", 8443),
        ("http://[2606:4700::1]:50560/", 50560),
    ],
)
def test_undocumented_ports_get_a_warning(url: str, port: int | None) -> None:
    assert url_refusal(url, allow_http=True, allowed=EVERYWHERE) is None
    warning = port_warning(url)
    assert (warning is None) == (port is None)
    assert port is None or f"port {port} is none of those" in (warning or "")


@pytest.mark.parametrize(
    ("account", "is_usual"),
    [("0000123456-00001", True), ("123456-00001", False), ("MyAccount-1", False), ("\u0660" * 10 + "-00001", False)],
)
def test_unusual_account_names_get_a_warning(account: str, is_usual: bool) -> None:
    assert (account_warning(account) is None) == is_usual


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db.example/fota", "postgresql://***@db.example/fota"),
        ("postgresql://db.example/fota?password=secret&x=1", "postgresql://db.example/fota?password=***&x=1"),
        ("postgresql://h/?x=1&SSLpassWord=a#b c&y=2", "postgresql://h/?x=1&SSLpassWord=***&y=2"),
        ("postgresql://h/?pass%77ord=secret", "postgresql://h/?pass%77ord=***"),
        ("https://h/hook?next=https://x?api_key=secret", "https://h/hook?next=https://x?api_key=***"),
        ("https://token@h/", "https://***@h/"),
        ("u:SEC@RET@h", "***@h"),
        ("u:SEC/RET@h:1", "***@h:1"),
        ("u:SEC?RET@h", "***@h"),
        ("http:u:secret@h", "***@h"),
        ("https://u%3Asecret@h/", "https://***@h/"),
        ("host=h password=secret user=me", "host=h password=*** user=me"),
        (r"password = 'a b\'c' user=me", "password = *** user=me"),
        (r"password=a\ b user=me", "password=*** user=me"),
        ("Server=h;Pwd=secret;x", "Server=h;Pwd=***"),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///fotahook.db",
        "sqlite:///C:/a@b.db",
        "postgresql://h1:5432,[::1]:5433/db?target_session_attrs=any",
        "postgresql://postgres@127.0.0.1:5432/db",
        "https://h/me@example.com?to=you@example.com&at=12:30",
    ],
)
def test_a_url_without_a_password_is_shown_whole(url: str) -> None:
    assert without_password(url) == url


MARK = "Xq7"
pieces = st.lists(st.sampled_from("@:/?#%&=;'\\\" +é\t0[]").map(lambda one: one + MARK), max_size=4)
passwords = pieces.map(lambda these: MARK + "".join(these))
words = st.sampled_from(["password", "passwd", "secret", "token", "key"])


@st.composite
def secret_names(draw: st.DrawFn) -> str:
    """A parameter's name with one of the words in it, in any spelling that `parse_qs` reads."""
    name = draw(st.sampled_from(["", "ssl", "api_", "x-"])) + draw(words) + draw(st.sampled_from(["", "s", "_id"]))
    spelt = [draw(st.sampled_from([one, one.upper(), f"%{ord(one):x}", f"%{ord(one):X}"])) for one in name]
    return "".join(spelt)


@given(st.sampled_from(["", "http://", "HTTPS://", "postgresql://", " http://", "h\nttp:"]), passwords)
def test_no_form_of_a_url_shows_the_password_of_a_user(scheme: str, password: str) -> None:
    for separator in (":", "%3a", "%3A"):
        assert MARK not in without_password(f"{scheme}user{separator}{password}@h.example:1/db")


@given(st.sampled_from(["", "http://", "HTTP://", "\x01http://", "ht\ttp://"]), passwords, st.sampled_from(["", ":1"]))
@example("", MARK + "%3A" + MARK, "")
def test_what_a_proxy_gets_as_credentials_is_never_shown(scheme: str, credentials: str, port: str) -> None:
    url = f"{scheme}{credentials}@h.example{port}"
    with contextlib.suppress(ValueError):
        assert parse_proxy(url).credentials is None or MARK not in without_password(url)


@given(secret_names(), passwords.map(lambda text: text.replace("&", "")), st.sampled_from(["?", "?x=1&", "/db?x=1&"]))
def test_no_query_shows_a_secret(name: str, value: str, before: str) -> None:
    shown = without_password(f"postgresql://h.example{before}{name}={value}&last=1")
    assert MARK not in shown
    assert shown.endswith("=***&last=1")


@given(words, st.sampled_from(["=", " = ", "= "]), passwords)
def test_no_form_of_libpq_shows_a_secret(name: str, equals: str, value: str) -> None:
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    for written in (f"'{escaped}'", re.sub(r"(\s)", r"\\\1", escaped)):
        if written.isascii():
            shown = without_password(f"host=h {name}{equals}{written} user=me")
            assert (MARK in shown, shown.endswith("*** user=me")) == (False, True), shown
        assert MARK not in without_password(f"{name}{equals}{written}")


@given(st.sampled_from(["key", "=", "?", "a ", "'", "\\", "@", ":", "%3a", "&token="]))
def test_masking_takes_linear_time(piece: str) -> None:
    # Quadratic time would take minutes.
    assert len(without_password(piece * 100_000)) <= 1_000_000


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com:8443/tok?key=tok", "https://example.com:8443"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://user:tok@example.com?tok", "https://example.com"),
        ("https://[tok", "a URL without a host"),
        ("tok", "a URL without a host"),
        ("", "a URL without a host"),
    ],
)
def test_an_origin_has_no_secrets(url: str, told: str) -> None:
    assert origin(url) == told


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://H.example:443", "https://h.example/", True),
        ("https://h.example/a?b", "https://h.example/a?b", True),
        ("https://[broken", "https://[broken", True),
        ("https://[broken", "https://[other", False),
        ("https://h.example/a", "https://h.example/b", False),
        ("https://h.example/", "http://h.example/", False),
        ("https://u:p@h.example/", "https://h.example/", False),
        ("https://h.example:99999/", "https://h.example/", False),
        (None, None, False),
        ("https://h.example/", None, False),
    ],
)
def test_a_url_is_the_same_in_any_spelling(one: str | None, other: str | None, same: bool) -> None:
    assert same_url(one, other) is same
    assert same_url(other, one) is same


def test_what_cannot_be_parsed_shows_no_password() -> None:
    for url in ("https://u:SEC\u2100RET@h.example/", "https://u:SEC/RET@h.example/"):
        assert not re.search("SEC|RET", strictly(url) or "")
        with pytest.raises(ValueError, match="base_url") as refused:
            checked_base_url(url)
        assert not re.search("SEC|RET", str(refused.value))
