"""Lists that come in pages, for threads and for tasks."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

import msgspec

from ..contract.calls import Call
from ..contract.errors import ResponseError
from ..contract.exchange import ApiResponse
from ._base import AsyncMethods, Methods, SyncMethods, both, operation
from ._runtime import run_now
from ._settings import CallOptions

P = ParamSpec("P")
T = TypeVar("T")
PageT = TypeVar("PageT")


class Listing(msgspec.Struct, Generic[PageT, T], frozen=True):
    """A list in pages: the call for the page at a cursor, its items, and the cursor of the page behind a response."""

    call: Callable[[str | None], Call[PageT]]
    items: Callable[[PageT], Iterable[T]]
    following: Callable[[ApiResponse[PageT], str | None], str | None]
    cursor: str | None
    options: CallOptions


class _Pages(Methods, Generic[PageT, T]):
    """A list: iterating reads page by page, as many as needed; `page()` reads one. Nothing is read before."""

    def __init__(self, client: Methods, listing: Listing[PageT, T]) -> None:
        super().__init__(client)
        self._listing = listing

    @operation
    async def page(self) -> PageT:
        """The first page, or the one at the cursor that was given."""
        return (await self._read(self._listing.cursor)).data

    async def _read(self, cursor: str | None) -> ApiResponse[PageT]:
        return await self._perform(self._listing.call(cursor), **self._listing.options)

    async def _items(self) -> AsyncGenerator[T, None]:
        cursor = self._listing.cursor
        while True:
            response = await self._read(cursor)
            for item in self._listing.items(response.data):
                yield item
            following = self._listing.following(response, cursor)
            if following is None:
                return
            if following == cursor:
                raise ResponseError(f"the list has no end: cursor {cursor!r} leads to itself", request=response.request)
            cursor = following


class Pages(_Pages[PageT, T], SyncMethods):
    __doc__ = _Pages.__doc__

    def __iter__(self) -> Iterator[T]:
        items = self._items()
        with suppress(StopAsyncIteration):
            while True:
                yield run_now(items.__anext__())


class AsyncPages(_Pages[PageT, T], AsyncMethods):
    __doc__ = _Pages.__doc__

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()


def paged(
    plan: Callable[Concatenate[Any, P], Listing[PageT, T]],
) -> both[P, Pages[PageT, T], AsyncPages[PageT, T]]:
    """Decorates a method that returns a Listing; the result is a method that returns its pages."""

    def method(client: SyncMethods, *args: P.args, **kwargs: P.kwargs) -> Pages[PageT, T]:
        return Pages(client, plan(client, *args, **kwargs))

    def async_method(client: AsyncMethods, *args: P.args, **kwargs: P.kwargs) -> AsyncPages[PageT, T]:
        return AsyncPages(client, plan(client, *args, **kwargs))

    result = Pages[get_args(inspect.signature(plan).return_annotation)]  # type: ignore[misc,valid-type]
    return both(plan, method, async_method, return_annotation=result)
