"""Loads what an argument names as MODULE:NAME."""

import importlib
import os
import sys
import traceback
from typing import TypeVar

from . import BadOption, HostingError

T = TypeVar("T")


def load_object(place: str, kind: type[T]) -> T:
    """The object at MODULE:NAME, with the working directory first on the path. HostingError says what is wrong."""
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise BadOption(f"{place}: name the module and the {kind.__name__.lower()} in it as MODULE:NAME")
    found = getattr(_import(module_name), name, None)
    if not isinstance(found, kind):
        what = "has no such name" if found is None else f"holds something of type {type(found).__name__}"
        raise BadOption(f"{place}: the module {what} there; write {name} = fotahook.{kind.__name__}(…) in it")
    return found


def _import(name: str) -> object:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            where = location(error)
            raise HostingError(f"{name} needs the module {error.name}, which is not installed ({where})") from error
        raise BadOption(f"there is no module {name} in {os.getcwd()} or among the installed ones") from error
    except (Exception, SystemExit) as error:
        raise HostingError(f"{name} cannot be imported: {type(error).__name__}: {error} ({location(error)})") from error


def location(error: BaseException) -> str:
    """File and line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return f"{getattr(error, 'filename', None)}, line {getattr(error, 'lineno', None)}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}"
