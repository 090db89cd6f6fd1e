"""The exceptions of the SDK, and how they are made from responses."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract import errors
from fotahook.contract.errors import (
    ApiException,
    FotahookError,
    FotaV2ResultException,
    LoginRefused,
    ResponseError,
    ServerError,
    TimedOut,
    error_from_reply,
    excerpt,
    mask_reply,
    mask_text,
    one_line,
    parse_error_body,
)
from fotahook.contract.exchange import Headers, Reply, Request

REQUEST = Request("GET", "https://x/api/fota/v2/callbacks/a", Headers([("accept", "application/json")]))


def reply(status: int = 400, body: bytes = b"", reason: str = "Bad Request", **headers: str) -> Reply:
    return Reply(status, reason, Headers(headers.items()), body)


def refused(status: int = 400, body: bytes = b"", **headers: str) -> ApiException | ResponseError:
    error = error_from_reply(reply(status, body, **headers), REQUEST, FotaV2ResultException)
    assert error is not None
    return error


def kinds(kind: type[FotahookError]) -> list[type[FotahookError]]:
    # A rejected request has no call of ours.
    subclasses = [sub for sub in kind.__subclasses__() if sub is not errors.WebhookRejected]
    return [kind, *(further for sub in subclasses for further in kinds(sub))]


def test_the_docstring_draws_the_class_hierarchy() -> None:
    drawn = set((errors.__doc__ or "").replace("├", " ").replace("└", " ").replace("─", " ").split())
    inner = {errors.AnsweredError}
    # Other rooms have errors of their own.
    public = {kind for kind in set(kinds(FotahookError)) - inner if kind.__module__ == errors.__name__}
    assert {kind.__name__ for kind in public} <= drawn


@pytest.mark.parametrize("kind", kinds(FotahookError), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle_and_copy(kind: type[FotahookError]) -> None:
    error = kind("what went wrong", request=REQUEST)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == "what went wrong"
        assert vars(again).keys() == vars(error).keys()
        assert again.request == REQUEST


def test_an_error_without_a_response_has_empty_parts() -> None:
    error = LoginRefused("x")
    assert (error.status_code, dict(error.headers), error.raw_body, error.request) == (0, {}, b"", None)


def test_a_2xx_that_the_contract_lacks_says_nothing_of_the_outcome() -> None:
    for status in (202, 205, 206, 226, 299):
        error = error_from_reply(reply(status), REQUEST, ApiException)
        assert isinstance(error, ResponseError)
        assert "neither 200, 201 nor 204" in str(error)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errorCode": "A", "errorMessage": "b"}', ("A", "b")),
        (b'{"errorCode": "A"}', ("A", None)),
        (b'{"errorMessage": "b"}', (None, "b")),
        (b'{"errorCode": 7, "errorMessage": ["b"]}', ("7", None)),
        (b'{"errorCode": true, "errorMessage": {}}', (None, None)),
        (b'{"fault": {"code": 900901, "message": "m", "description": "d"}}', ("900901", "d")),
        (b'{"fault": {"code": "900901", "message": "m"}}', ("900901", "m")),
        (b'{"fault": "none"}', (None, None)),
        (b'{"error": "invalid_client", "error_description": "d"}', ("invalid_client", "d")),
        (
            (
                b'<am:fault xmlns:am="http://wso2.org/apimanager"><am:code> 404 </am:code><am:type>Status</am:type>'
                b"<am:message>Not here</am:message></am:fault>"
            ),
            ("404", "Not here"),
        ),
        (b"<fault><code></code></fault>", (None, None)),
        (b"<html><body>Bad gateway</body></html>", (None, None)),
        (b"[1, 2]", (None, None)),
        (b"", (None, None)),
        (b"\xff\xfe", (None, None)),
        (b"[" * 100_000, (None, None)),
        (b'{"errorCode": ""}', (None, None)),
    ],
)
def test_code_and_message_are_found_in_every_error_format(body: bytes, expected: tuple[str | None, str | None]) -> None:
    assert parse_error_body(body) == expected


def test_the_text_has_status_request_and_problem() -> None:
    about = "for GET https://x/api/fota/v2/callbacks/a"
    assert str(refused(400, b'{"errorCode": "A", "errorMessage": "b"}')) == f"400 {about}: A: b"
    assert str(refused(502, b"<html>\n<h1>Bad\tgateway</h1></html>")) == f"502 {about}: Bad gateway"
    assert str(refused(500, b"\xff\x00\x01")) == f"500 {about}: a body of 3 bytes that are not text"
    assert str(refused(500, b"")) == f"500 {about}: Bad Request"
    bare = error_from_reply(reply(500, b"", ""), REQUEST, ApiException)
    assert str(bare) == f"500 {about}: The service failed."


def test_a_redirect_error_names_the_target() -> None:
    error = refused(302, b"", location="https://elsewhere/\x00\n?x")
    assert isinstance(error, ResponseError)
    assert str(error).endswith("redirects are not followed; it points to https://elsewhere/ ?x")


def test_an_interim_status_is_a_response_error() -> None:
    assert str(refused(101)).endswith("not a response of this API")


@given(status=st.integers(100, 999), body=st.binary(), reason=st.text())
def test_any_response_gives_one_printable_line(status: int, body: bytes, reason: str) -> None:
    error = error_from_reply(reply(status, body, reason), REQUEST, FotaV2ResultException)
    if error is not None:
        line = str(error)
        assert line.isprintable()
        assert line == " ".join(line.split())
        assert len(line) <= 600


@given(text=st.text())
def test_a_line_is_printable_whatever_the_text(text: str) -> None:
    line = one_line(text, 20)
    assert line.isprintable()
    assert len(line) <= 20


def test_a_long_text_ends_with_an_ellipsis() -> None:
    assert one_line("ab " * 100, 10) == "ab ab ab …"
    assert len(excerpt(b"x" * 1000)) == 200


@given(secret=st.text(min_size=3, max_size=30).map("{}7".format), around=st.text(max_size=10))
def test_every_secret_is_masked(secret: str, around: str) -> None:
    held = (around + secret + around).encode(errors="surrogatepass")
    shown = mask_reply(reply(400, held, secret, echo=secret), [secret, "a", ""])
    assert secret.encode(errors="surrogatepass") not in shown.body or secret in "***"
    assert shown.headers["echo"] == "***"
    assert shown.reason == "***"


PROSE = "the client's id or secret is wrong"


VALUES = ['"{}"', "password={}", "token: {}", "password {}", "Bearer {}", "{}", "<p>{}</p>", "({})"]


@pytest.mark.parametrize("value", VALUES)
def test_a_secret_that_is_a_word_is_masked_only_where_it_stands_as_a_value(value: str) -> None:
    assert mask_text(PROSE, ["wrong"]) == PROSE
    assert mask_text(value.format("wrong"), ["wrong"]) == value.format("***")
    assert mask_text(value.format("wrongly"), ["wrong"]) == value.format("wrongly")
    shown = mask_reply(reply(400, f"{PROSE}, {value.format('wrong')}".encode()), ["wrong"]).body.decode()
    assert shown.startswith(f"{PROSE}, ")
    assert value == "{}" or shown.endswith(value.format("***"))


def test_secrets_beyond_ascii_are_masked_in_bodies_and_texts() -> None:
    assert mask_reply(reply(400, "päßword".encode()), ["päßword"]).body == b"***"
    assert mask_text('"päßword"', ["päßword"]) == '"***"'


def test_a_longer_secret_is_masked_before_a_part_of_it() -> None:
    assert mask_reply(reply(400, b"Bearer abcdef"), ["abcdef", "Bearer abcdef"]).body == b"***"


def test_a_status_above_599_is_a_server_error() -> None:
    assert type(refused(700)) is ServerError


def test_a_transport_error_has_no_response() -> None:
    assert not hasattr(TimedOut("x"), "status_code")


def test_headers_are_case_insensitive() -> None:
    headers = Headers([("X-One", "a"), ("x-one", "b"), ("Two", "c")])
    assert headers["x-ONE"] == "a, b"
    assert dict(headers) == {"x-one": "a, b", "two": "c"}
    assert len(headers) == 2
    assert headers.get("three") is None
    assert "Two" in headers
    assert repr(headers) == "Headers({'x-one': 'a, b', 'two': 'c'})"
    assert pickle.loads(pickle.dumps(headers)) == headers
