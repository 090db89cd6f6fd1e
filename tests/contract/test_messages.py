"""Parsing callback messages: known fields are typed, everything else is kept."""

import gc
import io
import json
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from fotahook.contract.messages import (
    DEPTH_LIMIT,
    CallbackMessage,
    Device,
    Firmware,
    MessageInvalid,
    Upgrade,
    parse_claims,
    parse_json,
    parse_message,
)

# V1's published envelope; the values are made up.
FIRMWARE_AVAILABLE: dict[str, object] = {
    "accountName": "0000123456-00001",
    "participantName": "Participant",
    "type": "firmwareList",
    "username": "someone",
    "password": "hunter2",
    "firmwareList": [
        {
            "firmwareName": "FW-2",
            "participantName": "Participant",
            "launchDate": "2026-01-01",
            "releaseNote": "better",
            "model": "M1",
            "make": "Maker",
            "fromVersion": "1",
            "toVersion": "2",
        }
    ],
    "upgradeScheduled": {},
    "upgradeProgress": None,
}
# V2's shape is not published: this one is ours.
PROGRESS = {
    "accountName": "0000123456-00001",
    "firmwareList": [],
    "upgradeProgress": {
        "id": "campaign-1",
        "status": "InProgress",
        "deviceList": [
            {"deviceId": "990013907835573", "status": "UpgradeSuccess", "resultReason": "DownloadInstallSucceeded"},
            {"deviceId": "990013907884259", "status": "UpgradedFailed"},
        ],
    },
}


def message(content: object) -> CallbackMessage:
    return parse_message(json.dumps(content).encode())


# Known shapes


def test_the_published_envelope_has_typed_fields() -> None:
    parsed = message(FIRMWARE_AVAILABLE)
    (firmware,) = parsed.firmware_list
    assert (parsed.account_name, parsed.participant_name, parsed.type) == (
        "0000123456-00001",
        "Participant",
        "firmwareList",
    )
    assert (parsed.username, parsed.password) == ("someone", "hunter2")
    assert firmware == Firmware(
        firmware_name="FW-2",
        participant_name="Participant",
        launch_date="2026-01-01",
        release_note="better",
        model="M1",
        make="Maker",
        from_version="1",
        to_version="2",
    )
    assert (parsed.kind, parsed.campaign_id, parsed.devices, parsed.extra) == ("firmwareList", None, (), {})


def test_device_results_are_typed() -> None:
    parsed = message(PROGRESS)
    assert parsed.kind == "upgradeProgress"
    assert parsed.campaign_id == "campaign-1"
    assert parsed.devices == (
        Device(device_id="990013907835573", status="UpgradeSuccess", result_reason="DownloadInstallSucceeded"),
        Device(device_id="990013907884259", status="UpgradedFailed"),
    )
    assert parsed.statuses == {"InProgress", "UpgradeSuccess", "UpgradedFailed"}


def test_a_campaign_member_is_typed() -> None:
    parsed = message({"campaign": {"campaignId": "c", "status": "CampaignEnded"}})
    assert (parsed.kind, parsed.campaign_id) == ("campaign", "c")
    assert parsed.statuses == {"CampaignEnded"}
    assert parsed.campaign == Upgrade(campaign_id="c", status="CampaignEnded")


# Unknown shapes


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({}, None),
        ({"type": "newThing"}, "newThing"),
        ({"type": "newThing", "upgradeProgress": {"id": "1"}}, "newThing"),
        ({"type": "", "upgradeProgress": {"id": "1"}}, "upgradeProgress"),
        ({"type": 7, "upgradeProgress": {"id": "1"}}, "upgradeProgress"),
        ({"firmwareList": [], "upgradeScheduled": {"id": "1"}, "upgradeProgress": {}}, "upgradeScheduled"),
        ({"firmwareList": [{}], "upgradeScheduled": None}, "firmwareList"),
        ({"upgradeScheduled": {"id": "1"}, "upgradeProgress": {"id": "1"}}, None),
        ({"softwareList": [{"softwareName": "S"}]}, "softwareList"),
        ({"softwareList": []}, None),
        ({"upgradeProgress": ["unexpected"]}, "upgradeProgress"),
        ({"unknownMember": {"id": "1"}}, None),
    ],
)
def test_the_kind_is_the_type_or_the_one_member_that_is_not_empty(content: object, kind: str | None) -> None:
    assert message(content).kind == kind


