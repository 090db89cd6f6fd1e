"""docs/testing.md names every fault, method and step, and no others."""

import re
from pathlib import Path

from fotahook.testing import Faults, Sandbox, parse_fault_script
from fotahook.testing.simulator.faults import ACTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
(SCRIPT,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def names(table: str) -> set[str]:
    """The calls named in the first column of a table, by its header."""
    rows = PAGE.partition(f"| {table} |")[2].partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_page_lists_every_fault_and_no_other() -> None:
    told = names("of the next `times` deliveries") | names("of the next `times` API calls")
    assert told == public(Faults) - {"clear", "left"}


def test_the_page_lists_every_method_of_the_sandbox() -> None:
    rows = PAGE.partition("| `Sandbox(port=0")[2].partition("\n\n")[0].splitlines()[1:]
    told = {name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split(" | ")[0])}
    assert told == public(Sandbox) | {"base_url", "faults", "receiver"}


def test_the_page_lists_every_step_and_its_example_is_valid() -> None:
    assert names("do | fields") == set(ACTIONS)
    assert len(parse_fault_script(SCRIPT).steps) == 3
