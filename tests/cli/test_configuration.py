"""Where the flags come from, and how --explain tells."""

import re
from pathlib import Path

import pytest

from .conftest import Run, is_one_line
from .processes import running


def explained(out: str) -> dict[str, tuple[str, str]]:
    """Flag to value and source."""
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    return {flag: (value, source) for flag, value, source in rows}


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "fotahook.toml"
    file.write_text('host = "::1"\nport = 1\nlease = 40\nallow-network = ["10.0.0.0/8", "192.168.0.0/16"]\n')
    monkeypatch.setenv("FOTAHOOK_PORT", "2")
    monkeypatch.setenv("FOTAHOOK_LEASE", "50")
    found = explained(run("serve", "--config", str(file), "--lease", "60", "--explain").out)
    assert found["--host"] == ("::1", str(file))
    assert found["--port"] == ("2", "FOTAHOOK_PORT")
    assert found["--lease"] == ("60.0", "command line")
    assert found["--allow-network"] == ("10.0.0.0/8 192.168.0.0/16", str(file))
    assert found["--in-flight"] == ("64", "default")


def test_the_file_may_be_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("port = 1")
    monkeypatch.setenv("FOTAHOOK_CONFIG", "f.toml")
    assert explained(run("serve", "--explain").out)["--port"][0] == "1"


def test_the_command_line_can_unset_a_boolean_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_PRINT", "true")
    assert explained(run("listen", "--explain").out)["--print"] == ("yes", "FOTAHOOK_PRINT")
    assert explained(run("listen", "--print=false", "--explain").out)["--print"] == ("no", "command line")


def test_secrets_come_from_files_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").write_text("whsec_first\n\n whsec_second \n")
    (tmp_path / "basic").write_text("user:pass word\n")
    (tmp_path / "listen.toml").write_text('basic-file = "basic"\n')
    monkeypatch.setenv("FOTAHOOK_SECRET_FILE", "secrets")
    result = run("listen", "--config", "listen.toml", "--explain")
    assert "whsec_" not in result.out
    assert "pass word" not in result.out
    found = explained(result.out)
    assert found["--secret"] == ("(hidden)", "secrets")
    assert found["--secret-file"] == ("secrets", "FOTAHOOK_SECRET_FILE")
    assert found["--basic"] == ("(hidden)", "basic")
    # They are used: the first of them is no secret.
    refused = run("listen", "--config", "listen.toml")
    assert refused.code == 2
    assert "--secret (number 1 of 2)" in refused.err


@pytest.mark.parametrize(
    ("command", "content", "code", "complaint"),
    [
        (("listen", "--explain"), "\n \n", 2, "is empty: write one value on each line"),
        (("listen", "--explain"), None, 1, "secrets: No such file"),
        (("doctor", "https://127.0.0.1:9/"), "whsec_a\nwhsec_b\n", 2, "--secret takes one value, and there are more"),
    ],
)
def test_an_unusable_file_of_secrets_is_refused(
    run: Run, tmp_path: Path, command: tuple[str, ...], content: str | None, code: int, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "secrets").write_text(content)
    result = run(*command, "--secret-file", "secrets")
    assert (result.code, result.out) == (code, "")
    assert is_one_line(result.err)
    assert complaint in result.err
    assert "whsec_" not in result.err


def test_explain_hides_the_secret_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_SECRET", "whsec_first whsec_second")
    monkeypatch.setenv("FOTAHOOK_SECRET_KEY", "something")
    listen, serve = run("listen", "--explain"), run("serve", "--explain")
    assert explained(listen.out)["--secret"] == ("(hidden)", "FOTAHOOK_SECRET")
    assert explained(serve.out)["secret key"] == ("(hidden)", "FOTAHOOK_SECRET_KEY")
    assert "whsec_" not in listen.out
    assert "something" not in serve.out


