"""A simulated reader: runs a page block by block and compares the output with what the page shows."""

import ast
import asyncio
import contextlib
import difflib
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Final

from fotahook.service.credentials import DEV_CLIENT, DEV_USER
from tests.deadlines import DEADLINE
from tests.ports import unused_port

from .blocks import ROOT, RUN, Block
from .comparison import difference, replacements
from .exceptions import COMMANDS_NOT_RUN
from .terminal import Terminal, reader_environment

ADVICE: Final = "Correct the page, or add the block to tests/docs/exceptions.py with the reason why it is not run."
A_KEY: Final = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
"""Replaces `whpk_…` in commands; from RFC 8032's first test vector."""


class Reader:
    """Runs the blocks of one page in one folder and one shell, so that each block sees the results of earlier ones."""

    def __init__(self, page: str, folder: Path) -> None:
        self.folder = folder / "page"
        around = (ROOT / page).parent
        if around in (ROOT, ROOT / "docs"):
            self.folder.mkdir()
        else:
            # A page inside a project refers to the files next to it.
            shutil.copytree(around, self.folder)
        state = folder / "state"
        state.mkdir()
        service, listener = unused_port(), unused_port()
        self._ports = {"8080": str(service), "8081": str(listener)}
        self._replacements = {f"127.0.0.1:{port}": f"127.0.0.1:{free}" for port, free in self._ports.items()}
        self._replacements["whpk_…"] = A_KEY
        self._variables = {
            "THINGSPACE_BASE_URL": f"http://127.0.0.1:{service}",
            "THINGSPACE_OAUTH_OAUTH_CLIENT_ID": DEV_CLIENT[0],
            "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": DEV_CLIENT[1],
            "VZ_M2M_USERNAME": DEV_USER[0],
            "VZ_M2M_PASSWORD": DEV_USER[1],
        }
        ports = {
            "SERVICE": f"http://127.0.0.1:{service}",
            "SERVICE_PORT": str(service),
            "LISTENER_PORT": str(listener),
        }
        environment = reader_environment() | self._variables | ports
        self._terminal = Terminal(self.folder, state, environment, COMMANDS_NOT_RUN)
        self._service_runs = False
        self._names: dict[str, Any] = {"__name__": "page"}

    def follow(self, block: Block) -> str | None:
        """Run a block; a description of what is wrong, or None."""
        try:
            wrong = self._follow(block)
        except Exception:
            wrong = traceback.format_exc()
        if wrong is None:
            return None
        return f"{block.place} ({block.language or 'no language'}): {wrong}\n{self._terminal.log()[-2000:]}"

    def _follow(self, block: Block) -> str | None:
        text = self._replaced(block.text)
        if named := re.match(r"# ([\w-]+\.[a-z]+)\n", text):
            (self.folder / named[1]).write_text(text)
        if block.language in RUN and not self._service_runs and _needs_service(block.text):
            started = self._terminal.run("fotahook serve --dev")
            self._service_runs = True
            if started.code:
                return f"the service did not start: {started}"
        match block.language:
            case "sh":
                return self._shell(block, text)
            case "python":
                return self._python(block, text)
        return None

    def _shell(self, block: Block, text: str) -> str | None:
        self._service_runs |= text.startswith("fotahook serve")
        printed = self._terminal.run(text)
        # If the page shows the output, only that counts: it may be an error.
        if printed.code and block.output is None:
            return f"exit code {printed.code}, output:\n{printed.out}{printed.err}"
        return self._compare(block, printed.out or printed.err)

    def _python(self, block: Block, text: str) -> str | None:
        if re.search(r"^(async )?def test_", text, re.MULTILINE):
            return self._pytest(text)
        output = io.StringIO()
        with self._inside(), contextlib.redirect_stdout(output):
            _execute(text, block, self._names)
        return self._compare(block, output.getvalue())

    def _pytest(self, text: str) -> str | None:
        (self.folder / "test_page.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "fotahook.testing.plugin", "-p", "no:cacheprovider"],
            cwd=self.folder,
            env=reader_environment() | {"PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return None if done.returncode == 0 else done.stdout + done.stderr

    def _compare(self, block: Block, printed: str) -> str | None:
        if block.output is None:
            return None
        for port, free in self._ports.items():
            printed = re.sub(rf"\b{free}\b", port, printed)
        found = difference(block.output, printed)
        if found is None:
            self._replacements |= replacements(block.output, printed)
            return None
        expected, actual = (one.splitlines() for one in found)
        lines = difflib.unified_diff(expected, actual, "the page", "printed", lineterm="", n=1)
        return "\n".join(["the output differs:", *lines])

    def _replaced(self, text: str) -> str:
        for shown, actual in self._replacements.items():
            text = text.replace(shown, actual)
        return text

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Run in the page's folder, with the variables that a reader would have set."""
        path, environment = [*sys.path], dict(os.environ)
        os.environ.update(self._variables)
        sys.path.insert(0, str(self.folder))
        try:
            with contextlib.chdir(self.folder):
                yield
        finally:
            sys.path[:] = path
            os.environ.clear()
            os.environ.update(environment)

    def close(self) -> None:
        """Stop all processes that the page started."""
        self._terminal.close()


def _needs_service(text: str) -> bool:
    return any(
        word in text for word in ("127.0.0.1:8080", "--dev", "--register", "from_environment")
    ) and not text.startswith("fotahook serve")


def _execute(text: str, block: Block, names: dict[str, Any]) -> None:
    """Run Python as `python -m asyncio` does, with `await` at the top level."""
    code: CodeType = compile(text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        run: Callable[[], Any] = lambda: eval(code, names)  # noqa: E731
        asyncio.run(run())
    else:
        exec(code, names)
