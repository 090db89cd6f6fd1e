"""Parsing the event stream."""

from datetime import UTC, datetime

import pytest

from fotahook.contract.events import (
    MAX_BLOCK,
    Event,
    EventReader,
    LaneChanged,
    MessageDead,
    cursor_block,
    event_block,
)

AT = datetime(2026, 11, 25, 20, 0, tzinfo=UTC)
DEAD = MessageDead(id="m", account="a", lane="a", at=AT, error_code="http_500")
PAUSED = LaneChanged(account="ü\n", lane="ü\n", at=AT, state="paused")
STREAM = b"retry: 1000\n" + cursor_block("c0") + event_block("c1", DEAD) + event_block("c2", PAUSED)
EVENTS = [Event("c1", "message.dead", DEAD), Event("c2", "lane.changed", PAUSED)]


def test_an_event_is_three_lines_and_a_blank_one() -> None:
    assert event_block("c1", DEAD) == (
        b"id: c1\nevent: message.dead\n"
        b'data: {"account":"a","at":"2026-11-25T20:00:00Z","id":"m","lane":"a","errorCode":"http_500"}\n\n'
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_parsed_alike_in_chunks_of_any_size(size: int) -> None:
    reader = EventReader()
    assert reader.cursor is None
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in reader.read(piece)] == EVENTS
    assert reader.cursor == "c2"


def test_an_incomplete_event_is_not_returned() -> None:
    reader = EventReader("c1")
    assert list(reader.read(event_block("c2", PAUSED)[:-1])) == []
    assert reader.cursor == "c1"


def test_unknown_events_and_fields_are_ignored() -> None:
    reader = EventReader()
    assert list(reader.read(b": hello\n\nid: c9\nevent: key.rotated\ndata: {}\n\nevent\nid: c10\n\n")) == []
    assert reader.cursor == "c10"
    (event,) = reader.read(event_block("c11", DEAD).replace(b'"id"', b'"later":[],"id"'))
    assert event == Event("c11", "message.dead", DEAD)


def test_an_event_without_a_cursor_is_ignored() -> None:
    assert list(EventReader().read(event_block("c1", DEAD).removeprefix(b"id: c1\n"))) == []


@pytest.mark.parametrize(
    "stream",
    [
        b"id: c\nevent: message.dead\n\n",
        b"id: c\nevent: message.dead\ndata: {}\n\n",
        b"id: c\nevent: message.dead\ndata: {\n\n",
        b"id: \xff\n\n",
        b"x" * (MAX_BLOCK + 1),
    ],
)
def test_invalid_events_are_errors(stream: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(EventReader().read(stream))