def test_explain_creates_nothing(run: Run, tmp_path: Path) -> None:
    assert run("serve", "--explain").code == run("listen", "--explain").code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("prot = 1", "prot"),
        ('port = "x"', "port"),
        ("port = 1\nhost = x", "--config f.toml is not TOML: Invalid value (at line 2, column 8)"),
        ("host = '\xff'", "--config f.toml is not TOML: "),
        ("[serve]\nport = 1", "serve"),
        ("store = ''", "f.toml: store is empty"),
        ("allow-network = []", "f.toml: allow-network is empty"),
    ],
)
def test_an_invalid_file_is_refused(run: Run, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "f.toml").write_text(content, "latin-1")
    result = run("serve", "--config", "f.toml", "--explain")
    assert result.code == 2
    assert is_one_line(result.err)
    assert complaint in result.err


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("absent.toml", "no such file or directory"),
        (".", "is a directory"),
        ("f.toml/more", "not a directory"),
        # As one that may not be read, which root may.
        ("loop", "too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(run: Run, tmp_path: Path, path: str, complaint: str) -> None:
    (tmp_path / "f.toml").touch()
    (tmp_path / "loop").symlink_to("loop")
    result = run("listen", "--config", path, "--explain")
    assert (result.code, result.err) == (2, f"fotahook: --config {path}: {complaint}\n")


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *(
            ("listen", flag)
            for flag in ("secret", "public-key", "source", "trusted-proxy", "basic", "inbox", "path", "config", "print")
        ),
        *(("serve", flag) for flag in ("store", "allow-network", "host", "schedule")),
    ],
)
@pytest.mark.parametrize("value", ["", " "])
def test_a_variable_that_is_empty_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, flag: str, value: str
) -> None:
    """It was to ask a proof of senders, say, and what was to fill it failed."""
    variable = f"FOTAHOOK_{flag.replace('-', '_').upper()}"
    monkeypatch.setenv(variable, value)
    result = run(command, "--explain")
    assert (result.code, result.err) == (2, f"fotahook: {variable} is empty: give it a value, or unset it\n")


def test_a_variable_may_be_empty_if_the_command_line_overrides_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_SOURCE", "")
    found = explained(run("listen", "--source", "thingspace", "--explain").out)
    assert found["--source"] == ("thingspace", "command line")


@pytest.mark.parametrize("command", ["listen", "serve"])
def test_a_secret_key_that_is_empty_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("FOTAHOOK_SECRET_KEY", "")
    result = run(command, "--port", "0")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("fotahook: FOTAHOOK_SECRET_KEY: ")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--secret", ""), "--secret"),
        (("--source", "thingspace", "--source", ""), "--source"),
        (("--inbox", ""), "--inbox"),
        (("",), "MODULE"),
    ],
)
def test_a_flag_that_is_empty_is_refused(run: Run, arguments: tuple[str, ...], name: str) -> None:
    result = run("listen", "--explain", "--print", *arguments)
    assert (result.code, result.err) == (2, f"fotahook: {name} is empty: give it a value, or leave it out\n")


def test_an_invalid_variable_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_PORT", "x")
    result = run("serve", "--explain")
    assert result.code == 2
    assert "FOTAHOOK_PORT" in result.err


# Lists


@pytest.mark.parametrize(
    "arguments",
    [
        ("--schedule", "0,5,300"),
        ("--schedule", "0", "5", "300"),
        ("--schedule", "0", "--schedule", "5", "--schedule", "300"),
        ("--schedule", "0, 5", "300"),
        ("--schedule=0,5,300",),
    ],
    ids=" ".join,
)
def test_a_list_takes_commas_spaces_and_the_repeated_flag(run: Run, arguments: tuple[str, ...]) -> None:
    found = explained(run("serve", *arguments, "--port", "1", "--explain").out)
    assert found["--schedule"] == ("0.0 5.0 300.0", "command line")
    assert found["--port"][0] == "1"


@pytest.mark.parametrize("value", ["0,5,300", "0 5 300"])
def test_a_list_takes_commas_and_spaces_in_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FOTAHOOK_SCHEDULE", value)
    assert explained(run("serve", "--explain").out)["--schedule"] == ("0.0 5.0 300.0", "FOTAHOOK_SCHEDULE")


