"""The pytest plugin. It imports nothing heavy before a test asks for a fixture: pytest loads it in every run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fotahook import Client
    from fotahook.testing import Sandbox


@pytest.fixture(scope="session")
def fotahook_sandbox_of_the_run() -> "Iterator[Sandbox]":
    """The sandbox that all tests of the run share. Use ``fotahook_sandbox``, which is reset after each test."""
    from fotahook.testing import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def fotahook_sandbox(fotahook_sandbox_of_the_run: "Sandbox") -> "Iterator[Sandbox]":
    """A whole service without callbacks, messages and faults, at the real time."""
    yield fotahook_sandbox_of_the_run
    fotahook_sandbox_of_the_run.reset()


@pytest.fixture
def fotahook_client(fotahook_sandbox: "Sandbox") -> "Iterator[Client]":
    """The SDK for ``fotahook_sandbox``, with credentials for every account."""
    with fotahook_sandbox.client() as client:
        yield client
