"""What `fotahook doctor` is asked, and what it finds."""

from collections.abc import Callable
from typing import Literal

import msgspec
from yarl import URL

from fotahook.contract.error_answers import one_line
from fotahook.delivery.sender import SenderSettings

Result = Literal["pass", "warn", "fail"]
Clock = Callable[[], float]


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at; `fix` is what to do where it is not as it should be."""

    check: str
    result: Result
    found: str
    fix: str | None = None


def passed(check: str, found: str) -> Check:
    """As it should be."""
    return Check(check, "pass", one_line(found))


def warned(check: str, found: str, fix: str) -> Check:
    """Messages come through, but not with everybody or not for long."""
    return Check(check, "warn", one_line(found), fix)


def failed(check: str, found: str, fix: str) -> Check:
    """No message comes through."""
    return Check(check, "fail", one_line(found), fix)


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads, as the sender reads it."""

    url: str
    tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Place":
        """The place of a URL that may be registered."""
        parsed = URL(url)
        return cls(url, parsed.scheme == "https", (parsed.raw_host or "").rstrip("."), parsed.port or 0)


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be examined, and by which rules."""

    url: str
    run: str
    """In the id of every test message."""
    account: str
    secret: bytes | None = None
    """What test messages are signed with, beside the sender's own key."""
    allow_http: bool = False
    sender: SenderSettings
