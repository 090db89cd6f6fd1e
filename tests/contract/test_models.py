"""Models and responses as JSON and back; compressed bodies."""

import gzip
import zlib

import pytest

from fotahook.contract.errors import MAX_BODY, ResponseError, decoded
from fotahook.contract.exchange import ApiResponse, Headers, Reply, Request, Secret
from fotahook.contract.models import CallbackSummary, FotaV2CallbackRegistrationRequest, V2TimeWindow

REQUEST = Request("GET", "https://x", Headers())
GZIP = Headers([("Content-Encoding", "gzip")])


def test_models_become_json_and_come_back() -> None:
    window = V2TimeWindow(1, 5)
    assert window.to_dict() == {"startTime": 1, "endTime": 5}
    assert window.to_json() == '{"startTime":1,"endTime":5}'
    assert V2TimeWindow.from_dict(window.to_dict()) == window
    for wrong in ({}, {"url": 5}):
        with pytest.raises(ValueError, match="url"):
            FotaV2CallbackRegistrationRequest.from_dict(wrong)


def test_a_response_becomes_json() -> None:
    response = ApiResponse(200, "OK", Headers([("X-A", "1")]), b"", REQUEST, CallbackSummary("https://x"))
    shown = {"status_code": 200, "reason_phrase": "OK", "headers": {"x-a": "1"}, "data": {"url": "https://x"}}
    assert response.to_dict() == shown
    assert '"data":{"url":"https://x"}' in response.to_json()


def test_compressed_bodies_are_as_they_were_before_unless_they_are_none() -> None:
    for compressed in (gzip.compress(b"{}"), zlib.compress(b"{}")):
        assert decoded(Reply(200, "OK", GZIP, compressed), REQUEST).body == b"{}"
        assert decoded(Reply(200, "OK", Headers(), compressed), REQUEST).body == compressed
    for other in (b"{}", b"", b"\x1f\x8bnothing", b"x"):
        assert decoded(Reply(200, "OK", GZIP, other), REQUEST).body == other
    with pytest.raises(ResponseError, match="more than") as caught:
        decoded(Reply(200, "OK", GZIP, gzip.compress(bytes(MAX_BODY + 1))), REQUEST)
    assert len(caught.value.raw_body) == MAX_BODY


def test_a_secret_is_a_value_that_shows_nothing() -> None:
    assert {Secret("a"), Secret("a")} == {Secret("a")}
    assert Secret("a") != "a"
    assert (str(Secret("a")), Secret("a").reveal()) == ("***", "a")