@pytest.mark.parametrize(
    ("content", "campaign"),
    [
        ({}, None),
        ({"upgradeProgress": {"campaignId": "c", "id": "i", "upgradeId": "u"}}, "c"),
        ({"upgradeProgress": {"id": "i", "upgradeId": "u"}}, "i"),
        ({"upgradeScheduled": {"campaignId": "", "upgradeId": "u"}}, "u"),
        ({"upgradeProgress": {"status": "x"}, "upgradeScheduled": {"id": "i"}}, "i"),
        ({"upgradeProgress": {"status": "x"}, "id": "own"}, "own"),
        ({"campaignId": 7, "id": "", "upgradeId": "u"}, "u"),
        ({"campaign": "c", "upgradeId": "u"}, "u"),
    ],
)
def test_the_campaign_is_the_first_id_found(content: object, campaign: str | None) -> None:
    assert message(content).campaign_id == campaign


def test_unknown_names_are_kept_in_extra() -> None:
    parsed = message(
        {"new": [1, {"a": None}], "upgradeProgress": {"id": "1", "other": {"x": 1}, "deviceList": [{"imei": "9"}]}}
    )
    assert parsed.extra == {"new": [1, {"a": None}]}
    assert parsed.upgrade_progress is not None
    assert parsed.upgrade_progress.extra == {"other": {"x": 1}}
    assert parsed.devices[0].extra == {"imei": "9"}


@pytest.mark.parametrize(
    "odd",
    [
        {"accountName": 123456},
        {"type": ["upgradeProgress"]},
        {"password": 1234},
        {"firmwareList": {"firmwareName": "one"}},
        {"firmwareList": [{"firmwareName": "one"}, "two"]},
        {"upgradeProgress": "done"},
        {"upgradeProgress": [{"id": "1"}]},
        {"raw": "x", "extra": {"y": 1}},
    ],
)
def test_values_of_another_type_are_kept_in_extra(odd: dict[str, object]) -> None:
    assert message(odd).extra == odd


@pytest.mark.parametrize("nothing", [None, [], {}])
@pytest.mark.parametrize("name", ["accountName", "type", "firmwareList", "upgradeScheduled", "upgradeProgress"])
def test_null_and_empty_lists_and_objects_count_as_absent(name: str, nothing: object) -> None:
    assert message({name: nothing}) == CallbackMessage(raw=json.dumps({name: nothing}).encode())


@pytest.mark.parametrize("content", [None, True, 7, "text", [], [PROGRESS]])
def test_json_that_is_not_an_object_is_an_empty_message(content: object) -> None:
    parsed = message(content)
    assert (parsed.kind, parsed.campaign_id, parsed.devices, parsed.extra) == (None, None, (), {})
    assert parsed.content == content


def test_the_last_of_duplicate_names_counts() -> None:
    assert parse_message(b'{"type": "a", "type": "b"}').kind == "b"


# The bytes


def test_raw_has_the_exact_bytes() -> None:
    raw = b' { "type" : "x" , "n":1.50, "type":"upgradeProgress" }\r\n'
    assert parse_message(raw).raw == raw
    assert parse_message(raw).content == {"type": "upgradeProgress", "n": 1.5}


