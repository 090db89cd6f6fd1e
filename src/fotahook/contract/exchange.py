"""A request and its response, as callers, hooks and errors see them, with secrets masked."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import msgspec

T_co = TypeVar("T_co", covariant=True)
MASK = "***"


def require(name: str, value: object, kinds: Any, what: str = "a str") -> None:
    """TypeError for an argument of another type; True and False are no numbers."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")


class Hidden:
    """A value with secrets in private slots, where neither repr(), rich, vars() nor msgspec finds them."""

    __slots__: tuple[str, ...] = ()

    # Hidden from type checkers, which would otherwise accept any misspelt name.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> str | None:
            return object.__getattribute__(self, f"_{name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        shown = ((name.lstrip("_"), MASK if name[0] == "_" else getattr(self, name)) for name in self.__slots__)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown if value is not None)})"


class Secret(Hidden):
    """A text that travels unseen: whatever shows objects, such as a debugger or an error tracker, shows the mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return MASK


class Model(msgspec.Struct, frozen=True, rename="camel"):
    """A struct of an API, whose names in JSON are in camel case."""

    def to_dict(self) -> dict[str, Any]:
        """Its JSON object as a dict."""
        return dict(msgspec.to_builtins(self))

    def to_json(self) -> str:
        """Its JSON object as text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The model of a JSON object that was decoded; ValueError if a field is missing or of a wrong type."""
        return msgspec.convert(values, cls)


class Masked(msgspec.Struct, frozen=True):
    """A struct that shows the fields in `shown` only, to repr() and to rich."""

    shown: ClassVar[tuple[str, ...]] = ()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.shown]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Headers(Mapping[str, str]):
    """Headers, case-insensitive; the values of a repeated name are joined by a comma (RFC 9110, section 5.3)."""

    def __init__(self, pairs: Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._pairs = pairs

    @cached_property
    def _values(self) -> dict[str, str]:
        values: dict[str, str] = {}
        for pair in self._pairs:
            name, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in pair)
            name = name.lower()
            values[name] = f"{values[name]}, {value}" if name in values else value
        return values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values})"

    def __reduce__(self) -> tuple[type["Headers"], tuple[list[tuple[str, str]]]]:
        return Headers, (list(self.items()),)


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds in a `Retry-After` header, given as a number or as a date; None if it cannot be read."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # One date format has no zone; all of them mean UTC (RFC 9110, section 5.6.7).
        return max(date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None


class Request(msgspec.Struct, frozen=True):
    """A request as it was sent, with secrets, and the body of a login or token call, replaced by `***`."""

    method: str
    url: str
    headers: Headers
    body: bytes | None = None


class Reply(Masked, frozen=True):
    """Any HTTP response: the body as received, at most 1 MiB, or the open `stream` of a streamed one."""

    shown = ("status",)
    status: int
    reason: str
    headers: Headers
    body: bytes
    stream: object = None


class ApiResponse(msgspec.Struct, Generic[T_co], frozen=True):
    """The response to a call; `data` is its body as the call's model, `errors` what hooks get of an error response."""

    status_code: int
    reason_phrase: str
    headers: Headers
    raw_body: bytes
    request: Request
    data: T_co
    errors: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_error(self) -> bool:
        """Whether the status is not 2xx."""
        return not self.is_success

    def to_dict(self) -> dict[str, Any]:
        """Status, reason, headers and data, as what JSON has."""
        data, headers = msgspec.to_builtins(self.data), dict(self.headers)
        return {"status_code": self.status_code, "reason_phrase": self.reason_phrase, "headers": headers, "data": data}

    def to_json(self) -> str:
        """The same as text."""
        return msgspec.json.encode(self.to_dict()).decode()

    def __repr__(self) -> str:
        return f"<ApiResponse {self.status_code} {self.request.method} {self.request.url}>"
