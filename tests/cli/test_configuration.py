"""Where the flags come from, and how --explain tells."""

from pathlib import Path

import pytest

from .conftest import Run, is_one_line


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
    assert found["--in-flight"] == ("8", "default")


def test_the_file_may_be_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("port = 1")
    monkeypatch.setenv("FOTAHOOK_CONFIG", "f.toml")
    assert explained(run("serve", "--explain").out)["--port"][0] == "1"


def test_what_the_environment_switches_on_the_command_line_can_switch_off(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOTAHOOK_PRINT", "true")
    assert explained(run("listen", "--explain").out)["--print"] == ("yes", "FOTAHOOK_PRINT")
    assert explained(run("listen", "--print=false", "--explain").out)["--print"] == ("no", "command line")


def test_secrets_are_not_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_SECRET", "whsec_first whsec_second")
    monkeypatch.setenv("FOTAHOOK_SECRET_KEY", "something")
    listen, serve = run("listen", "--explain"), run("serve", "--explain")
    assert explained(listen.out)["--secret"] == ("(hidden)", "FOTAHOOK_SECRET")
    assert explained(serve.out)["secret key"] == ("(hidden)", "FOTAHOOK_SECRET_KEY")
    assert "whsec_" not in listen.out
    assert "something" not in serve.out


def test_explaining_touches_nothing(run: Run, tmp_path: Path) -> None:
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
def test_a_file_that_cannot_be_meant_is_refused(run: Run, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "f.toml").write_text(content, "latin-1")
    said = run("serve", "--config", "f.toml", "--explain")
    assert said.code == 2
    assert is_one_line(said.err)
    assert complaint in said.err


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
    said = run("listen", "--config", path, "--explain")
    assert (said.code, said.err) == (2, f"fotahook: --config {path}: {complaint}\n")


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
    said = run(command, "--explain")
    assert (said.code, said.err) == (2, f"fotahook: {variable} is empty: give it a value, or unset it\n")


def test_a_variable_may_be_empty_where_the_command_line_goes_before_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOTAHOOK_SOURCE", "")
    found = explained(run("listen", "--source", "thingspace", "--explain").out)
    assert found["--source"] == ("thingspace", "command line")


@pytest.mark.parametrize("command", ["listen", "serve"])
def test_a_secret_key_that_is_empty_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("FOTAHOOK_SECRET_KEY", "")
    said = run(command, "--port", "0")
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("fotahook: FOTAHOOK_SECRET_KEY: ")


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
    said = run("listen", "--explain", "--print", *arguments)
    assert (said.code, said.err) == (2, f"fotahook: {name} is empty: give it a value, or leave it out\n")


def test_a_variable_that_cannot_be_meant_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_PORT", "x")
    said = run("serve", "--explain")
    assert said.code == 2
    assert "FOTAHOOK_PORT" in said.err
