"""How commands reach a service: its URL, and the credentials in the SDK's variables or those of --dev."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

from cyclopts import Parameter

from fotahook.client import AsyncClient, Client, OperatorClient
from fotahook.contract.auth import SessionCredentials, ThingspaceOauthCredentials
from fotahook.contract.servers import checked_base_url

from .arguments import warn_if_unknown
from .errors import UsageError
from .output import Json
from .stores import opened

if TYPE_CHECKING:
    from fotahook.listener.inbox_messages import InboxMessages

Messages: TypeAlias = "OperatorClient | InboxMessages"
C = TypeVar("C", Client, AsyncClient)

# What `fotahook serve --dev` provisions; importing them from the service room would load all of it.
_DEV_CLIENT: Final = ("dev", "dev-secret")
_DEV_USER: Final = ("dev", "dev-password")
_LOCAL: Final = ", or give --local for a service in --dev"


def _check_base_url(_: object, url: str) -> None:
    """A usage error for an invalid URL. It is not shown: it may carry a password."""
    try:
        checked_base_url(url)
    except ValueError as error:
        raise UsageError("--base-url" + str(error).removeprefix("base_url")) from error


BaseUrl: TypeAlias = Annotated[str, Parameter(validator=_check_base_url)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Remote:
    """Flags of every command that calls a service."""

    base_url: BaseUrl = "http://127.0.0.1:8080"
    "The service to call."
    local: Annotated[bool, Parameter(name=("--local", "--dev"))] = False
    "Use the credentials of a service in --dev instead of those in the environment."
    as_json: Json = False

    def client(self) -> Client:
        """The SDK for ThingSpace's calls. UsageError names a missing variable."""
        return self.client_of(Client)

    def operator(self, max_retries: int = 2) -> OperatorClient:
        """The SDK for fotahook's own calls. UsageError names a missing variable."""
        names = "THINGSPACE_OAUTH_OAUTH_CLIENT_ID", "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"
        client_id, secret = _DEV_CLIENT if self.local else (os.environ.get(name, "") for name in names)
        if not client_id or not secret:
            raise UsageError(f"no credentials: set {' and '.join(names)}{_LOCAL}")
        return OperatorClient(self.base_url, client_id, secret, max_retries=max_retries)

    def client_of(self, kind: type[C]) -> C:
        """The same, for threads or for an event loop."""
        if self.local:
            return kind(
                base_url=self.base_url,
                thingspace_oauth_credentials=ThingspaceOauthCredentials(*_DEV_CLIENT),
                vz_m2m_token_credentials=SessionCredentials(*_DEV_USER),
            )
        try:
            return kind.from_environment(base_url=self.base_url)
        except ValueError as error:
            raise UsageError(f"{error}{_LOCAL if 'no credentials' in str(error) else ''}") from error


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Source(Remote):
    """Flags of the commands about stored messages: those of a service, or of a listener."""

    inbox: str | None = None
    "A listener's inbox, such as sqlite:///inbox.db, instead of a service; the listener may be running."

    @contextmanager
    def open(self) -> Iterator[Messages]:
        """Access to the messages. UsageError if there is no such inbox, or no credentials for a service."""
        if self.inbox is None:
            with self.operator() as client:
                yield client
            return
        # Commands about a service do not wait for stores to load.
        from fotahook.listener.inbox_messages import InboxMessages

        with opened("--inbox", self.inbox) as (store, runner):
            yield InboxMessages(store, runner)


def warn_if_unused(client: Messages, account: str) -> None:
    """After an empty result: say on stderr if the service never heard of the account."""
    if isinstance(client, OperatorClient):
        warn_if_unknown(client.account(account))


DEFAULTS: Final = Remote()
SERVICE: Final = Source()