@pytest.mark.parametrize("content", ["schedule = [0, 5, 300]", 'schedule = "0,5,300"'])
def test_a_list_in_a_file_is_an_array_or_has_commas(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "f.toml").write_text(content)
    assert explained(run("serve", "--config", "f.toml", "--explain").out)["--schedule"][0] == "0.0 5.0 300.0"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--schedule", "0,,5"), "--schedule: an item of the list is empty"),
        (("--schedule", "0,x"), "--schedule"),
        (("--schedule", "0,-1"), "--schedule. Must be >= 0"),
        (("--schedule",), "--schedule"),
    ],
)
def test_an_invalid_list_is_refused(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    result = run("serve", "--explain", *arguments)
    assert result.code == 2
    assert is_one_line(result.err)
    assert complaint in result.err


@pytest.mark.parametrize("flags", [("--source", "10.0.0.0/8", "thingspace"), ("--secret", "whsec_a,whsec_b")])
def test_a_module_behind_a_list_is_no_item_of_it(run: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = explained(run("listen", *flags, "handlers:app", "--explain").out)
    assert "handlers:app" not in found[flags[0]][0]
    (tmp_path / "handlers.py").write_text("app = 7")
    assert "holds something of type int" in run("listen", "--source", "thingspace", "handlers:app").err


def test_urls_are_not_split_at_commas(run: Run) -> None:
    found = explained(run("listen", "--forward-to", "https://a.example/?x=1,2", "https://b.example/", "--explain").out)
    assert found["--forward-to"][0] == "https://a.example/?x=1,2 https://b.example/"


# Help


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("serve", ("Network", "Store", "Delivery", "Limits", "Logging")),
        ("listen", ("Network", "Inbox", "Verification", "Forwards", "Registration", "Limits", "Logging")),
    ],
)
def test_help_shows_the_flags_in_groups(run: Run, command: str, groups: tuple[str, ...]) -> None:
    shown = run(command, "--help").out
    places = [shown.index(f"╭─ {group} ─") for group in groups]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("log_format", "line"), [("text", "WARNING  fotahook.listener: senders are not"), ("json", '{"level": "warning"')]
)
def test_the_log_format_may_be_chosen(tmp_path: Path, log_format: str, line: str) -> None:
    with running("listen", "--port", "0", "--log-format", log_format, cwd=tmp_path) as listener:
        # The log is written by a thread, which is done when the process ends.
        assert listener.stop() == 0
        assert line in listener.log.read_text()


def test_explain_hides_passwords_in_every_form(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_EGRESS_PROXY", "u:SEC@RET@h:1")
    store = "postgresql://u:SEC/RET@h/db?sslpassword=SECRET&Password=SECRET"
    found = explained(run("serve", "--store", store, "--explain").out)
    assert found["--egress-proxy"] == ("***@h:1", "FOTAHOOK_EGRESS_PROXY")
    assert found["--store"][0] == "postgresql://***@h/db?sslpassword=***&Password=***"


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--egress-proxy", "u:SEC/RET@h:1", "proxy must be an http:// URL"),
        ("--store", "host=h Password=SECRET", "host=h Password=***"),
        ("--store", "postgresql://u:SEC@RET@127.0.0.1:1/db", "(an @ as %40)"),
    ],
)
def test_a_refused_setting_is_told_at_once_without_its_password(run: Run, flag: str, value: str, told: str) -> None:
    refused = run("serve", "--port", "0", flag, value)
    assert refused.code == 2
    assert is_one_line(refused.err)
    assert told in refused.err
    assert not re.search("SEC|RET", refused.err)


@pytest.mark.parametrize(
    "command",
    [
        ("listen", "--forward-to", "https://u:SECRET@h/"),
        ("listen", "--alarm-url", "https://u:SECRET@h/"),
        ("doctor", "https://u:SECRET@127.0.0.1/"),
        ("doctor", "--json", "https://u:SECRET@127.0.0.1/"),
        ("simulate", "0000123456-00001", "--to", "https://u:SECRET@127.0.0.1/"),
    ],
)
def test_a_refused_url_is_told_without_its_password(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.code != 0
    assert "***@" in result.out + result.err
    assert "SECRET" not in result.out + result.err
