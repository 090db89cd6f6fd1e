"""Messages: accepted durably, and what became of them."""

from typing import Annotated, Final, Literal

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ...contract.messages import MessageInvalid, parse_json
from ...contract.operator import Attempts, MessagePage, MessageState, Published
from ...store import views
from ...store.records import Message, MessageFilter, NewMessage
from .. import access, errors, requests
from ..context import Service
from ..requests import Asked, Moment, PageLimit
from .accounts import enter
from .why import Facts, explain

LOOKS: Final = 20
"""How often the store is asked for one page, where few of the messages that it looks at are wanted."""


class MessagesAsked(Asked, frozen=True):
    """Which messages of an account to list; `until` itself is no part of the span."""

    state: Literal["pending", "delivered", "dead"] | None = None
    type: Annotated[str, Meta(max_length=1024, pattern="^[^\\u0000]*$")] | None = None
    key: Annotated[str, Meta(pattern="^[!-~]{1,128}$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    cursor: str | None = None
    limit: PageLimit = 50


async def publish(service: Service, request: Request) -> Response:
    """202 once the message is on disk, to be delivered byte for byte."""
    caller = await access.bearer(service, request)
    caller.need("publish")
    account = requests.account(request)
    if not caller.has(account):
        raise errors.no_account()
    ordering_key = requests.key_header(request, "Ordering-Key")
    idempotency_key = requests.key_header(request, "Idempotency-Key")
    body = await requests.body(request, service.settings.message_limit)
    message = NewMessage(
        account=account,
        body=body,
        type=message_type(body),
        ordering_key=ordering_key,
        idempotency_key=idempotency_key,
    )
    [accepted] = await service.store.accept([message])
    if accepted.conflict:
        raise errors.other_message()
    return errors.answer(Published(id=accepted.id, duplicate=accepted.duplicate), 202)


async def list_messages(service: Service, request: Request) -> Response:
    """Messages of the account, newest first; a page may be short although there is a cursor."""
    account = await enter(service, request)
    asked = requests.query(request, MessagesAsked)
    wanted = MessageFilter(
        state=asked.state,
        type=asked.type,
        ordering_key=asked.key,
        since=None if asked.since is None else asked.since.timestamp(),
        until=None if asked.until is None else asked.until.timestamp(),
    )
    found, before = await _look(service, account, wanted, requests.number_cursor(asked.cursor), asked.limit)
    states = [_state(service, message) for message in found]
    more = None if before is None else requests.new_cursor(str(before))
    return errors.answer(MessagePage(messages=states, cursor=more))


async def _look(
    service: Service, account: str, wanted: MessageFilter, before: int | None, limit: int
) -> tuple[list[Message], int | None]:
    """Up to so many messages, and where to go on; each look is short, so that others get their turn in between."""
    found: list[Message] = []
    for _ in range(LOOKS):
        page = await service.store.messages(account, wanted, before=before, limit=limit - len(found))
        found += page.messages
        before = page.next
        if before is None or len(found) == limit:
            break
    return found, before


async def show(service: Service, request: Request) -> Response:
    """A message and where it stands, without its bytes."""
    message = await find(service, request)
    return errors.answer(_state(service, message))


def _state(service: Service, message: Message) -> MessageState:
    return views.message_state(message, now=service.now(), time_to_live=service.settings.time_to_live)


async def body(service: Service, request: Request) -> Response:
    """The bytes of a message."""
    message = await find(service, request)
    if message.body is None:
        raise errors.gone("The message's bytes were removed by retention; its id, hash and attempts are kept.")
    return Response(message.body, media_type="application/json")


async def attempts(service: Service, request: Request) -> Response:
    """Every attempt at a message, oldest first."""
    message = await find(service, request)
    tried = await service.store.attempts(message.id)
    return errors.answer(Attempts(attempts=[views.attempt_state(number, one) for number, one in enumerate(tried, 1)]))


async def why(service: Service, request: Request) -> Response:
    """Why a message stands where it stands: what it waits for, until when, and what would send it now."""
    message = await find(service, request)
    facts = Facts(
        message=message,
        attempts=await service.store.attempts(message.id),
        lanes=await service.store.lanes(message.account),
        limits=await service.store.limits(message.account),
        now=service.now(),
    )
    return errors.answer(explain(facts))


def message_type(body: bytes) -> str | None:
    """The message's `type` where it is a string; a Problem if the bytes are not one JSON object."""
    try:
        content = parse_json(body)
    except MessageInvalid as error:
        raise errors.invalid(f"{error}.") from None
    if not isinstance(content, dict):
        raise errors.invalid("The message must be one JSON object.")
    kind = content.get("type")
    return kind if isinstance(kind, str) else None


async def find(service: Service, request: Request) -> Message:
    """The message that the path names, if it belongs to an account of the caller's."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    message_id = requests.segment(request, "id")
    message = await service.store.message(message_id) if message_id else None
    if message is None or not caller.has(message.account):
        raise errors.not_found("There is no such message in your accounts; check the id.")
    return message
