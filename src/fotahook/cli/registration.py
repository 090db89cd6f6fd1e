"""`fotahook listen --register`: a listener that makes itself an account's callback, and looks whether it still is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from fotahook.client import Client
from fotahook.contract.errors import FotahookError
from fotahook.contract.models import FotaV2CallbackRegistrationRequest

from .failures import REFUSED, Failure

log = logging.getLogger("fotahook.listener")

LOOK_SECONDS: Final = 180.0
"""Between two looks of --watch."""


class Refused(Failure):
    """Somebody else's registration is not replaced unasked."""

    code = REFUSED


class Registration:
    """One account's callback, as this listener wants it to be. Its calls block, so each is made in a thread."""

    def __init__(self, client: Client, account: str, url: str, *, replace: bool) -> None:
        self._calls = client.software_management_callbacks_v2
        self._account = account
        self._url = url
        self._replace = replace

    async def begin(self) -> None:
        """Register, unless that is done already. Refused where another URL stands and is not to be replaced."""
        await asyncio.to_thread(self._register)

    async def end(self) -> None:
        """Deregister, if it is still ours; what goes wrong is only told, since the listener ends all the same."""
        try:
            await asyncio.to_thread(self._deregister)
        except FotahookError as error:
            log.error("the callback of account %s is still registered: %s", self._account, error)

    @asynccontextmanager
    async def watched(self, pause: float = LOOK_SECONDS) -> AsyncIterator[None]:
        """Look every so often whether the registered URL is still ours, and say so when it is not."""
        watching = asyncio.create_task(self._watch(pause), name="registration")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    def _register(self) -> None:
        registered = self._look()
        if registered == self._url:
            return
        if registered is not None and not self._replace:
            raise Refused(
                f"account {self._account} has another callback, at {_place(registered)}; an account has only one: "
                "give --replace to take its place"
            )
        self._calls.register_callback(self._account, FotaV2CallbackRegistrationRequest(self._url))
        log.info("the callback of account %s leads here now", self._account)
        if registered is not None:
            log.warning("it led to %s before, which gets no more messages", _place(registered))

    def _deregister(self) -> None:
        if self._look() != self._url:
            log.warning("account %s is not deregistered: its callback is not this listener", self._account)
            return
        self._calls.deregister_callback(self._account)
        log.info("the callback of account %s is deregistered", self._account)

    async def _watch(self, pause: float) -> None:
        known: str | None = self._url
        while True:
            await asyncio.sleep(pause)
            try:
                found = await asyncio.to_thread(self._look)
            except FotahookError as error:
                log.warning("cannot look which callback account %s has: %s", self._account, error)
                continue
            if found != known:
                self._tell(found)
            known = found

    def _look(self) -> str | None:
        summary = self._calls.list_registered_callbacks(self._account).data
        return None if summary is None else summary.url

    def _tell(self, found: str | None) -> None:
        if found == self._url:
            log.warning("the callback of account %s leads here again", self._account)
        elif found is None:
            log.critical("SOMEBODY DEREGISTERED the callback of account %s: it gets no more messages", self._account)
        else:
            log.critical(
                "SOMEBODY REPLACED the callback of account %s: its messages go to %s, and not here",
                self._account,
                _place(found),
            )


def _place(url: str) -> str:
    """The host that a URL names; its path may be somebody's secret."""
    return urlsplit(url).netloc.rpartition("@")[2] or "an unknown place"
