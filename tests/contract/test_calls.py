"""The API calls as values."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.contract import calls, models

BODY = models.FotaV2CallbackRegistrationRequest("https://x")


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_a_segment_can_be_decoded_and_stays_one_segment(text: str) -> None:
    made = calls.segment("account", text)
    assert unquote(made) == text
    assert made.isascii()
    assert not set(made) & set("/?#\\ \r\n")


@pytest.mark.parametrize("value", [123, True, None, b"a", ["a"]])
def test_a_segment_must_be_a_str(value: object) -> None:
    with pytest.raises(TypeError, match="account must be a str"):
        calls.segment("account", value)  # type: ignore[arg-type]


@given(st.text())
def test_any_url_survives_encoding_and_decoding(url: str) -> None:
    sent = calls.encode_registration(models.FotaV2CallbackRegistrationRequest(url))
    assert calls.read_json(models.FotaV2CallbackRegistrationResult)(sent).url == url


@given(st.binary())
def test_reading_any_body_gives_the_model_or_a_value_error(body: bytes) -> None:
    for read in (calls.read_summary, calls.read_json(models.FotaV2SuccessResult)):
        try:
            found: object = read(body)
        except ValueError:
            continue
        assert isinstance(found, models.CallbackSummary | models.FotaV2SuccessResult | None)


def test_an_empty_body_is_none() -> None:
    assert calls.read_summary(b" \r\n") is None
    calls.read_nothing(b"whatever")


def test_the_models_follow_the_documentation() -> None:
    assert models.CallbackSummary().url is None
    assert models.FotaV2CallbackRegistrationResult().url is None
    assert models.FotaV2SuccessResult(success=True).success
    with pytest.raises(AttributeError):
        BODY.url = "https://y"  # type: ignore[misc]
