"""Paths of callback URLs that were replaced: ThingSpace goes on sending with a replaced registration for a while.

Measured for its connectivity callbacks: for up to 14 minutes, mixed with the new one (docs/thingspace.md, Messages).
The inbox keeps when a URL was replaced, so that a listener that is restarted still accepts its path.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

from fotahook.contract.urls import same_url, url_parts
from fotahook.store import Store

OVERLAP_SECONDS: Final = 20 * 60.0
"""How long messages are accepted at the path of a URL that was replaced."""
_ACTOR: Final = "listener"
_CHANGES: Final = 50


async def former_paths(
    store: Store, account: str, previous: str | None, url: str, overlap: float
) -> Mapping[str, float]:
    """Note that `url` replaces `previous`; the paths of what was replaced, with the end of `overlap` seconds of each.

    Only of URLs with the same host: others never led here, and whoever registered one must not open a path.
    """
    if previous is not None and not same_url(previous, url):
        for each in (previous, url):
            await store.register(account, each, actor=_ACTOR)
    ends: dict[str, float] = {}
    for newer, older in pairwise(await store.callback_history(account, _CHANGES)):
        parts = url_parts(older.url or "")
        if parts and parts["host"] == url_parts(url).get("host"):
            path = unquote(str(parts["path"])).rstrip("/")
            ends[path] = max(newer.at.timestamp() + overlap, ends.get(path, 0.0))
    return ends