def test_a_byte_order_mark_is_ignored_in_a_message_but_not_in_json() -> None:
    raw = b'\xef\xbb\xbf{"type": "x"}'
    assert (parse_message(raw).kind, parse_message(raw).raw) == ("x", raw)
    with pytest.raises(MessageInvalid):
        parse_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"nul",
        b"NaN",
        b"[-Infinity]",
        b'{"a": Infinity}',
        b"'a'",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b'"\x01"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\x41"',
        b'"\\ud8"',
        b'["\\ud8", "]',
        b"9" * 5000 + b"x",
        b"[" + b"9" * 5000 + b", NaN]",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"\x0c{}",
        b"// x\n{}",
        "{}".encode("utf-16"),
        b"accountName=0000123456-00001",
    ],
)
def test_invalid_json_is_an_error(raw: bytes) -> None:
    with pytest.raises(MessageInvalid, match="the body is not JSON"):
        parse_message(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1e999", math.inf),
        (b"-1e999", -math.inf),
        (b"9" * 5000, math.inf),
        (b"9" * 100, int("9" * 100)),
        (b"1e999, 9", None),
        (b"-0", 0),
        (b"1" + b"0" * 400 + b".5", math.inf),
    ],
)
def test_numbers_of_any_size_are_accepted(raw: bytes, value: object) -> None:
    if value is None:
        with pytest.raises(MessageInvalid):
            parse_message(raw)
        return
    assert parse_json(raw) == value
    assert parse_message(b'{"type": "x", "later": [' + raw + b"]}").extra == {"later": [value]}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\udc00\ud800"', "\ufffd\ufffd"),
        (rb'"a\ud800b"', "a\ufffdb"),
        (rb'"\ud83d\ude00\ud83d"', "\U0001f600\ufffd"),
        (rb'"\\ud800\ud800"', "\\ud800\ufffd"),
        (rb'"\ufeff\ud800"', "\ufeff\ufffd"),
    ],
)
def test_an_unpaired_surrogate_becomes_the_replacement_character(raw: bytes, text: str) -> None:
    assert parse_json(raw) == text
    parsed = parse_message(b'{"type": ' + raw + b', "x": {' + raw + b": [" + raw + b", 1, null]}}")
    assert (parsed.type, parsed.extra) == (text, {"x": {text: [text, 1, None]}})


SPELLINGS = st.sampled_from(
    ["accountName", "ACCOUNTNAME", r"\u0061ccountName", r"accoun\u0074Name", "account", r"\ud800"]
)
CLAIMED = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(SPELLINGS, CLAIMED), max_size=4), st.booleans())
def test_every_account_that_a_reader_may_find_is_claimed(members: list[tuple[str, str]], nested: bool) -> None:
    """Whichever of two members of a name a reader takes, and whether it minds the case."""
    text = ", ".join(f'"{name}": "{value}"' for name, value in members)
    raw = (f'{{"x": {{{text}}}, "n": 1}}' if nested else f"{{{text}}}").encode()
    expected = {value for name, value in members if json.loads(f'"{name}"').lower() == "accountname"}
    message, claimed = parse_claims(raw)
    assert claimed == (set() if nested else expected)
    assert message == parse_message(raw)


@pytest.mark.parametrize("value", ["5", "null", '["a"]', "1" * 5000])
def test_an_account_name_that_is_no_text_claims_nothing(value: str) -> None:
    raw = f'{{"accountName": {value}, "accountName": {value}}}'.encode()
    assert parse_claims(raw) == (parse_message(raw), set())


@pytest.mark.parametrize("raw", [b"1", b'["accountName"]', b'\xef\xbb\xbf{"type": "x"}', b"{"])
def test_claims_are_those_of_one_json_object(raw: bytes) -> None:
    with pytest.raises(MessageInvalid):
        parse_claims(raw)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"1" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
@pytest.mark.parametrize("more", [b"1", b"1e999"])
def test_nesting_is_limited(opening: bytes, closing: bytes, more: bytes) -> None:
    depth = DEPTH_LIMIT // (opening.count(b"[") + opening.count(b"{"))
    assert parse_json(nested(depth, opening, closing).replace(b"1", more))
    with pytest.raises(MessageInvalid, match="nested more than 100 levels deep"):
        parse_json(nested(depth + 1, opening, closing).replace(b"1", more))


def test_extreme_nesting_is_an_error() -> None:
    for raw in (nested(100_000), b"[" * 100_000, b"[1e999," + nested(100_000) + b"]"):
        with pytest.raises(MessageInvalid, match="nested|not JSON"):  # noqa: RUF043
            parse_message(raw)


