"""Rules that are tests need no guardian: versions agree, the lock has no addresses, nothing names a machine."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import fotahook
from fotahook.contract.version import VERSION

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "fotahook"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top is not None
    assert project["version"] == VERSION == top[1]


def test_locks_have_hashes_and_no_addresses() -> None:
    for name in ("bootstrap.lock", "requirements.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_all_is_sorted_and_holds() -> None:
    assert list(fotahook.__all__) == sorted(fotahook.__all__)
    for name in fotahook.__all__:
        assert getattr(fotahook, name) is not None


def test_no_file_names_a_machine() -> None:
    places = re.compile("/" + r"root/\.|/" + "work/main|/" + "tmp/" + "bash")
    guilty = [path for path in tracked() if path.suffix != ".lock" and places.search(path.read_text(errors="ignore"))]
    assert guilty == []


def test_only_the_command_line_and_the_settings_of_the_sdk_read_the_environment() -> None:
    readers = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    }
    assert {reader for reader in readers if not reader.startswith("cli/")} <= {"client/_settings.py"}


def test_the_contract_needs_only_msgspec_and_nacl() -> None:
    allowed = {"fotahook", "msgspec", "nacl", *sys.stdlib_module_names}
    for path in (SRC / "contract").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
GUIDES = {name: (ROOT / name).read_text() for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")}
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)\)")
SYMBOL = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)?)`\s+(?:in|of)\s+\[[^\]]+\]\(([^)#]+)\)")


def rooms() -> dict[str, list[Path]]:
    """The modules of each room; `(top)` has those of no room."""
    found: dict[str, list[Path]] = {}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).parts
        found.setdefault(parts[0] if len(parts) > 1 else "(top)", []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """The rooms that a module imports."""
    package = ("fotahook", *path.relative_to(SRC).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("fotahook.")} & set(rooms())


def defined(path: Path) -> set[str]:
    """The names that a module defines: classes, functions and constants, and `Class.member`."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{node.name}.")
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if isinstance(target, ast.Name):
                    names.add(prefix + target.id)

    add(ast.parse(path.read_text()).body, "")
    return names


def rooms_table() -> dict[str, tuple[set[str], int]]:
    """What ARCHITECTURE.md says of each room: the rooms it imports, and its lines."""
    rows = ARCHITECTURE.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {room: (set(filter(None, imports.split(", "))), int(lines)) for room, _, imports, lines in cells}


def test_the_architecture_counts_the_lines_of_each_room() -> None:
    actual = {room: sum(len(path.read_text().splitlines()) for path in paths) for room, paths in rooms().items()}
    stated = {room: lines for room, (_, lines) in rooms_table().items()}
    assert stated.keys() == actual.keys()
    wrong = {room: lines for room, lines in actual.items() if abs(lines - stated[room]) > max(50, lines * 0.05)}
    assert wrong == {}, "write these counts into the table of ARCHITECTURE.md"


def test_modules_and_functions_stay_small() -> None:
    long = []
    for path in SRC.rglob("*.py"):
        text = path.read_text()
        nodes = ast.walk(ast.parse(text))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [each.name for each in functions if (each.end_lineno or 0) - each.lineno >= 60]
        if len(text.splitlines()) > 400:
            long.append(path.stem)
    assert long == []


def test_the_command_line_stays_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in rooms()["cli"]) <= 2900


def test_the_architecture_states_what_each_room_imports() -> None:
    actual = {room: set[str]().union(*map(imported, paths)) - {room} for room, paths in rooms().items()}
    assert {room: imports for room, (imports, _) in rooms_table().items()} == actual


def test_every_path_in_the_guides_exists() -> None:
    for name, text in GUIDES.items():
        for link in LINK.findall(text):
            assert (ROOT / link).exists(), f"{link} in {name}"


def test_every_symbol_in_the_guides_exists() -> None:
    everywhere = set[str]().union(*(defined(path) for paths in rooms().values() for path in paths))
    for name, text in GUIDES.items():
        for symbol, link in SYMBOL.findall(text):
            if link.endswith(".py"):
                assert symbol in defined(ROOT / link), f"{symbol} in {link}, in {name}"
        symbols = {symbol for symbol in re.findall(r"`([A-Za-z_]\w*)`", text) if symbol != symbol.lower()}
        assert symbols - everywhere - {"Any"} == set(), name
