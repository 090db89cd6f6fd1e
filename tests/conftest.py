"""What every test may use."""

import gc
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Hundreds of processes start. None compiles everything again, even where Python is told to keep no bytecode.
sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parents[1] / ".cache" / "bytecode")
os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}

# A shell that runs this in the background ignores Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is no property of the code: the machine has other work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["tests.postgres"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_finish() -> None:
    # Thousands of items stay until the end: no garbage collection need go through them again.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first: none of them is left alone at the end, when other workers have no more to do."""
    long = {name: number for number, name in enumerate(("faults", "acceptance", "docs", "typing"))}
    items.sort(key=lambda item: long.get(item.path.parent.name, len(long)))


MEASURED = (
    *("client", "contract", "listener", "store"),
    *("service/test_http", "service/test_operator_client", "service/test_quotas"),
    *("delivery/test_disasters", "delivery/test_dispatcher", "delivery/test_lane"),
)
"""Folders and modules whose tests cover all code that is gated at 100 %. What is not measured takes a third less."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    coverage = getattr(item.config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    folder = item.path.parent.name
    measured = folder in MEASURED or f"{folder}/{item.path.stem}" in MEASURED
    if coverage is not None and coverage.started != measured:
        (coverage.pause if coverage.started else coverage.resume)()
        # A line whose result is cached already would not run again.
        for name, module in list(sys.modules.items()):
            for each in vars(module).values() if name.startswith("fotahook.") else ():
                if callable(forget := getattr(each, "cache_clear", None)):
                    forget()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged goes from its worker to the terminal, which takes no lone surrogates."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report