@pytest.mark.parametrize("name", ["extra", "raw", "firmwareList", "upgradeProgress", "x"])
@pytest.mark.parametrize("around", [b"%b", b'{"upgradeProgress": %b}', b'{"firmwareList": [%b]}'])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_limited_in_every_member(name: str, around: bytes, opening: bytes) -> None:
    deep = b'{"%b": {"a": %b}}' % (name.encode(), nested(5000, opening, b"]" if opening == b"[" else b"}"))
    with pytest.raises(MessageInvalid, match="nested more than 100 levels deep"):
        parse_message(around % deep)


@pytest.mark.parametrize("hiding", ["]" * 200, chr(92) + "]", chr(34) + "]", chr(92) + chr(34) + "]}"])
def test_brackets_in_texts_hide_no_depth(hiding: str) -> None:
    text = json.dumps(hiding)
    for more in (0, 1):
        levels = DEPTH_LIMIT - 1 + more
        raw = f"[{text}, {text}, ".encode() * levels + b"[]" + b"]" * levels
        if not more:
            assert parse_json(raw)
            continue
        with pytest.raises(MessageInvalid, match="nested more than 100 levels deep"):
            parse_json(raw)


@pytest.mark.parametrize("enabled", [True, False])
def test_many_lists_are_not_collected_while_they_are_made(enabled: bool) -> None:
    starts = list[str]()
    gc.callbacks.append(lambda phase, _: starts.append(phase) if phase == "start" else None)
    try:
        if not enabled:
            gc.disable()
        parse_json(b"[" + b"[]," * 100_000 + b"1]")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
        gc.callbacks.pop()
    # One afterwards, of each generation at most.
    assert len(starts) <= 3


@pytest.mark.parametrize("flat", [[[]] * 1000, ["[" * 200], [chr(92) + '"[{' * 100], {"{" * 101: []}])
def test_many_flat_arrays_and_brackets_in_texts_are_not_deep(flat: object) -> None:
    assert parse_json(json.dumps(flat).encode()) == flat


# repr


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: rich_text(value)])
def test_repr_shows_no_secret_and_no_body(show: Callable[[object], str]) -> None:
    parsed = message(FIRMWARE_AVAILABLE | {"password": "hunter2", "note": "hunter2"})
    assert "hunter2" not in show(parsed)
    assert "firmwareList" in show(parsed)


def rich_text(value: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(value)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_repr_truncates_long_texts() -> None:
    shown = repr(message({"type": "x" * 100_000, "accountName": "a\nb"}))
    assert len(shown) < 300
    assert r"account='a\nb'" in shown


# Any input

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = [
    *("accountName", "type", "firmwareList", "upgradeScheduled", "upgradeProgress", "campaign", "softwareList"),
    *("id", "campaignId", "upgradeId", "deviceList", "deviceId", "status", "raw", "extra"),
]
shaped = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@given(shaped | st.dictionaries(st.sampled_from(NAMES), shaped))
def test_any_json_is_a_message_with_all_its_content(content: object) -> None:
    raw = json.dumps(content).encode()
    parsed = parse_message(raw)
    assert (parsed.raw, parsed.content) == (raw, content)
    touch(parsed)


parts = st.fixed_dictionaries(
    {},
    optional={name: st.none() | st.text() | shaped for name in ("id", "status", "campaignId", "upgradeId", "x")}
    | {"deviceList": st.lists(st.dictionaries(st.sampled_from(["deviceId", "status", "x"]), st.none() | st.text()))},
)
messages = st.fixed_dictionaries(
    {},
    optional={name: st.none() | st.text() | shaped for name in ("accountName", "type", "password", "raw", "extra")}
    | {name: st.none() | parts for name in ("upgradeScheduled", "upgradeProgress", "campaign")}
    | {"firmwareList": st.lists(st.dictionaries(st.sampled_from(["model", "make", "x"]), st.none() | st.text()))},
)


@given(messages | shaped)
@example(FIRMWARE_AVAILABLE)
@example(PROGRESS)
def test_direct_decoding_gives_the_same_as_member_by_member(content: object) -> None:
    raw = json.dumps(content).encode()
    # With a byte order mark, the message is never decoded directly.
    assert msgspec.structs.replace(parse_message(b"\xef\xbb\xbf" + raw), raw=raw) == parse_message(raw)


@given(messages)
@example(FIRMWARE_AVAILABLE)
@example(PROGRESS | {"later": [1]})
def test_a_message_survives_msgspec_encoding_and_decoding(content: object) -> None:
    parsed = message(content)
    assert msgspec.json.decode(msgspec.json.encode(parsed), type=CallbackMessage) == parsed
    assert msgspec.convert(msgspec.to_builtins(parsed), CallbackMessage) == parsed


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.text('[]{}",:0123456789eE.-+\\u dDfalsetrun', max_size=60).map(str.encode)
)
@example(b'{"a":1e999,"b":"\\ud800"}')
@example(b"[" * 2000)
def test_any_bytes_give_a_message_or_message_invalid(raw: bytes) -> None:
    try:
        parsed = parse_message(raw)
    except MessageInvalid:
        return
    assert parsed.raw == raw
    touch(parsed)


