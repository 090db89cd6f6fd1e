"""Where the flags of `serve` and `listen` come from: the command line, then FOTAHOOK_…, then the file of --config."""

import dataclasses
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Env, Toml

from fotahook.contract.urls import without_password

from .failures import UsageError

PREFIX: Final = "FOTAHOOK_"

_origins: ContextVar[Mapping[str, str]] = ContextVar("fotahook_cli_origins")


def _file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in from the file that --config names."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            path = Path(argument.tokens[0].value)
            if not path.is_file():
                raise UsageError(f"--config {path}: there is no such file")
            source = Toml(path, use_commands_as_keys=False)
            for key, value in source.config.items():
                # Those named like a command would be passed over in silence.
                if isinstance(value, dict):
                    raise UsageError(
                        f"--config {path}: no tables such as [{key}]; the flags are keys of the file itself"
                    )
            source(app, commands, arguments)


def _remember_origins(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Keep, for --explain, where each flag that was given came from."""
    _origins.set({argument.name: _origin(argument.tokens[0]) for argument in arguments if argument.tokens})


def _origin(token: Token) -> str:
    match token.source:
        case "cli":
            return "command line"
        case "env":
            return token.keyword or token.source
    return token.source


SOURCES: Final = (Env(PREFIX, command=False), _file, _remember_origins)
"""For cyclopts: the first that has a value for a flag decides."""


def explanation(options: Any, *, omitted: Iterable[str] = (), masked: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """A row for each field of a command's options: flag, value, where it came from."""
    origins = _origins.get({})
    rows = []
    for field in dataclasses.fields(options):
        if field.name in omitted:
            continue
        flag = "--" + field.name.replace("_", "-")
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            # Its fields are flags of the same command.
            rows += explanation(value)
            continue
        origin = origins.get(flag, "default")
        rows.append((flag, "(hidden)" if value and field.name in masked else _text(value), origin))
    return rows


def _text(value: object) -> str:
    match value:
        case None | ():
            return ""
        case bool():
            return "yes" if value else "no"
        case tuple():
            return " ".join(map(str, value))
    return without_password(str(value))
