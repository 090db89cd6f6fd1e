"""docs/delivery.md says what the code does: its tables are read and compared."""

import re
from datetime import UTC, datetime, timedelta
from itertools import accumulate, takewhile
from pathlib import Path

from fotahook.delivery import Rules, Timings
from fotahook.delivery.outcomes import EXPIRED, FIXES, Outcome, failure_of
from fotahook.delivery.policy import DAY
from fotahook.testing.sandbox.fault_points import POINTS

PAGE = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text()
NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)


def table(first_header: str) -> list[list[str]]:
    """The rows of the table with this first column, as texts."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(f"| {first_header} |"):
            next(lines)
            return [[cell.strip() for cell in row.strip("|").split("|")] for row in takewhile(str.strip, lines)]
    raise AssertionError(f"there is no table of {first_header}")


def clock(seconds: float) -> str:
    moment = NINE + timedelta(seconds=seconds)
    return f"{moment:%H:%M:%S}" + (", the next day" if moment.date() > NINE.date() else "")


def test_the_table_of_error_codes_has_each_code_with_its_failure_and_its_fix() -> None:
    rows = {code.strip("`"): (failure, fix) for code, failure, fix in table("code")}
    assert {code: fix for code, (_, fix) in rows.items()} == FIXES
    names = {"gone": "pauses", "none": "—"}
    for code, (documented, _) in rows.items():
        digits = re.fullmatch(r"http_(\d+)x*", code)
        status = None if digits is None else int(digits[1].ljust(3, "1"))
        failure = "none" if code == EXPIRED else failure_of(Outcome(code=code, status=status))
        assert documented == names.get(failure, failure), code


def test_the_schedule_is_documented_in_clock_times() -> None:
    moments = accumulate(Rules().schedule)
    assert [at for _, _, at in table("attempt")] == [clock(seconds) for seconds in moments]


def test_the_probes_are_documented_in_clock_times() -> None:
    rules, rows = Rules(), table("probe")
    ceilings = [min(rules.backoff * 2.0**failures, rules.backoff_cap) for failures in range(len(rows))]
    assert [ceiling for _, ceiling, _ in rows] == [f"{seconds:.0f} s" for seconds in ceilings]
    assert [at for _, _, at in rows[:-1]] == [clock(seconds) for seconds in accumulate(ceilings[:-1])]
    assert ceilings[-2] < ceilings[-1] == rules.backoff_cap


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    assert f"Time to live: {Rules().time_to_live / DAY:.0f} days" in PAGE
    assert f"within {Timings().attempt:.0f} seconds" in PAGE
    assert f"{Rules().in_flight} (`--in-flight`)" in PAGE
    assert f"{Timings().lease:.0f} s (`--lease`)" in PAGE
    assert Rules().refusals == 10
    assert "Ten different messages refused in a row" in PAGE


def test_every_fault_point_is_listed() -> None:
    assert {point.partition(".")[0] for point in POINTS} == {row[0].strip("`") for row in table("points of")}
