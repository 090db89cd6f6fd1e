"""The pytest plugin, in runs of its own."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

TWO_TESTS = """
    from fotahook import FotaV2CallbackRegistrationRequest

    URLS = []

    def test_one(fotahook_client, fotahook_sandbox):
        callbacks = fotahook_client.software_management_callbacks_v2
        assert callbacks.list_registered_callbacks("1").data is None
        callbacks.register_callback("1", FotaV2CallbackRegistrationRequest(fotahook_sandbox.receiver.url))
        fotahook_sandbox.faults.answer_calls(times=99)
        fotahook_sandbox.advance(3600)
        URLS.append(fotahook_sandbox.base_url)

    def test_two(fotahook_client, fotahook_sandbox):
        callbacks = fotahook_client.software_management_callbacks_v2
        assert callbacks.list_registered_callbacks("1").data is None
        assert URLS == [fotahook_sandbox.base_url], "one service for all tests"
"""


@pytest.fixture
def plugged(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project beside which fotahook is installed."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


@pytest.mark.parametrize("options", [(), ("-p", "fotahook.testing.plugin")])
def test_each_test_has_an_empty_service(plugged: pytest.Pytester, options: tuple[str, ...]) -> None:
    plugged.makepyfile(TWO_TESTS)
    plugged.runpytest_subprocess("-p", "no:cacheprovider", *options).assert_outcomes(passed=2)


def test_a_run_that_uses_no_fixture_loads_nothing_of_fotahook_but_the_plugin(plugged: pytest.Pytester) -> None:
    plugged.makepyfile("""
        import sys

        def test_nothing_is_loaded():
            loaded = {name for name in sys.modules if name.startswith("fotahook")}
            names = ("fotahook", "fotahook.contract", "fotahook.contract.version", "fotahook.testing")
            assert loaded == {*names, "fotahook.testing.plugin"}
    """)
    plugged.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_fixtures_are_described(plugged: pytest.Pytester) -> None:
    told = plugged.runpytest_subprocess("--fixtures").stdout
    told.fnmatch_lines(["fotahook_sandbox -- *", "*A whole service without callbacks*", "fotahook_client -- *"])


def test_the_plugin_alone_imports_nothing_heavy() -> None:
    code = "import sys, fotahook.testing.plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "aiohttp",
        "asyncio",
        "nacl",
        "sqlite3",
        "starlette",
        "trustme",
        "uvicorn",
        "fotahook.testing.sandbox.sandbox",
    }
    assert heavy.isdisjoint(loaded)
    assert "fotahook.testing.plugin" in loaded
