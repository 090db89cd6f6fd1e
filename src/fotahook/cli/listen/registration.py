"""`fotahook listen --register`: a listener that makes itself an account's callback, and looks whether it still is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fotahook.client import AsyncClient
from fotahook.contract.errors import FotahookError, FotaV2ResultException
from fotahook.contract.models import FotaV2CallbackRegistrationRequest

from ..shared.errors import REFUSED, Failure

log = logging.getLogger("fotahook.listener")

LOOK_SECONDS: Final = 180.0
"""Between two looks of --watch."""

END_SECONDS: Final = 5.0
"""For deregistering: whoever stops the process kills it soon, and handlers in hand need their time too."""

_PORTS: Final = {"https": 443, "http": 80}


class Refused(Failure):
    """Somebody else's registration is not replaced unasked, or the service does not take ours."""

    code = REFUSED


class Registration:
    """One account's callback, as this listener wants it to be."""

    def __init__(self, client: AsyncClient, account: str, url: str, *, replace: bool) -> None:
        self._calls = client.software_management_callbacks_v2
        self._account = account
        self.url = url
        self._replace = replace

    async def ask(self) -> str | None:
        """The URL that is registered now. Refused where it is another one and is not to be replaced."""
        registered = await self._look()
        if registered is not None and not self._replace and not self._is_ours(registered):
            raise Refused(
                f"account {self._account} has another callback, at {self._place(registered)}; "
                "an account has only one: give --replace to take its place"
            )
        return registered

    async def begin(self) -> None:
        """Register, unless that is done already. Refused as by `ask`, and where the service does not take the URL."""
        registered = await self.ask()
        if self._is_ours(registered):
            return
        try:
            await self._calls.register_callback(self._account, FotaV2CallbackRegistrationRequest(self.url))
        except FotaV2ResultException as error:
            raise Refused(f"--public-url is not registered for account {self._account}: {error}") from error
        except asyncio.CancelledError:
            log.error(
                "the callback of account %s may be registered, with nobody there: it was stopped before the answer",
                self._account,
            )
            raise
        log.info("the callback of account %s leads here now", self._account)
        if registered is not None:
            log.warning("it led to %s before, which gets no more messages", self._place(registered))

    async def end(self, within: float = END_SECONDS) -> None:
        """Deregister, if it is still ours; what goes wrong is only told, since the listener ends all the same."""
        try:
            async with asyncio.timeout(within):
                await self._deregister()
        except FotahookError as error:
            log.error("the callback of account %s is still registered: %s", self._account, error)
        except TimeoutError:
            log.error(
                "the callback of account %s may still be registered: the service did not answer within %g s",
                self._account,
                within,
            )
        except asyncio.CancelledError:
            log.error("the callback of account %s may still be registered: there was no time to wait", self._account)
            raise

    @asynccontextmanager
    async def watched(self, pause: float = LOOK_SECONDS) -> AsyncIterator[None]:
        """Look every so often whether the registered URL is still ours, and say so when it is not."""
        watching = asyncio.create_task(self._watch(pause), name="registration")
        try:
            yield
        finally:
            watching.cancel()
            # Its cancellation, not ours: that may come while it is waited for.
            await asyncio.gather(watching, return_exceptions=True)

    async def _deregister(self) -> None:
        if not self._is_ours(await self._look()):
            log.warning("account %s is not deregistered: its callback is not this listener", self._account)
            return
        await self._calls.deregister_callback(self._account)
        log.info("the callback of account %s is deregistered", self._account)

    async def _watch(self, pause: float) -> None:
        known: str | None = self.url
        while True:
            await asyncio.sleep(pause)
            try:
                found = await self._look()
                # However it is spelt.
                found = self.url if self._is_ours(found) else found
                if found != known:
                    self._tell(found)
                known = found
            except FotahookError as error:
                log.warning("cannot look which callback account %s has: %s", self._account, error)
            except Exception:
                # A fault of ours, which is no reason to watch no longer.
                log.exception("cannot look which callback account %s has", self._account)

    async def _look(self) -> str | None:
        summary = (await self._calls.list_registered_callbacks(self._account)).data
        return None if summary is None else summary.url

    def _is_ours(self, registered: str | None) -> bool:
        return registered is not None and _parts(registered) == _parts(self.url)

    def _tell(self, found: str | None) -> None:
        if found == self.url:
            log.warning("the callback of account %s leads here again", self._account)
        elif found is None:
            log.critical("SOMEBODY DEREGISTERED the callback of account %s: it gets no more messages", self._account)
        else:
            log.critical(
                "SOMEBODY REPLACED the callback of account %s: its messages go to %s, and not here",
                self._account,
                self._place(found),
            )

    def _place(self, url: str) -> str:
        """The host that another URL names, and in what it differs where the host is ours; not what stands there: a
        path may be somebody's secret.
        """
        theirs, ours = _parts(url), _parts(self.url)
        place = theirs.get("host") and urlsplit(url).netloc.rpartition("@")[2]
        if not place:
            return "an unknown place"
        if theirs["host"] != ours["host"]:
            return place
        differing = " and ".join(name for name, part in ours.items() if theirs[name] != part)
        return f"{place}, with another {differing}"


def _parts(url: str) -> dict[str, str | int | None]:
    """What tells one URL from another: not the case of its host, a port that goes without saying, or an empty path.

    Nothing of what is no URL, which whoever registered it may have thought of all the same.
    """
    try:
        parts = urlsplit(url)
        return {
            "scheme": parts.scheme,
            "user": parts.netloc.rpartition("@")[0],
            "host": parts.hostname,
            "port": parts.port or _PORTS.get(parts.scheme),
            "path": parts.path or "/",
            "query": parts.query,
        }
    except ValueError:
        return {}
