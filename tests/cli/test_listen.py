"""`fotahook listen` as a process: printing, handlers from a module, and modules that hold none."""

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import urllib3

from fotahook.client import AsyncClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from fotahook.contract.keys import parse_secret_key, signing_seed
from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.contract.signing import format_public_key, format_secret, headers, signer
from fotahook.listener.registration import Registration
from fotahook.store import open_store
from fotahook.testing import Sandbox, make_certificates
from tests.deadlines import DEADLINE
from tests.ports import unused_port
from tests.testing.receivers import receiving

from .conftest import Run, is_one_line
from .processes import fotahook, running

GOOD_SECRET = format_secret(bytes(32))
BODY = b'{"accountName": "0000123456-00001", "type": "upgradeProgress", "password": "hush"}'


def post(url: str, given: Mapping[str, str] | None = None, ca_file: Path | None = None) -> int:
    with urllib3.PoolManager(ca_certs=None if ca_file is None else str(ca_file)) as http:
        return http.request("POST", url, body=BODY, headers=given, retries=False).status


def test_without_a_module_it_prints_a_line_for_each_message(tmp_path: Path) -> None:
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        assert listener.ready.endswith("/ inbox=sqlite:///inbox.db\n")
        assert not (tmp_path / "inbox.db.key").exists()
        assert post(listener.url) == 200
        line = json.loads(listener.read_line())
        assert line["account"] == "0000123456-00001"
        assert line["type"] == "upgradeProgress"
        assert line["message"] == json.loads(BODY) | {"password": "(hidden)"}
        assert listener.stop() == 0
    assert (tmp_path / "inbox.db").exists()


def test_the_handlers_are_those_of_a_module_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "from fotahook import Listener\n"
        "app = Listener(inbox='sqlite:///mine.db', path='/fota')\n"
        "@app.on('upgradeProgress')\n"
        "def handle(message):\n"
        "    print('handled', message.account_name, flush=True)\n"
    )
    with running("listen", "handlers:app", "--port", "0", cwd=tmp_path) as listener:
        assert listener.url.endswith("/fota")
        assert post(listener.url) == 200
        assert listener.read_line() == "handled 0000123456-00001\n"
        assert listener.stop(signal.SIGINT) == 130
    assert (tmp_path / "mine.db").exists()


def test_flags_override_the_modules_listener(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "from fotahook import Listener\napp = Listener(path='/fota')\n@app.on_any\ndef handle(message): pass\n"
    )
    flags = ("--path", "/here", "--inbox", "sqlite:///there.db", "--print")
    with running("listen", "handlers:app", "--port", "0", *flags, cwd=tmp_path) as listener:
        assert listener.ready.endswith("/here inbox=sqlite:///there.db\n")
        assert post(listener.url) == 200
        assert json.loads(listener.read_line())["type"] == "upgradeProgress"


def test_with_a_public_key_only_signed_messages_are_accepted_over_tls(tmp_path: Path) -> None:
    made, seed = make_certificates(tmp_path, "127.0.0.1"), signing_seed(bytes(32))
    flags = ("--tls-cert", str(made.cert_file), "--tls-key", str(made.key_file))
    keys = ("--public-key", format_public_key(seed))
    with running("listen", "--port", "0", *flags, *keys, cwd=tmp_path) as listener:
        assert listener.url.startswith("https://")
        assert post(listener.url, ca_file=made.ca_file) == 401
        now = int(time.time())
        signed = headers("m1", now, [signer(seeds=[seed])("m1", now, BODY)])
        assert post(listener.url, signed, made.ca_file) == 200
        assert json.loads(listener.read_line())["type"] == "upgradeProgress"


def test_it_forwards_with_signatures_and_prints_only_if_asked_to(tmp_path: Path) -> None:
    with receiving() as first, receiving() as second:
        flags = ("--forward-to", first.url, "--forward-to", second.url)
        with running("listen", "--port", "0", *flags, cwd=tmp_path) as listener:
            assert f" forward-key={public_key(tmp_path / 'inbox.db.key')}\n" in listener.ready
            assert post(listener.url) == 200
            wait_until(lambda: first.bodies == second.bodies == [BODY])
            assert listener.stop() == 0
            assert listener.process.stdout is not None
            assert listener.process.stdout.read() == ""


def test_alarms_are_posted_to_their_receiver_signed(tmp_path: Path) -> None:
    """At the start already: somebody asked for a device whose campaign is over."""

    async def expect() -> None:
        store = await open_store(f"sqlite:///{tmp_path}/inbox.db")
        await store.expect("0000123456-00001", "c-1", ["d-1"], ends_at=time.time() - 60)
        await store.close()

    asyncio.run(expect())
    with (
        receiving() as receiver,
        running(
            "listen", "--port", "0", "--alarm-url", receiver.url, "--silence", "6h", "--repair-limit", "9", cwd=tmp_path
        ) as listener,
    ):
        assert " forward-key=whpk_" in listener.ready
        wait_until(lambda: bool(receiver.bodies))
        assert listener.stop() == 0
    alarm = json.loads(receiver.bodies[0])
    assert (alarm["type"], alarm["alarm"], alarm["value"]) == ("fotahook.alarm.raised", "overdue_devices", 1)


