"""Cursors tell nothing about what happens to others."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fotahook.service.errors import ApiError
from fotahook.service.event_feed import Cursors
from fotahook.store.events import EventCursor

from .conftest import ACCOUNT, MESSAGES, Api, client_of
from .serving import SECRET_KEY

CURSORS = Cursors(SECRET_KEY)
NUMBERS = st.integers(0, 10**18 - 1)


@given(NUMBERS)
def test_a_sealed_position_is_read_again(number: int) -> None:
    assert CURSORS.open_number(CURSORS.seal(number)) == number


@given(st.builds(EventCursor, NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_a_sealed_cursor_of_events_is_read_again(cursor: EventCursor) -> None:
    assert CURSORS.open_events(CURSORS.seal_events(cursor)) == cursor


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=64))
def test_a_sealed_name_is_read_again(name: str) -> None:
    assert CURSORS.open(CURSORS.seal(name)) == name


def test_a_cursor_is_never_taken_for_a_flag() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._]+", CURSORS.seal(number)) for number in range(2_000))


def test_cursors_do_not_show_their_positions() -> None:
    few, many = EventCursor(), EventCursor(10**6, 10**6, 10**6, 10**6)
    sealed = [CURSORS.seal_events(cursor) for cursor in (few, few, many)]
    # One event has one cursor wherever it is read.
    assert sealed[0] == sealed[1] != sealed[2]
    assert len({len(text) for text in sealed}) == 1
    assert all(b"1000000" not in base64.b64decode(text + "==", altchars=b"._") for text in sealed)
    assert len(CURSORS.seal(1)) == len(CURSORS.seal(10**17))


ELSEWHERE = pytest.param(Cursors(bytes(32)).seal(1), id="of another key")


@pytest.mark.parametrize("text", ["", "a", "MTI", "MC4wLjAuMA", "\u00e4", "A" * 96, ELSEWHERE])
def test_a_cursor_that_is_not_ours_is_refused(text: str) -> None:
    for read in (CURSORS.open, CURSORS.open_number, CURSORS.open_events):
        with pytest.raises(ApiError, match="begin without one"):
            read(text)
    assert CURSORS.open(None) is None
    # Which everybody knows.
    assert CURSORS.open_events("0") == EventCursor()


async def test_a_tenants_cursors_do_not_count_the_others_messages(api: Api) -> None:
    mine = await client_of(api, accounts=[ACCOUNT])
    for account in (ACCOUNT, "other", "other", ACCOUNT):
        await api("POST", f"/v1/accounts/{account}/messages", b"{}", api.bearer)
    page = (await api("GET", f"{MESSAGES}?limit=1", headers=mine)).json
    assert CURSORS.open_number(page["cursor"]) == 4
    # Nobody makes a cursor of a position, to try where the end of all messages is.
    guessed = base64.urlsafe_b64encode(b"99.99.99.99").decode()
    for path in (f"{MESSAGES}?cursor={guessed}", f"/v1/events?after={guessed}"):
        assert (await api("GET", path, headers=mine)).error == (400, "INVALID_PARAMETER")