@given(st.text('[]{}",:0129eE.-+\\u dDfalsetrun', max_size=40))
@example("1e999")
@example('"\\ud800"')
def test_json_is_accepted_like_in_the_standard_library(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(MessageInvalid):
            parse_json(text.encode())
        return
    found = parse_json(text.encode())
    assert found == expected or "\\u" in text


def refuse(name: str) -> object:
    raise ValueError(name)


def touch(parsed: CallbackMessage) -> None:
    """All properties work, and their texts can be stored as UTF-8."""
    texts = [parsed.kind, parsed.campaign_id, parsed.account_name, repr(parsed)]
    texts += [*parsed.statuses, *(device.device_id for device in parsed.devices)]
    assert all(text is None or isinstance(text.encode(), bytes) for text in texts)


# Results


@pytest.mark.parametrize(
    ("statuses", "succeeded", "failed"),
    [
        (["UpgradeSuccess"], True, False),
        (["Finished"], True, False),
        (["UpgradeFailed"], False, True),
        (["UpgradedFailed"], False, True),
        (["DeviceRejected"], False, True),
        (["CampaignCancelled"], False, True),
        (["CampaignAborted"], False, True),
        (["UpgradeSuccess", "UpgradedFailed"], False, True),
        (["UpgradeSuccess", "UpgradePending"], True, False),
        (["UpgradePending"], False, False),
        (["SomethingNew"], False, False),
        (["upgradesuccess"], False, False),
        ([None], False, False),
    ],
)
def test_results_are_known_in_every_spelling(statuses: list[str | None], succeeded: bool, failed: bool) -> None:
    devices = [{"deviceId": str(number), "status": status} for number, status in enumerate(statuses)]
    message = parse_message(json.dumps({"upgradeProgress": {"deviceList": devices}}).encode())
    assert (message.succeeded, message.failed) == (succeeded, failed)
    assert any(device.failed for device in message.devices) == failed
    assert any(device.succeeded for device in message.devices) == ("UpgradeSuccess" in statuses or succeeded)


def test_the_status_of_a_campaign_is_a_result_too() -> None:
    assert parse_message(b'{"campaign": {"id": "c", "status": "CampaignRequestFailed"}}').failed
    ended = parse_message(b'{"campaign": {"id": "c", "status": "CampaignEnded"}}')
    assert (ended.succeeded, ended.failed) == (False, False)


@pytest.mark.parametrize("name", ["extra", "raw", "source", "stale"])
def test_a_sender_cannot_set_the_fields_that_are_ours(name: str) -> None:
    plain = parse_message(b"{}")
    for spelled in (f"fotahook:{name}", name):
        message = parse_message(json.dumps({spelled: True}).encode())
        assert (message.source, message.stale, message.extra) == (plain.source, plain.stale, {spelled: True})
        device = json.dumps({"campaign": {"deviceList": [{spelled: True}]}}).encode()
        assert (parse_message(device).devices[0].stale, parse_message(device).devices[0].extra) == (
            False,
            {spelled: True},
        )
