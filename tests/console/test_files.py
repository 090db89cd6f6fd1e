"""The console's files: complete, nothing from another host, nothing inline."""

import re
from html.parser import HTMLParser

from fotahook.console import FILES, HEADERS

PAGE = (FILES / "index.html").read_text()
EXAMPLES = (
    "https://hooks.example.net",
    "https://receiver.example.net",
    "http://www.w3.org/2000/svg",
    "http://127.0.0.1:8081",
)
"""Shown to people, or the name of a kind of element: none of them is loaded."""
SCRIPTS = sorted(FILES.glob("*.js"))


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_only_files_beside_it() -> None:
    needed = [
        attributes[name]
        for tag, attributes in Elements(PAGE).found
        for name in ("src", "href")
        if name in attributes and tag != "a" and not (attributes[name] or "").startswith("data:")
    ]
    assert needed == ["console.css", "console.js"]
    scripts = {name for script in SCRIPTS for name in re.findall(r'from "\./([a-z]+\.js)"', script.read_text())}
    assert {file.name for file in FILES.iterdir()} == {"index.html", "console.css", "console.js", *scripts}


def test_nothing_is_loaded_from_another_host() -> None:
    for file in FILES.iterdir():
        text = file.read_text()
        for example in EXAMPLES:
            text = text.replace(example, "")
        assert not re.search(r"(https?:)?//[a-z]", text), file.name


def test_the_policy_allows_only_files_beside_the_page() -> None:
    policy = dict(directive.strip().partition(" ")[::2] for directive in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert {policy[kind] for kind in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "'none'")


def test_nothing_is_inline_so_the_policy_breaks_nothing() -> None:
    for tag, attributes in Elements(PAGE).found:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "script":
            assert attributes.get("src")


def test_responses_become_text_and_never_markup() -> None:
    for script in SCRIPTS:
        text = script.read_text()
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert way not in text
        for place in ("localStorage", "sessionStorage", "document.cookie", "indexedDB"):
            assert place not in text


def test_no_line_is_too_long_to_read() -> None:
    for file in (*SCRIPTS, FILES / "console.css"):
        assert [line for line in file.read_text().splitlines() if len(line) > 120] == [], file.name
