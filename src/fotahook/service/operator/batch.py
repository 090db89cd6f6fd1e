"""Publishing many messages in one request: NDJSON, whose valid lines are stored together."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from starlette.responses import Response

from ...contract.operator import Published
from ...store.records import NewMessage
from .. import errors, requests
from ..requests import Params
from ..routing import Call, Endpoint
from .messages import message_type

MEDIA_TYPE: Final = "application/x-ndjson"

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Line(Params, frozen=True):
    """One message of a batch."""

    account: str
    message: msgspec.Raw
    ordering_key: str | None = None
    idempotency_key: str | None = None


Refused = dict[str, str]
"""The error answer to a line that was not accepted."""


@Endpoint(
    "POST",
    "/v1/messages",
    scope="publish",
    body=Line,
    body_type=MEDIA_TYPE,
    body_limit="batch_limit",
    answer=Published,
    answer_type=MEDIA_TYPE,
)
async def publish(call: Call) -> Response:
    """Answers each line, in order, once the valid ones are on disk, all in one transaction."""
    with call.service.batch_budget.share() as take:
        lines = [_parse(call, line) async for line in _lines(call, take)]
        messages = [line for line in lines if isinstance(line, NewMessage)]
        accepted = await call.service.store.accept(messages) if messages else []
    published = iter(
        errors.OTHER_MESSAGE().content if one.conflict else Published(id=one.id, duplicate=one.duplicate)
        for one in accepted
    )
    answers = [next(published) if isinstance(line, NewMessage) else line for line in lines]
    return Response(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers), media_type=MEDIA_TYPE)


async def _lines(call: Call, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The lines as they arrive. Blank lines count, and the last one needs no line feed."""
    limit = call.service.settings.batch_lines
    line, count = bytearray(), 0
    async for chunk in requests.chunks(call.request, call.service.settings.batch_limit):
        take(len(chunk))
        end, *starts = chunk.split(b"\n")
        line += end
        for start in starts:
            count += 1
            if count > limit:
                raise errors.TOO_MANY_LINES(limit=limit)
            yield bytes(line)
            line = bytearray(start)
    if line.strip():
        if count == limit:
            raise errors.TOO_MANY_LINES(limit=limit)
        yield bytes(line)
    elif count == 0:
        raise errors.NO_BODY()


def _parse(call: Call, content: bytes) -> NewMessage | Refused:
    try:
        line, limit = _decode(content), call.service.settings.message_limit
        if not call.caller.has(requests.check_account(line.account)):
            raise errors.NO_ACCOUNT()
        body = bytes(line.message)
        if len(body) > limit:
            raise errors.TOO_LARGE(what="message", limit=limit)
        return NewMessage(
            account=line.account,
            body=body,
            type=message_type(body),
            ordering_key=requests.key("orderingKey", line.ordering_key),
            idempotency_key=requests.key("idempotencyKey", line.idempotency_key),
        )
    except errors.ApiError as error:
        return error.content


def _decode(line: bytes) -> Line:
    try:
        return requests.json_object(line, Line, "line")
    except errors.ApiError:
        # The decoder refuses half a surrogate pair, which JSON allows: decode a copy of the same length without any.
        # Accounts and keys cannot hold what the copy has in its place.
        copy = _SURROGATE.sub(rb"\\u0000", line)
        if copy == line:
            raise
        parsed = requests.json_object(copy, Line, "line")
        message = bytes(parsed.message)
        # The last occurrence: of two members of one name the last counts.
        start = copy.rindex(message)
        return msgspec.structs.replace(parsed, message=msgspec.Raw(line[start : start + len(message)]))
