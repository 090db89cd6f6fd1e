"""A sandbox for the tests of this folder: one service, reset after each test, as in the plugin."""

from collections.abc import Iterator

import pytest

from fotahook.testing import Sandbox


@pytest.fixture(scope="session")
def running() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    yield running
    running.reset()
