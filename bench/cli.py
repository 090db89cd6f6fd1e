"""The command line: its start-up time compared with bare Python, and its memory for many messages.

`python -m bench.cli PART …` measures one part and prints JSON.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench import rig
from bench.report import Figure, Report

ROUNDS = 15
FEW, MANY = 1_000, 50_000
ACCOUNT = "0000123456-00001"
BARE = (sys.executable, "-c", "pass")
FOTAHOOK = (sys.executable, "-m", "fotahook")
STARTS = {"help": ("--help",), "version": ("--version",), "help of a command": ("messages", "list", "--help")}


def main(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="fotahook-bench-") as name:
        folder = Path(name)
        rounds = starts(folder)
        report.compare(
            [
                Figure(f"{name}, ms more than bare Python", [one[name] - one["bare"] for one in rounds], at_most=250)
                for name in STARTS
            ]
        )
        with service(folder) as url:
            few, many = (rig.run("bench.cli", "many", url, count, folder) for count in (FEW, MANY))
    grown = {step: many[f"{step}_mebibytes"] - few[f"{step}_mebibytes"] for step in ("import", "export")}
    report.compare(
        [
            Figure(f"import, MiB more for {MANY:,} messages than for {FEW:,}", grown["import"], at_most=16),
            Figure(f"export, MiB more for {MANY:,} messages than for {FEW:,}", grown["export"], at_most=16),
        ]
    )
    report.say(
        f"Bare Python starts in {median(one['bare'] for one in rounds):.0f} ms. With {MANY:,} messages, import handles "
        f"{many['import_rate']:,.0f}/s and export {many['export_rate']:,.0f}/s."
    )


def starts(folder: Path) -> list[rig.Found]:
    """Milliseconds from start to end, in rounds in which all take turns, with compiled bytecode."""
    variables = os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    commands = {"bare": BARE, **{name: (*FOTAHOOK, *arguments) for name, arguments in STARTS.items()}}
    for command in commands.values():
        _took(command, variables)
    return [{name: _took(command, variables) for name, command in commands.items()} for _ in range(ROUNDS)]


def _took(command: Sequence[str], variables: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True, timeout=rig.RUN_SECONDS)
    return 1000 * (time.perf_counter() - began)


@contextlib.contextmanager
def service(folder: Path) -> Iterator[str]:
    """The URL of a service in a separate process, without callbacks, so that nothing is delivered."""
    command = [*FOTAHOOK, "serve", "--dev", "--port", "0", "--store", f"sqlite:///{folder / 's.db'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[2]
        finally:
            process.terminate()


def many(url: str, count: int, folder: Path) -> rig.Found:
    """Import `count` messages into an account and export them again."""
    account, file = f"many-{count}", folder / "m.jsonl"
    _write(file, count)
    remote = ("--base-url", url, "--dev", "--json")
    imported, import_room = _run("import", str(file), "--account", account, *remote)
    exported, export_room = _run("export", account, str(folder / "exported.jsonl"), "--force", *remote)
    return {
        "import_rate": count / imported,
        "import_mebibytes": import_room,
        "export_rate": count / exported,
        "export_mebibytes": export_room,
    }


def _write(file: Path, count: int) -> None:
    body = json.dumps({"accountName": ACCOUNT, "type": "upgradeProgress", "padding": "x" * 400})
    line = {"account": ACCOUNT, "body": body, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    with file.open("w") as opened:
        opened.writelines(json.dumps({"id": str(number), **line}) + "\n" for number in range(count))


def _run(*arguments: str) -> tuple[float, float]:
    """Run a command; its duration in seconds and its peak memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen([*FOTAHOOK, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"fotahook {arguments[0]} exited with {process.returncode}")
    return took, usage.ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)


if __name__ == "__main__":
    print(json.dumps(many(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
