"""Every code block of the pages runs, and prints what the page shows."""

import configparser
import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml
from verizon.configuration import Configuration

from .blocks import PAGES, ROOT, RUN, Block, blocks_of
from .comparison import difference, replacements
from .exceptions import COMMANDS_NOT_RUN, NOT_RUN, PAGES_NOT_RUN
from .reader import ADVICE, Reader


def _ini(text: str) -> None:
    configparser.RawConfigParser(strict=False).read_string(text)


PARSED: Final[Mapping[str, Callable[[str], object]]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "ini": _ini,
    "yaml": yaml.safe_load,
}
"""Languages that are parsed, unless the block is an output."""

SHOWN: Final = ("text", "{toctree}", "{eval-rst}", "{literalinclude}")
"""Languages that are only shown, or checked when the site is built."""

BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


def is_used(block: Block) -> bool:
    """Whether a reader uses a block: runs it, or saves it as a file."""
    return is_run(block) or (block.language in PARSED and not block.is_output)


def is_run(block: Block) -> bool:
    left_out = block.page in PAGES_NOT_RUN or (block.page, block.first_line) in NOT_RUN
    return block.language in RUN and not left_out


@pytest.fixture
def reader(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    # Pages change the official SDK's servers in this process.
    monkeypatch.setattr(Configuration, "environments", copy.deepcopy(Configuration.environments))
    reader = Reader(page, tmp_path)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", [page for page in PAGES if any(is_run(block) for block in blocks_of(page))])
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page: str, reader: Reader) -> None:
    wrongs = [wrong for block in blocks_of(page) if is_used(block) and (wrong := reader.follow(block))]
    assert not wrongs, "\n\n".join([*wrongs, ADVICE])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in PARSED and not block.is_output])
def test_configuration_in_a_page_is_valid(block: Block) -> None:
    PARSED[block.language](block.text)


def test_every_block_has_a_known_language() -> None:
    unknown = [block.place for block in BLOCKS if block.language not in (*RUN, *PARSED, *SHOWN)]
    assert unknown == [], f"write one of {(*RUN, *PARSED, 'text')} behind the fence"


def test_every_exception_is_still_needed() -> None:
    there = {(block.page, block.first_line) for block in BLOCKS if block.language in RUN}
    assert set(NOT_RUN) - there == set(), "no page has these blocks any more: remove the entries"
    assert set(PAGES_NOT_RUN) <= set(PAGES)
    for name in COMMANDS_NOT_RUN:
        assert any(re.search(rf"^{name} ", block.text, re.MULTILINE) for block in BLOCKS if block.language == "sh"), (
            name
        )


def test_every_target_of_make_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for block in BLOCKS if block.language == "sh" for name in re.findall(r"^make (\w+)", block.text, re.M)
    }
    assert named <= targets


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Sphinx checks the links of docs/."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), link


EXPECTED = '{"id":"01a20540-c2d0-7000-877f-40931f0d3f40","at":"2026-11-22T22:38:51.903340Z","n":1}\n'
PRINTED = '{"at": "2027-01-01T00:00:00Z", "id": "02b20540-c2d0-7000-877f-40931f0d3f40",\n "n": 1}'


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        (EXPECTED, PRINTED),
        ("it took  12 ms", "it took 7 ms\n"),
        ("the rest is … long", "the rest is whatever it is long"),
    ],
)
def test_ids_times_and_durations_may_differ(expected: str, printed: str) -> None:
    assert difference(expected, printed) is None


@pytest.mark.parametrize(
    ("expected", "printed"), [(EXPECTED, PRINTED.replace("1}", "2}")), ("5 s", "6 s"), ("a", ""), ("a", "a\nb")]
)
def test_anything_else_is_a_difference(expected: str, printed: str) -> None:
    assert difference(expected, printed) is not None


def test_an_id_of_the_page_is_replaced_by_the_printed_one() -> None:
    ours, theirs = "01a20540-c2d0-7000-877f-40931f0d3f40", "02b20540-c2d0-7000-877f-40931f0d3f40"
    assert replacements(EXPECTED, PRINTED)[ours] == theirs
