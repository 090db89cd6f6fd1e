"""The pytest plugin: a sandbox for the whole run, reset for each test that uses it.

pytest loads this in every run of an environment with fotahook in it: so nothing is imported before a test asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fotahook import Client
    from fotahook.testing import Sandbox


@pytest.fixture(scope="session")
def fotahook_sandbox_of_the_run() -> "Iterator[Sandbox]":
    """The sandbox that all tests of the run share. Take ``fotahook_sandbox``, which is reset after each of them."""
    from fotahook.testing import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def fotahook_sandbox(fotahook_sandbox_of_the_run: "Sandbox") -> "Iterator[Sandbox]":
    """A whole service with nothing in it: no callback, no message, no fault, the time as it is."""
    yield fotahook_sandbox_of_the_run
    fotahook_sandbox_of_the_run.reset()


@pytest.fixture
def fotahook_client(fotahook_sandbox: "Sandbox") -> "Iterator[Client]":
    """The SDK, pointed at ``fotahook_sandbox``, with credentials for every account."""
    with fotahook_sandbox.client() as client:
        yield client
