"""Where the flags of `serve` and `listen` come from: the command line, then FOTAHOOK_…, then the file of --config."""

import dataclasses
import os
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict, Env

from fotahook.contract.urls import without_password

from .errors import UsageError

PREFIX: Final = "FOTAHOOK_"

_origins: ContextVar[Mapping[str, str]] = ContextVar("fotahook_cli_origins")


def _read_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in from the file that --config names."""
    for argument in arguments:
        if argument.name != "--config" or not argument.tokens:
            continue
        path = Path(argument.tokens[0].value)
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise UsageError(f"--config {path}: {(error.strerror or str(error)).lower()}") from error
        except ValueError as error:
            raise UsageError(f"--config {path} is not TOML: {error}") from error
        # cyclopts ignores keys named like a command.
        if tables := [key for key, value in values.items() if isinstance(value, dict)]:
            raise UsageError(f"--config {path}: no tables such as [{tables[0]}]; the flags are keys of the file itself")
        Dict(values, use_commands_as_keys=False, source=str(path.absolute()))(app, commands, arguments)


def read_secret_files(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add to --secret and --basic what the files of --secret-file and --basic-file say: one value a line.

    The arguments of a process are visible to every user of the machine.
    """
    for argument in arguments:
        if argument.name not in ("--secret-file", "--basic-file") or not argument.tokens:
            continue
        path, flag = Path(argument.tokens[0].value), argument.name.removesuffix("-file")
        values = list(filter(None, map(str.strip, path.read_text("utf-8", errors="replace").splitlines())))
        if not values:
            raise UsageError(f"{argument.name} {path} is empty: write one value on each line")
        target = arguments[flag]
        _, takes_many = target.token_count()
        for value in values:
            if target.tokens and not takes_many:
                raise UsageError(f"{argument.name} {path}: {flag} takes one value, and there are more")
            target.append(Token(keyword=argument.name, value=value, source=str(path), index=len(target.tokens)))


def _refuse_empty(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """A usage error for an empty value: what was to fill it has failed.

    An empty list would pass for one that is not given, and a listener without keys and networks trusts anybody.
    """
    for argument in arguments:
        variable = PREFIX + argument.name.lstrip("-").replace("-", "_").upper()
        on_command_line = any(token.source == "cli" for token in argument.tokens)
        if not on_command_line and not os.environ.get(variable, variable).strip():
            raise UsageError(f"{variable} is empty: give it a value, or unset it")
        for token in argument.tokens:
            # A boolean flag has no text.
            if not token.value and not isinstance(token.implicit_value, bool):
                in_file = f"--config {token.source}: {argument.name.lstrip('-')}"
                place = argument.name if on_command_line else in_file
                raise UsageError(f"{place} is empty: give it a value, or leave it out")


def _remember_origins(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Keep, for --explain, where each flag came from."""
    _origins.set({argument.name: _origin(argument.tokens[0]) for argument in arguments if argument.tokens})


def _origin(token: Token) -> str:
    return {"cli": "command line", "env": token.keyword or "env"}.get(token.source, token.source)


SOURCES: Final = (
    Env(PREFIX, command=False),
    _refuse_empty,
    _read_file,
    _refuse_empty,
    read_secret_files,
    _remember_origins,
)
"""For cyclopts: the first source with a value for a flag wins. --config itself may come from the environment."""


def explanation(options: Any, *, omitted: Iterable[str] = (), masked: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """A row for each field of a command's options: flag, value, origin."""
    origins, rows = _origins.get({}), []
    for field in dataclasses.fields(options):
        if field.name not in omitted:
            flag, value = "--" + field.name.replace("_", "-"), getattr(options, field.name)
            text = "(hidden)" if value and field.name in masked else _text(value)
            rows.append((flag, text, origins.get(flag, "default")))
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
