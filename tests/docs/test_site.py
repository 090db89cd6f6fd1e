"""The site builds without warnings, documents every public name, and loads nothing from other hosts."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

from fotahook.cli.commands import app as commands

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    # What `make docs` does, into another folder.
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-d", str(folder / "doctrees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "docs", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"`make docs` fails:\n{done.stderr}"
    return folder / "html"


class _LoadedAddresses(HTMLParser):
    """Collects the addresses that a page loads: scripts, styles, images, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        described = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(described.get("src") or "")
        if tag == "link" and described.get("rel") != "canonical":
            self.addresses.append(described.get("href") or "")


def loaded_addresses(page: Path) -> Iterator[str]:
    parser = _LoadedAddresses()
    parser.feed(page.read_text())
    yield from parser.addresses


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        assert [address for address in loaded_addresses(page) if re.match(r"(https?:)?//", address)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text()), style


def test_the_sidebar_has_every_page_once(site: Path) -> None:
    sidebar = (site / "index.html").read_text().partition('<div class="sidebar-tree">')[2].partition("</div>")[0]
    linked = re.findall(r'href="([^"#]+)\.html"', sidebar)
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(linked) == sorted(pages - {"index"})


def test_agents_find_every_page_as_markdown(site: Path) -> None:
    listed = set(re.findall(r"\]\((\S+\.md)\)", (site / "llms.txt").read_text()))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    for name in listed | {"SKILL.md"}:
        assert (site / name).is_file(), name


def test_every_command_has_its_section(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    for name in commands:
        assert name.startswith("-") or f'id="fotahook-{name}' in page, name


def test_every_call_and_every_schema_has_its_section(site: Path) -> None:
    page = (site / "reference" / "http.html").read_text()
    described = json.loads((ROOT / "src/fotahook/service/openapi.json").read_bytes())
    for path, item in described["paths"].items():
        for method in item.keys() - {"parameters"}:
            assert f"{method.upper()} {path}<a" in page, path
    for name in described["components"]["schemas"]:
        assert f">{name}<a" in page, name


@pytest.mark.parametrize("module", ["fotahook", "fotahook.listener", "fotahook.testing"])
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    page = (site / "reference" / "python.html").read_text()
    names = set(import_module(module).__all__) - {"__version__"}
    described = set(re.findall(r'id="fotahook\.[a-z.]*?(\w+)"', page))
    assert names - described == set(), f"add them to docs/reference/python.md: {sorted(names - described)}"
