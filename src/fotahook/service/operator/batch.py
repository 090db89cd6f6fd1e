"""Many messages in one request: NDJSON, a line for each, of which the good ones are stored together."""

import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...contract.operator import Published
from ...contract.urls import account_refusal
from ...store.records import Accepted, NewMessage
from .. import access, errors, requests
from ..access import Caller
from ..context import Hold, Service
from ..errors import Problem
from ..requests import Asked
from .messages import message_type

MEDIA_TYPE: Final = "application/x-ndjson"

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Line(Asked, frozen=True):
    """One message, as a line of the batch has it."""

    account: str
    message: msgspec.Raw
    ordering_key: str | None = None
    idempotency_key: str | None = None


Refused = dict[str, str]
"""A line that was not accepted: the answer's two members."""


async def publish(service: Service, request: Request) -> Response:
    """An answer for each line, in order, once the good ones are on disk, all in one transaction."""
    caller = await access.bearer(service, request)
    caller.need("publish")
    with service.batch_room.hold() as hold:
        lines = [_read(service, caller, line) async for line in _lines(service, request, hold)]
        answers = await _accept(service, lines)
    return Response(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers), media_type=MEDIA_TYPE)


async def _lines(service: Service, request: Request, hold: Hold) -> AsyncIterator[bytes]:
    """The lines as they arrive; the last may do without its line feed. A blank one among them counts like any other."""
    limit = service.settings.batch_lines
    rest, count = bytearray(), 0
    async for chunk in requests.chunks(request, service.settings.batch_limit):
        hold.take(len(chunk))
        end, *begun = chunk.split(b"\n")
        rest += end
        for begin in begun:
            count += 1
            if count > limit:
                raise errors.too_many_lines(limit)
            yield bytes(rest)
            rest = bytearray(begin)
    if rest.strip():
        if count == limit:
            raise errors.too_many_lines(limit)
        yield bytes(rest)
    elif count == 0:
        raise errors.no_body()


def _read(service: Service, caller: Caller, line: bytes) -> NewMessage | Refused:
    try:
        return _message(service, caller, line)
    except Problem as problem:
        return problem.content


def _message(service: Service, caller: Caller, line: bytes) -> NewMessage:
    told = _told(line)
    if account_refusal(told.account) is not None:
        raise errors.bad_account()
    if not caller.has(told.account):
        raise errors.no_account()
    body = bytes(told.message)
    if len(body) > service.settings.message_limit:
        raise errors.too_large(service.settings.message_limit, "message")
    return NewMessage(
        account=told.account,
        body=body,
        type=message_type(body),
        ordering_key=requests.key("orderingKey", told.ordering_key),
        idempotency_key=requests.key("idempotencyKey", told.idempotency_key),
    )


def _told(line: bytes) -> Line:
    try:
        return requests.json_object(line, Line, "line")
    except Problem:
        # A half of a surrogate pair is JSON, and yet the decoder refuses it: look at a copy of the same length. What
        # stands there instead is neither in an account nor in a key.
        copy = _SURROGATE.sub(rb"\\u0000", line)
        if copy == line:
            raise
        told = requests.json_object(copy, Line, "line")
        message = bytes(told.message)
        # The last: of two members of one name the last one counts.
        at = copy.rindex(message)
        return msgspec.structs.replace(told, message=msgspec.Raw(line[at : at + len(message)]))


async def _accept(service: Service, lines: list[NewMessage | Refused]) -> list[Published | Refused]:
    messages = [line for line in lines if isinstance(line, NewMessage)]
    accepted = iter(await service.store.accept(messages) if messages else [])
    return [_answer(next(accepted)) if isinstance(line, NewMessage) else line for line in lines]


def _answer(accepted: Accepted) -> Published | Refused:
    if accepted.conflict:
        return errors.other_message().content
    return Published(id=accepted.id, duplicate=accepted.duplicate)
