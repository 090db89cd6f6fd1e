"""The public API: its names, the parity of both clients, and the cost of the import."""

import asyncio
import inspect
import math
import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import fotahook
from tests.deadlines import DEADLINE

from .conftest import OAUTH, USER, Peer

RENAMED = {"close": "aclose", "__enter__": "__aenter__", "__exit__": "__aexit__"}
PAIRS = [
    (fotahook.Client, fotahook.AsyncClient),
    (fotahook.OperatorClient, fotahook.AsyncOperatorClient),
    (fotahook.SoftwareManagementCallbacksV2Controller, fotahook.AsyncSoftwareManagementCallbacksV2Controller),
    (fotahook.CampaignsV2Controller, fotahook.AsyncCampaignsV2Controller),
    (fotahook.SoftwareManagementReportsV2Controller, fotahook.AsyncSoftwareManagementReportsV2Controller),
    (fotahook.ServerLoggingController, fotahook.AsyncServerLoggingController),
]


def public(kind: type[Any]) -> dict[str, tuple[str, str | None]]:
    """The signature and the first sentence of each public method."""
    own = ("__enter__", "__exit__", "__aenter__", "__aexit__")
    # Methods only: the controllers are compared as pairs of their own.
    methods = inspect.getmembers(kind, lambda one: callable(one) and not inspect.isclass(one))
    return {
        RENAMED.get(name, name): (
            re.sub("Async(?=EventStream|Iterator)", "", str(inspect.signature(method))),
            (method.__doc__ or "").split("\n")[0],
        )
        for name, method in methods
        if not name.startswith("_") or name in own
    }


@pytest.mark.parametrize(("plain", "asynchronous"), PAIRS)
def test_sync_and_async_have_the_same_methods_signatures_and_docs(plain: type[Any], asynchronous: type[Any]) -> None:
    assert public(plain) == public(asynchronous)
    first, second = (set(inspect.signature(kind).parameters) for kind in (plain, asynchronous))
    assert first == second


def test_all_is_sorted_and_names_everything_public() -> None:
    assert fotahook.__all__ == sorted(fotahook.__all__)
    modules = {"client", "contract", "listener", "store", "delivery", "service", "testing", "cli", "console", "hosting"}
    found = {name for name in vars(fotahook) if not name.startswith("_")} - modules - {"TYPE_CHECKING", "import_module"}
    # Names are loaded when they are first used.
    assert found <= set(fotahook.__all__)
    assert all(hasattr(fotahook, name) for name in fotahook.__all__)


def test_every_public_name_has_a_docstring() -> None:
    for name in set(fotahook.__all__) - {"CallbackMessage", "Listener", "__version__"}:
        assert getattr(fotahook, name).__doc__, name


def test_the_version_is_the_distributions() -> None:
    assert fotahook.__version__ == version("fotahook")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fotahook' has no attribute 'nothing'"):
        fotahook.nothing  # type: ignore[attr-defined]  # noqa: B018


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.stdout + done.stderr


def test_importing_loads_no_http_library() -> None:
    heavy = ("urllib3", "aiohttp", "asyncio", "http.client", "ssl", "starlette", "sqlite3")
    assert run(f"import sys, fotahook; print([name for name in {heavy} if name in sys.modules])") == "[]\n"


def test_the_sync_client_never_loads_aiohttp() -> None:
    code = """
import sys, fotahook
client = fotahook.Client(base_url="http://127.0.0.1:1", max_retries=0,
    thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("i", "s"),
    vz_m2m_token_credentials=fotahook.SessionCredentials("u", "p"))
try:
    client.software_management_callbacks_v2.list_registered_callbacks("a")
except fotahook.ConnectionFailed:
    print("urllib3" in sys.modules, "aiohttp" in sys.modules, "asyncio" in sys.modules)
"""
    assert run(code) == "True False False\n"


def test_a_missing_aiohttp_is_named_with_its_extra() -> None:
    code = """
import asyncio, sys
sys.modules["aiohttp"] = None
import fotahook
async def main():
    try:
        await fotahook.AsyncClient().software_management_callbacks_v2.list_registered_callbacks("a")
    except ImportError as error:
        print(error)
asyncio.run(main())
"""
    assert run(code) == "AsyncClient needs aiohttp: pip install 'fotahook[async]'\n"


def test_receiving_needs_no_extra() -> None:
    """A function on AWS Lambda has the smallest installation; so has an app that brings its own server."""
    code = """
import sys
for name in ("starlette", "uvicorn", "uvloop", "httptools", "aiodns", "nacl", "structlog", "aiohttp"):
    sys.modules[name] = None
import fotahook, fotahook.listener.adapters.wsgi
print(fotahook.unwrap(b'{"accountName": "a-1"}', {}).account_name)
"""
    assert run(code) == "a-1\n"


def test_lazy_names_exist() -> None:
    assert fotahook.CallbackMessage.__name__ == "CallbackMessage"
    assert {"CallbackMessage", "Listener"} <= set(dir(fotahook))


def test_an_import_error_of_our_own_is_not_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fotahook._MODULES, "Listener", "no_such_room")
    with pytest.raises(ModuleNotFoundError, match="no_such_room"):
        fotahook.__getattr__("Listener")


@pytest.mark.parametrize("form", [fotahook.Client, fotahook.AsyncClient])
def test_invalid_options_are_errors(form: Any) -> None:
    for wrong in ({"timeout": 0}, {"timeout": -1.0}, {"max_retries": -1}, {"base_url": "x"}, {"proxy": "socks5://x"}):
        with pytest.raises(ValueError):
            form(**wrong)
    for name in ("environment", "vz_m2m_token_credentials", "thingspace_oauth_credentials"):
        with pytest.raises(TypeError, match=f"{name} must be"):
            form(**{name: "a name"})
    for file in ("/nowhere.pem", __file__):
        with pytest.raises(ValueError, match="ca_file or client_cert cannot be used"):
            form(ca_file=file)
        with pytest.raises(ValueError, match="ca_file or client_cert cannot be used"):
            form(client_cert=(file, file))
    for time in (math.nan, math.inf, 1e300, 10**400):
        with pytest.raises(ValueError, match="timeout must be greater than zero, and at most"):
            form(timeout=time)
    for nameless in ({"ca_file": ""}, {"client_cert": ""}):
        with pytest.raises(ValueError, match="ca_file or client_cert cannot be used"):
            form(**nameless)
    for mistaken in ({"timeout": "1"}, {"timeout": True}, {"max_retries": 1.5}, {"unknown": 1}):
        with pytest.raises(TypeError):
            form(**mistaken)
    for name, value in (
        ("proxy", 5),
        ("ca_file", 5),
        ("client_cert", Path("x")),
        ("client_cert", ("x",)),
        ("on_request", 5),
    ):
        with pytest.raises(TypeError, match=f"{name} must be"):
            form(**{name: value})


def test_the_longest_timeout_works(peer: Peer) -> None:
    options: dict[str, Any] = {"thingspace_oauth_credentials": OAUTH, "timeout": threading.TIMEOUT_MAX}
    options |= {"vz_m2m_token_credentials": USER, "base_url": peer.url}
    with fotahook.Client(**options) as client:
        client.login()
    asyncio.run(fotahook.AsyncClient(**options).login())
    assert sum("session/login" in call.target for call in peer.seen) == 2
