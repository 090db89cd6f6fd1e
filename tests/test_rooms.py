"""The house checks itself: who imports whom, and what the packages show."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "fotahook"

EVERYTHING = {"contract", "client", "store", "delivery", "service", "listener", "console", "testing", "cli"}
MAY_IMPORT = {
    "contract": set(),
    "client": {"contract"},
    "store": {"contract"},
    "delivery": {"contract", "store"},
    "service": {"contract", "store"},
    "listener": {"contract", "store", "delivery"},
    "console": set(),
    "testing": EVERYTHING - {"cli"},
    "cli": EVERYTHING,
}


def imported_modules(path: Path) -> Iterator[str]:
    """The absolute name of each module that a file imports, wherever in the file it does so."""
    package = ["fotahook", *path.relative_to(SRC).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def trespasses() -> list[str]:
    found = []
    for path in sorted(SRC.rglob("*.py")):
        room = path.relative_to(SRC).parts[0]
        if room not in MAY_IMPORT:
            continue
        for module in imported_modules(path):
            parts = module.split(".")
            reached = parts[1] if parts[0] == "fotahook" and len(parts) > 1 else None
            if reached in EVERYTHING and reached not in MAY_IMPORT[room] | {room}:
                found.append(f"{path.relative_to(SRC)} imports {module}")
    return found


def test_every_room_of_the_design_exists() -> None:
    rooms = {path.name for path in SRC.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


def test_no_room_reaches_into_another() -> None:
    assert trespasses() == []


def test_the_contract_needs_only_msgspec_and_does_no_io() -> None:
    allowed = {"msgspec", "nacl", "fotahook"}
    forbidden = {"socket", "asyncio", "os", "http", "ssl", "subprocess", "threading", "urllib.request"}
    for path in (SRC / "contract").glob("*.py"):
        for module in imported_modules(path):
            top = module.split(".")[0]
            assert module not in forbidden, f"{path.name} imports {module}"
            assert top not in forbidden, f"{path.name} imports {module}"
            assert top in allowed or is_standard(top), f"{path.name} imports {module}"


def is_standard(name: str) -> bool:
    import sys

    return name in sys.stdlib_module_names


def test_only_the_command_line_and_from_environment_read_the_environment() -> None:
    readers = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    }
    assert {reader for reader in readers if not reader.startswith("cli/")} <= {"client/_environment.py"}
