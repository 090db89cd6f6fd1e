"""The settings of a listener: an invalid one is refused where it is given."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote

import msgspec

from fotahook.client import AsyncClient, Client
from fotahook.contract.addresses import parse_networks
from fotahook.contract.exchange import Masked
from fotahook.contract.keys import parse_secret_key
from fotahook.delivery import Deadline, Rules
from fotahook.store import sqlite_path
from fotahook.store.key_file import read_or_make_key

from . import validation
from .intake import DEDUPE_WINDOW, Verification

ReportClient: TypeAlias = Client | AsyncClient

HEALTH_PATH: Final = "/healthz"
ACCEPT_SECONDS: Final = 3.0
"""How long an inbox that is away is tried for: ThingSpace waits for an answer for about 4 s, and after a 503 it sends
a message once more at most (docs/thingspace.md, The sender)."""
SCHEDULE: Final = Rules().schedule
_SECRET_LENGTH: Final = 16


class ForwardSettings(Masked, frozen=True, kw_only=True):
    """How a listener's forwards are sent. ValueError for an invalid value, TypeError for one of the wrong type."""

    shown = ("timeout",)

    secret_key: str | None = None
    """The signing key is derived from it: URL-safe base64 of 32 bytes. None: a key file beside a SQLite inbox."""
    allow_networks: tuple[str, ...] = ()
    """Networks (CIDR) that are allowed for forwards although they are not globally reachable."""
    ca_file: Path | None = None
    """Certificate authorities (PEM) that are trusted besides the system's."""
    timeout: float = 15.0

    def __post_init__(self) -> None:
        networks = validation.texts("allow_networks", self.allow_networks)
        parse_networks(networks)
        # The given value may be an iterator, which is exhausted now.
        msgspec.structs.force_setattr(self, "allow_networks", networks)
        if self.secret_key is not None:
            parse_secret_key(validation.text("secret_key", self.secret_key))
        validation.seconds("timeout", self.timeout)

    def key(self, inbox: str) -> bytes:
        """The secret key for the forwards of an inbox. ValueError if there is neither a key nor a file for one."""
        if self.secret_key is not None:
            return parse_secret_key(self.secret_key)
        if not inbox.startswith("sqlite:"):
            raise ValueError(
                "forwards from an inbox on PostgreSQL need a secret key, the same in every process: "
                "set FOTAHOOK_SECRET_KEY or ForwardSettings(secret_key=…)"
            )
        return read_or_make_key(sqlite_path(inbox))


FORWARDING: Final = ForwardSettings()


class Settings(Masked, frozen=True, kw_only=True, dict=True):
    """What ``Listener`` takes, parsed. ValueError for an invalid value, TypeError for one of the wrong type."""

    inbox: str = "sqlite:///inbox.db"
    verification: Verification = Verification()
    path: str = "/"
    forwarding: ForwardSettings = FORWARDING
    handler_timeout: float = 30.0
    body_timeout: float = 30.0
    accept_timeout: float = ACCEPT_SECONDS
    schedule: Sequence[float] = SCHEDULE
    dedupe_window: float = DEDUPE_WINDOW
    keep_days: float = 30.0
    reconcile: ReportClient | None = None
    every: float = 3600.0
    alarm_url: str | None = None
    silence: float | None = None
    repair_limit: int | None = None
    certificate: Path | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not validation.text("inbox", self.inbox):
            raise ValueError("inbox is empty; give the URL of a store, such as sqlite:///inbox.db")
        check_path(self.path)
        for name in ("handler_timeout", "body_timeout", "accept_timeout", "every"):
            validation.seconds(name, getattr(self, name))
        given = validation.items("schedule", self.schedule)
        delays = [validation.number("each delay in schedule", delay) for delay in given]
        if not delays or not all(0 <= delay < float("inf") for delay in delays):
            raise ValueError("schedule must have at least one delay, each of 0 seconds or more")
        # The given value may be an iterator, which is exhausted now.
        msgspec.structs.force_setattr(self, "schedule", tuple(delays))
        validation.duration("dedupe_window", self.dedupe_window, "seconds")
        validation.duration("keep_days", self.keep_days, "days")
        validation.seconds("silence", 1.0 if self.silence is None else self.silence)
        validation.duration("repair_limit", self.repair_limit or 0, "repairs")

    @cached_property
    def decoded_path(self) -> str:
        return unquote(self.path).rstrip("/")

    @cached_property
    def body_deadline(self) -> Deadline:
        return Deadline(self.body_timeout)

    @cached_property
    def accept_deadline(self) -> Deadline:
        return Deadline(self.accept_timeout)


def check_path(path: str) -> None:
    """ValueError for a path at which messages cannot be received."""
    if not validation.text("path", path).startswith("/"):
        raise ValueError(f"a path must begin with /, unlike {path!r}")
    for character in path:
        if character in " ?#" or not character.isprintable():
            raise ValueError(f"a path must be written as in a URL: percent-encode {character!r} in {path!r}")
    if unquote(path).rstrip("/") == HEALTH_PATH:
        raise ValueError(f"the path {HEALTH_PATH} is reserved for health checks")


def is_secret_path(path: str) -> bool:
    """Whether a path is hard to guess, and so must not be shown."""
    # Decoded, because percent-encoding makes a short segment longer but not harder to guess.
    return any(len(segment) >= _SECRET_LENGTH for segment in unquote(path).split("/"))
