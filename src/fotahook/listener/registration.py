"""Makes a listener an account's callback, watches that it stays that, and knows the paths of URLs that it replaced.

ThingSpace goes on sending to a URL that was replaced for a while (docs/thingspace.md, Messages). The inbox keeps when
that was, so that a listener that is restarted still accepts its path.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Final
from urllib.parse import unquote, urlsplit

from fotahook.client import AsyncClient
from fotahook.contract.addresses import same_url, url_parts
from fotahook.contract.calls import DEREGISTERED
from fotahook.contract.errors import FotahookError, FotaV2ResultException, ResponseError
from fotahook.store import Store

log = logging.getLogger("fotahook.listener")

WATCH_SECONDS: Final = 180.0
END_SECONDS: Final = 5.0
"""Timeout of deregistering: the process is killed soon, and handlers in progress need time too."""
OVERLAP_SECONDS: Final = 20 * 60.0
"""How long messages are accepted at the path of a URL that was replaced."""


class RegistrationRefused(FotahookError):
    """The account has another callback, or the service refuses the URL."""


class Registration:
    def __init__(self, client: AsyncClient, account: str, url: str, *, replace: bool) -> None:
        self._client, self._calls = client, client.software_management_callbacks_v2
        self._account, self.url, self._replace = account, url, replace
        self.on_change: Callable[[bool], None] = lambda replaced: None
        """Gets whether somebody replaced or removed the callback, each time it is checked."""
        self.found: str | None = None

    async def check(self) -> str | None:
        """The URL that is registered now. RegistrationRefused if it is another one and may not be replaced."""
        registered = self.found = await self._registered()
        if registered is not None and not self._replace and not same_url(registered, self.url):
            raise RegistrationRefused(
                f"account {self._account} has another callback, at {self._describe(registered)}; "
                "an account has only one: give --replace to take its place"
            )
        return registered

    async def begin(self) -> None:
        """Register, unless that is done already. RegistrationRefused as by `check`, or if the URL is refused."""
        registered = await self.check()
        if same_url(registered, self.url):
            return
        try:
            await self._client.move_callback(self._account, self.url)
        except FotaV2ResultException as error:
            raise RegistrationRefused(f"--public-url is not registered for account {self._account}: {error}") from error
        except ResponseError as error:
            # It may be registered, so messages may come: better to receive them than to stop.
            self._log(logging.ERROR, "is in doubt: %s", error)
            return
        except asyncio.CancelledError:
            self._log(logging.ERROR, "may be registered, without a listener: it was stopped before the response")
            raise
        self._log(logging.INFO, "is now this listener")
        if registered is not None:
            log.warning("it was %s before, which may get messages for another 20 minutes", self._describe(registered))

    async def end(self, within: float = END_SECONDS) -> None:
        """Deregister, if it is still ours. Errors are only logged, since the listener ends anyway."""
        try:
            async with asyncio.timeout(within):
                if same_url(await self._registered(), self.url):
                    await self._calls.deregister_callback(self._account)
                    self._log(logging.WARNING, "is deregistered: %s", DEREGISTERED)
                else:
                    log.warning("account %s is not deregistered: its callback is not this listener", self._account)
        except FotahookError as error:
            self._log(logging.ERROR, "is still registered: %s", error)
        except TimeoutError:
            self._log(logging.ERROR, "may still be registered: the service did not respond within %g s", within)
        except asyncio.CancelledError:
            self._log(logging.ERROR, "may still be registered: there was no time to wait")
            raise

    @asynccontextmanager
    async def watched(self, interval: float = WATCH_SECONDS) -> AsyncIterator[None]:
        """Check regularly that the registered URL is still ours, and log when it is not."""
        watching = asyncio.create_task(self._watch(interval), name="registration")
        try:
            yield
        finally:
            watching.cancel()
            # With gather, a cancellation of this task is not taken for the watcher's.
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, interval: float) -> None:
        known: str | None = self.url
        while True:
            await asyncio.sleep(interval)
            try:
                found = await self._registered()
                # In any spelling.
                found = self.url if same_url(found, self.url) else found
                if found == known:
                    pass
                elif found == self.url:
                    self._log(logging.WARNING, "is this listener again")
                elif found is None:
                    text = "SOMEBODY DEREGISTERED the callback of account %s: it gets no more messages"
                    log.critical(text, self._account)
                else:
                    text = "SOMEBODY REPLACED the callback of account %s: its messages go to %s, and not here"
                    log.critical(text, self._account, self._describe(found))
                known = found
                self.on_change(found != self.url)
            except FotahookError as error:
                log.warning("cannot check the callback of account %s: %s", self._account, error)
            except Exception:
                # A bug of ours must not end the watch.
                log.exception("cannot check the callback of account %s", self._account)

    async def _registered(self) -> str | None:
        summary = (await self._calls.list_registered_callbacks(self._account)).data
        return None if summary is None else summary.url

    def _log(self, level: int, event: str, *values: object) -> None:
        log.log(level, f"the callback of account %s {event}", self._account, *values)

    def _describe(self, url: str) -> str:
        """The host of another URL and the parts that differ from ours, without their values: a path may be secret."""
        theirs, ours = url_parts(url), url_parts(self.url)
        authority = theirs.get("host") and urlsplit(url).netloc.rpartition("@")[2]
        if not authority:
            return "an unknown place"
        if theirs["host"] != ours["host"]:
            return authority
        differing = " and ".join(name for name, part in ours.items() if theirs[name] != part)
        return f"{authority}, with another {differing}"


async def former_paths(
    store: Store, account: str, previous: str | None, url: str, overlap: float
) -> Mapping[str, float]:
    """Note that `url` replaces `previous`; the paths of what was replaced, with the end of `overlap` seconds of each.

    Only of URLs with the same host: others never led here, and whoever registered one must not open a path.
    """
    if previous is not None and not same_url(previous, url):
        for each in (previous, url):
            await store.register(account, each, actor="listener")
    ends: dict[str, float] = {}
    for newer, older in pairwise(await store.callback_history(account, 50)):
        parts = url_parts(older.url or "")
        if parts and parts["host"] == url_parts(url).get("host"):
            path = unquote(str(parts["path"])).rstrip("/")
            ends[path] = max(newer.at.timestamp() + overlap, ends.get(path, 0.0))
    return ends