def test_only_sources_may_send_and_a_password_may_be_asked_for(tmp_path: Path) -> None:
    for number, (flags, status) in enumerate(
        (
            (("--source", "thingspace"), 403),
            (("--source", "thingspace", "--source", "127.0.0.1/32"), 200),
            (("--source", "192.0.2.0/24", "--trusted-proxy", "127.0.0.0/8"), 200),
            (("--basic", "user:hush", "--basic", "user:next"), 401),
        )
    ):
        with running("listen", "--port", "0", "--inbox", f"sqlite:///{number}.db", *flags, cwd=tmp_path) as listener:
            assert post(listener.url, {"X-Forwarded-For": "192.0.2.7"}) == status


def test_it_ends_when_the_reader_of_its_output_has_gone(tmp_path: Path) -> None:
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        assert listener.process.stdout is not None
        listener.process.stdout.close()
        assert post(listener.url) == 200
        assert listener.process.wait(DEADLINE) == 0


def test_a_handler_that_does_not_end_is_not_waited_for_at_another_signal(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "import asyncio, fotahook\n"
        "listener = fotahook.Listener()\n"
        "@listener.on_any\n"
        "async def handle(message):\n"
        "    print('begun', flush=True)\n"
        "    await asyncio.Event().wait()\n"
    )
    with running("listen", "handlers:listener", "--port", "0", cwd=tmp_path) as listener:
        assert post(listener.url) == 200
        assert listener.read_line() == "begun\n"
        # Those that come while requests are waited for end that alone.
        while listener.process.poll() is None:
            listener.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                listener.process.wait(0.05)
        assert listener.process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("source", "place", "code", "complaint"),
    [
        (None, "absent:listener", 2, "no module absent"),
        (None, "listener", 2, "MODULE:NAME"),
        ("", "m0:listener", 2, "no such name"),
        ("listener = 7", "m1:listener", 2, "of type int"),
        ("import absent_from_everywhere", "m2:listener", 1, "absent_from_everywhere"),
        ("1 / 0", "m3:listener", 1, "ZeroDivisionError"),
        ("def (", "m4:listener", 1, "SyntaxError"),
        ("raise SystemExit('over')", "m5:listener", 1, "over"),
    ],
    ids=lambda value: str(value),
)
def test_a_module_without_a_listener_is_reported(
    run: Run, tmp_path: Path, source: str | None, place: str, code: int, complaint: str
) -> None:
    if source is not None:
        (tmp_path / f"{place.partition(':')[0]}.py").write_text(source)
    said = run("listen", place)
    assert said.code == code
    assert is_one_line(said.err)
    assert complaint in said.err


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (("--secret", "whsec_short"), 2, ": --secret: not whsec_…"),
        (("--secret", GOOD_SECRET, "--secret", "hunter2="), 2, ": --secret (number 2 of 2): a signing secret"),
        (("--public-key", "x"), 2, ": --public-key: not whpk_…"),
        (("--path", "here"), 2, ": --path: a path must begin with /, unlike 'here'"),
        (("--path", "/a b"), 2, ": --path: a path must be written as in a URL"),
        (("--path", "/healthz"), 2, ": --path: the path /healthz is reserved"),
        (("--alarm-url", "ftp://x/"), 2, "--alarm-url"),
        (("--silence", "soon"), 2, "--silence soon: give a number with its unit"),
        (("--dedupe-window", "-1"), 2, ": --dedupe-window must be a number of seconds, 0 or more"),
        (("--inbox", "mysql://x"), 2, "sqlite:///"),
        (("--inbox", "sqlite:///no/such/folder.db"), 1, "folder.db"),
        (("--forward-to", "ftp://127.0.0.1/"), 2, "--forward-to"),
        (("--forward-to", "http://10.0.0.1/"), 2, "--allow-network"),
        (("--allow-network", "x"), 2, ": --allow-network: not a network in CIDR notation: 'x'"),
        (("--source", "here"), 2, ": --source: not a network in CIDR notation: 'here'"),
        (("--source", "thingspace", "--source", "x"), 2, ": --source (number 2 of 2): not a network"),
        (("--trusted-proxy", "10.0.0.1/8"), 2, ": --trusted-proxy: not a network in CIDR notation: '10.0.0.1/8'"),
        (("--basic", "hunter2"), 2, ": --basic: give USER:PASSWORD"),
        (("--basic", "user:ok", "--basic", "hunter2:"), 2, ": --basic: give USER:PASSWORD"),
        (("--ca-file", "absent.pem"), 1, "--ca-file"),
        (("--register", "a-1"), 2, "--public-url"),
        (("--public-url", "https://x/"), 2, "--register"),
        (("--watch",), 2, "--register"),
        (("--register", "a-1", "--public-url", "", "--dev"), 2, "--public-url is empty"),
        (("--register", "a-1", "--public-url", "hunter2", "--dev"), 2, "--public-url: url must begin with https://"),
        (("--register", "a-1", "--public-url", "https://x/#", "--dev"), 2, "--public-url: url must not have a frag"),
        (("--register", "a-1", "--public-url", "https://x/"), 2, "no credentials"),
        (
            ("--register", "a-1", "--public-url", "https://x/", "--dev", "--base-url", "http://127.0.0.1:9"),
            3,
            "http://127.0.0.1:9",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_invalid_flags_are_reported(run: Run, flags: tuple[str, ...], code: int, complaint: str) -> None:
    said = run("listen", "--port", "0", *flags)
    assert said.code == code
    assert complaint in said.err
    assert "Traceback" not in said.err
    assert "whsec_short" not in said.err
    assert "hunter2" not in said.err


def test_explain_hides_secrets(run: Run) -> None:
    said = run("listen", "--explain", "--basic", "user:hunter2", "--inbox", "postgresql://me:hunter2@host/db")
    assert said.code == 0
    assert "hunter2" not in said.out


# Registering


def test_it_registers_itself_and_deregisters_at_its_end(sandbox: Sandbox, tmp_path: Path) -> None:
    port = str(unused_port())
    url = f"http://127.0.0.1:{port}/"
    flags = ("--register", "a-1", "--public-url", url, "--base-url", sandbox.base_url, "--dev", "--deregister-on-exit")
    with running("listen", "--port", port, *flags, cwd=tmp_path) as listener:
        assert listener.ready.endswith("registered=a-1\n")
        sandbox.wait_delivered(sandbox.publish("a-1", BODY.replace(b"0000123456-00001", b"a-1")))
        assert json.loads(listener.read_line())["account"] == "a-1"
        assert registered(sandbox, "a-1") == url
        assert listener.stop() == 0
    assert registered(sandbox, "a-1") is None


def test_another_callback_is_replaced_only_if_that_is_asked_for(sandbox: Sandbox, tmp_path: Path) -> None:
    theirs, ours = "http://127.0.0.1:9/hunter2", "http://127.0.0.1:8/"
    register(sandbox, "a-2", theirs)
    flags = ("--register", "a-2", "--public-url", ours, "--base-url", sandbox.base_url, "--dev", "--port", "0")
    refused = fotahook("listen", *flags, "--deregister-on-exit", cwd=tmp_path)
    assert refused.returncode == 4
    assert "another callback, at 127.0.0.1:9, with another port and path; " in refused.stderr
    assert "hunter2" not in refused.stderr
    assert registered(sandbox, "a-2") == theirs
    with running("listen", *flags, "--replace", "--deregister-on-exit", cwd=tmp_path) as listener:
        assert registered(sandbox, "a-2") == ours
        register(sandbox, "a-2", theirs)
        assert listener.stop() == 0
    # It was no longer its own to deregister.
    assert registered(sandbox, "a-2") == theirs


async def test_watching_says_when_somebody_replaced_it(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    ours = "http://127.0.0.1:8/"
    async with client_of(sandbox) as client:
        registration = Registration(client, "a-3", ours, replace=False)
        await registration.begin()
        await registration.begin()
        async with registration.watched(interval=0.005):
            register(sandbox, "a-3", "http://127.0.0.1:9/hunter2")
            await said(caplog, "SOMEBODY REPLACED the callback of account a-3: its messages go to 127.0.0.1:9")
            deregister(sandbox, "a-3")
            await said(caplog, "SOMEBODY DEREGISTERED")
            register(sandbox, "a-3", ours)
            await said(caplog, "is this listener again")
    assert "hunter2" not in caplog.text


async def test_errors_of_watching_and_deregistering_are_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncClient(
        base_url="http://127.0.0.1:9",
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials("a-session"),
        max_retries=0,
        proxy="",
    ) as client:
        registration = Registration(client, "a-4", "http://127.0.0.1:8/", replace=False)
        async with registration.watched(interval=0.0):
            await said(caplog, "cannot check the callback of account a-4")
        await registration.end()
    assert "is still registered" in caplog.text


def client_of(sandbox: Sandbox) -> AsyncClient:
    return AsyncClient(
        base_url=sandbox.base_url,
        thingspace_oauth_credentials=ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=SessionCredentials("dev", "dev-password"),
        proxy="",
    )


def registered(sandbox: Sandbox, account: str) -> str | None:
    with sandbox.client() as client:
        summary = client.software_management_callbacks_v2.list_registered_callbacks(account).data
    return None if summary is None else summary.url


def register(sandbox: Sandbox, account: str, url: str) -> None:
    with sandbox.client() as client:
        body = FotaV2CallbackRegistrationRequest(url)
        client.software_management_callbacks_v2.register_callback(account, body)


def deregister(sandbox: Sandbox, account: str) -> None:
    with sandbox.client() as client:
        client.software_management_callbacks_v2.deregister_callback(account)


async def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Return when the log says so."""
    async with asyncio.timeout(DEADLINE):
        while text not in caplog.text:  # noqa: ASYNC110  # logging wakes nobody
            await asyncio.sleep(0.002)


def wait_until(true: Callable[[], bool]) -> None:
    """Return when something has become true."""
    until = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.002)


def public_key(file: Path) -> str:
    return format_public_key(signing_seed(parse_secret_key(file.read_text())))
