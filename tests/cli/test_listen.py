"""`fotahook listen` as a process: printing, handlers from a module, and modules that hold none."""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import urllib3

from fotahook.contract.keys import signing_seed
from fotahook.contract.signing import format_public_key, headers, sign_ed25519
from fotahook.testing import make_certificates

from .conftest import Run, is_one_line
from .processes import running

BODY = b'{"accountName": "0000123456-00001", "type": "upgradeProgress", "password": "hush"}'


def post(url: str, given: Mapping[str, str] | None = None, ca_file: Path | None = None) -> int:
    with urllib3.PoolManager(ca_certs=None if ca_file is None else str(ca_file)) as http:
        return http.request("POST", url, body=BODY, headers=given, retries=False).status


def test_without_a_module_it_prints_a_line_for_each_message(tmp_path: Path) -> None:
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        assert listener.ready.endswith("/ inbox=sqlite:///inbox.db\n")
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


def test_flags_go_before_what_the_module_says(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "from fotahook import Listener\napp = Listener(path='/fota')\n@app.on_any\ndef handle(message): pass\n"
    )
    flags = ("--path", "/here", "--inbox", "sqlite:///there.db", "--print")
    with running("listen", "handlers:app", "--port", "0", *flags, cwd=tmp_path) as listener:
        assert listener.ready.endswith("/here inbox=sqlite:///there.db\n")
        assert post(listener.url) == 200
        assert json.loads(listener.read_line())["type"] == "upgradeProgress"


def test_with_a_public_key_only_what_it_signed_is_taken_over_tls(tmp_path: Path) -> None:
    made, seed = make_certificates(tmp_path, "127.0.0.1"), signing_seed(bytes(32))
    flags = ("--tls-cert", str(made.cert_file), "--tls-key", str(made.key_file))
    keys = ("--public-key", format_public_key(seed))
    with running("listen", "--port", "0", *flags, *keys, cwd=tmp_path) as listener:
        assert listener.url.startswith("https://")
        assert post(listener.url, ca_file=made.ca_file) == 401
        now = int(time.time())
        signed = headers("m1", now, [sign_ed25519(seed, "m1", now, BODY)])
        assert post(listener.url, signed, made.ca_file) == 200
        assert json.loads(listener.read_line())["type"] == "upgradeProgress"


def test_it_ends_when_nobody_reads_any_more_what_it_prints(tmp_path: Path) -> None:
    with running("listen", "--port", "0", cwd=tmp_path) as listener:
        assert listener.process.stdout is not None
        listener.process.stdout.close()
        assert post(listener.url) == 200
        assert listener.process.wait(30) == 0


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
def test_a_module_without_a_listener_is_told(
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
        (("--secret", "whsec_short"), 2, "--secret"),
        (("--public-key", "x"), 2, "--public-key"),
        (("--path", "here"), 2, "--path here"),
        (("--inbox", "mysql://x"), 2, "sqlite:///"),
        (("--inbox", "sqlite:///no/such/folder.db"), 1, "folder.db"),
        (("--forward-to", "http://127.0.0.1/"), 2, "--forward-to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_told(run: Run, flags: tuple[str, ...], code: int, complaint: str) -> None:
    said = run("listen", "--port", "0", *flags)
    assert said.code == code
    assert complaint in said.err
    assert "Traceback" not in said.err
    assert "whsec_short" not in said.err
