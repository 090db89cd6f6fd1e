"""One request and its reply, as callers, hooks and errors see them. Secrets are masked before they come here."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

T_co = TypeVar("T_co", covariant=True)

MASK = "***"


class Headers(Mapping[str, str]):
    """Headers by name in any case; the values of a repeated name are joined by a comma (RFC 9110, section 5.3).

    Made of pairs that can be gone through again; bytes are read as Latin-1. They are sorted in when first asked for:
    most calls never look.
    """

    __slots__ = ("_pairs", "_read")

    def __init__(self, pairs: Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._pairs = pairs
        self._read: dict[str, str] | None = None

    def _values(self) -> dict[str, str]:
        if self._read is None:
            values: dict[str, str] = {}
            for pair in self._pairs:
                name, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in pair)
                name = name.lower()
                values[name] = f"{values[name]}, {value}" if name in values else value
            self._read = values
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._values()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return f"Headers({self._values()})"

    def __reduce__(self) -> tuple[type["Headers"], tuple[list[tuple[str, str]]]]:
        return Headers, (list(self.items()),)


class Request(msgspec.Struct, frozen=True):
    """A request as it was sent, but for its secrets: each of those reads `***`.

    `body` is None where none is sent; that of a login or a token call is masked whole.
    """

    method: str
    url: str
    headers: Headers
    body: bytes | None = None


class Reply(msgspec.Struct, frozen=True):
    """What came back over the wire, whatever it is: the body as received, at most 1 MiB.

    `stream` is the body of an answer that goes on, which was not read.
    """

    status: int
    reason: str
    headers: Headers
    body: bytes
    stream: object = None


class ApiResponse(msgspec.Struct, Generic[T_co], frozen=True):
    """What a call returns: the answer's parts, and in `data` the body as the call's model.

    `errors` is empty on success. A hook is also shown error answers; there it holds one line saying what was wrong.
    """

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
        """Whether the status is anything else than 2xx."""
        return not self.is_success

    def __repr__(self) -> str:
        return f"<ApiResponse {self.status_code} {self.request.method} {self.request.url}>"
