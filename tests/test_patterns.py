"""Every regular expression of the package reads hostile text in linear time: a quadratic one would take hours here."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import fotahook
from tests.deadlines import DEADLINE

SIZE = 50_000
SOURCES = Path(fotahook.__file__).parent


def patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes]]]:
    """Each pattern in the source, and the name that it is assigned to, or the function that it is given to."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        names = {
            id(node.value): ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if of_re and node.func.attr != "escape" and node.args:
                pattern = _compiled(node, constants)
                if node.func.attr == "compile":
                    yield names.get(id(node), ""), pattern
                else:
                    yield node.func.attr, pattern


def _compiled(call: ast.Call, constants: Mapping[str, object]) -> re.Pattern[str] | re.Pattern[bytes]:
    text = _value(call.args[0], constants)
    flags = next((ast.unparse(word.value) for word in call.keywords if word.arg == "flags"), "0")
    if isinstance(call.func, ast.Attribute) and call.func.attr == "compile" and len(call.args) > 1:
        flags = ast.unparse(call.args[1])
    return re.compile(text, eval(flags, {"re": re}))


def _value(node: ast.expr, constants: Mapping[str, object]) -> str | bytes:
    """The text of a pattern; what is only known at run time stands for a word."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return str(_value(node.left, constants)) % _value(node.right, constants)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_value(part, constants)) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _value(node.value, constants)
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), str | bytes | int):
        value = constants[node.id]
        return value if isinstance(value, str | bytes) else str(value)
    return "64" if "LENGTH" in ast.unparse(node) else "word"


def attacks(pattern: str) -> Iterator[str]:
    """Long texts of what stands in the pattern, and with an end that never fits."""
    literal = re.sub(r"\\[dws]|\(\?[^)]*\)|\{[^}]*\}", " ", pattern)
    pieces = [piece for piece in re.split(r"[\s\[\]().*+?|^$\\]+", literal) if piece][:4]
    for unit in dict.fromkeys([*pieces, " ", "a", "0", ":", "<a:code> "]):
        yield (pieces or [""])[0] + unit * (SIZE // len(unit)) + "\0"


def run() -> int:
    text_of_all = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    count = 0
    for name, pattern in patterns():
        count += 1
        # These begin at one place only; anything else looks everywhere.
        used = {name} if hasattr(re, name) else set(re.findall(rf"\b{name}\.([a-z]+)", text_of_all))
        read = getattr(pattern, used.pop()) if used in ({"fullmatch"}, {"match"}) else pattern.search
        for text in attacks(str(pattern.pattern)):
            read(cast("Any", text.encode() if isinstance(pattern.pattern, bytes) else text))
    return count


def test_every_pattern_is_linear() -> None:
    # In a process of its own, because a regular expression cannot be interrupted.
    code = "from tests.test_patterns import run; print(run())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    # As many as the source has.
    found = sum(path.read_text().count("re.compile(") for path in SOURCES.rglob("*.py"))
    assert int(done.stdout) >= found
