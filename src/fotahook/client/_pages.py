"""Lists that come in pages, for threads and for tasks."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

import msgspec

from ..contract.calls import Call
from ..contract.errors import ResponseError
from ..contract.exchange import ApiResponse
from ._base import AsyncMethods, Operation, SyncMethods, both, response_of
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

    def page_at(self, cursor: str | None) -> Operation[ApiResponse[PageT]]:
        """Reads the page at a cursor."""
        return response_of(self.call(cursor), **self.options)

    def next_cursor(self, response: ApiResponse[PageT], cursor: str | None) -> str | None:
        """The cursor of the next page, None at the end; ResponseError if it leads back to the same page."""
        following = self.following(response, cursor)
        if following is not None and following == cursor:
            raise ResponseError(f"the list has no end: cursor {cursor!r} leads to itself", request=response.request)
        return following


class Pages(SyncMethods, Generic[PageT, T]):
    """A list: iterating reads page by page, as many as needed; `page()` reads one. Nothing is read before."""

    def __init__(self, client: SyncMethods, listing: Listing[PageT, T]) -> None:
        super().__init__(client)
        self._listing = listing

    def page(self) -> PageT:
        """The first page, or the one at the cursor that was given."""
        return self._run(self._listing.page_at(self._listing.cursor)).data

    def __iter__(self) -> Iterator[T]:
        cursor = self._listing.cursor
        while True:
            response = self._run(self._listing.page_at(cursor))
            yield from self._listing.items(response.data)
            cursor = self._listing.next_cursor(response, cursor)
            if cursor is None:
                return


class AsyncPages(AsyncMethods, Generic[PageT, T]):
    """A list: `async for` reads page by page, as many as needed; `page()` reads one. Nothing is read before."""

    def __init__(self, client: AsyncMethods, listing: Listing[PageT, T]) -> None:
        super().__init__(client)
        self._listing = listing

    async def page(self) -> PageT:
        """The first page, or the one at the cursor that was given."""
        return (await self._run(self._listing.page_at(self._listing.cursor))).data

    async def __aiter__(self) -> AsyncIterator[T]:
        cursor = self._listing.cursor
        while True:
            response = await self._run(self._listing.page_at(cursor))
            for item in self._listing.items(response.data):
                yield item
            cursor = self._listing.next_cursor(response, cursor)
            if cursor is None:
                return


def paged(
    plan: Callable[Concatenate[Any, P], Listing[PageT, T]],
) -> both[P, Pages[PageT, T], AsyncPages[PageT, T]]:
    """Decorates a method that returns a Listing; the result is a method that returns its pages."""

    def method(client: SyncMethods, *args: P.args, **kwargs: P.kwargs) -> Pages[PageT, T]:
        return Pages(client, plan(client, *args, **kwargs))

    def async_method(client: AsyncMethods, *args: P.args, **kwargs: P.kwargs) -> AsyncPages[PageT, T]:
        return AsyncPages(client, plan(client, *args, **kwargs))

    result = Pages[get_args(inspect.signature(plan).return_annotation)]  # type: ignore[misc,valid-type]
    return both(plan, result, method, async_method)
