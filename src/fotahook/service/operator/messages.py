"""Messages: publishing one, and looking at what became of it."""

from typing import Annotated, Final, Literal

from msgspec import Meta
from starlette.responses import Response

from ...contract.messages import MessageInvalid, parse_json
from ...contract.operator import Attempts, MessagePage, MessageState, Published, Why
from ...store import views
from ...store.records import Message, MessageFilter, NewMessage
from .. import errors, requests
from ..requests import PageSize, Params, Time
from ..routing import JSON, AnyObject, Call, Endpoint
from .accounts import PATH as ACCOUNT_PATH
from .reasons import Snapshot, reasons_for

PATH: Final = "/v1/messages/{id}"
READS_PER_PAGE: Final = 20
"""How often the store is read for one page, where few of the messages match."""


class MessagesQuery(Params, frozen=True):
    """Which messages of an account to list, those accepted at `until` excluded."""

    state: Literal["pending", "delivered", "dead"] | None = None
    type: Annotated[str, Meta(max_length=1024, pattern="^[^\\u0000]*$")] | None = None
    key: Annotated[str, Meta(pattern="^[!-~]{1,128}$")] | None = None
    since: Time | None = None
    until: Time | None = None
    cursor: str | None = None
    limit: PageSize = 50


@Endpoint("GET", f"{ACCOUNT_PATH}/messages", query=MessagesQuery)
async def list_messages(call: Call) -> MessagePage:
    """The account's messages, newest first; a page may be short although there is a cursor."""
    query = call.query(MessagesQuery)
    wanted = MessageFilter(
        state=query.state,
        type=query.type,
        ordering_key=query.key,
        since=query.since.timestamp() if query.since else None,
        until=query.until.timestamp() if query.until else None,
    )
    found: list[Message] = []
    before = requests.number_cursor(query.cursor)
    # Each read is short, so that other calls get their turn in between.
    for _ in range(READS_PER_PAGE):
        page = await call.service.store.messages(call.account, wanted, before=before, limit=query.limit - len(found))
        found += page.messages
        before = page.next
        if before is None or len(found) == query.limit:
            break
    more = None if before is None else requests.new_cursor(str(before))
    return MessagePage(messages=[_state(call, message) for message in found], cursor=more)


@Endpoint(
    "POST",
    f"{ACCOUNT_PATH}/messages",
    scope="publish",
    headers=("Idempotency-Key", "Ordering-Key"),
    body=AnyObject,
    body_limit="message_limit",
    status=202,
    also=(409,),
)
async def publish(call: Call) -> Published:
    """Accepts a message, answered once it is on disk; it is delivered byte for byte."""
    ordering_key = requests.key_header(call.request, "Ordering-Key")
    idempotency_key = requests.key_header(call.request, "Idempotency-Key")
    body = await requests.body(call.request, call.service.settings.message_limit)
    message = NewMessage(
        account=call.account,
        body=body,
        type=message_type(body),
        ordering_key=ordering_key,
        idempotency_key=idempotency_key,
    )
    [accepted] = await call.service.store.accept([message])
    if accepted.conflict:
        raise errors.OTHER_MESSAGE()
    return Published(id=accepted.id, duplicate=accepted.duplicate)


@Endpoint("GET", PATH)
async def show(call: Call) -> MessageState:
    """A message and its deliveries, without its bytes."""
    return _state(call, await find(call))


@Endpoint("GET", f"{PATH}/body", answer=AnyObject, also=(410,))
async def body(call: Call) -> Response:
    """The bytes of a message."""
    message = await find(call)
    if message.body is None:
        raise errors.GONE("Retention removed the message's bytes; its id, hash and attempts are kept.")
    return Response(message.body, media_type=JSON)


@Endpoint("GET", f"{PATH}/attempts")
async def attempts(call: Call) -> Attempts:
    """Every attempt to deliver a message, oldest first."""
    message = await find(call)
    made = await call.service.store.attempts(message.id)
    return Attempts(attempts=[views.attempt_state(number, one) for number, one in enumerate(made, 1)])


@Endpoint("GET", f"{PATH}/why")
async def why(call: Call) -> Why:
    """Why a message is in its state: what it waits for, until when, and what would send it now."""
    message, store = await find(call), call.service.store
    snapshot = Snapshot(
        message=message,
        attempts=await store.attempts(message.id),
        lanes=await store.lanes(message.account),
        limits=await store.limits(message.account),
        now=call.service.now(),
    )
    return reasons_for(snapshot)


def message_type(body: bytes) -> str | None:
    """The message's `type`, if it is a string. Raises an ApiError unless the bytes are one JSON object."""
    try:
        content = parse_json(body)
    except MessageInvalid as error:
        raise errors.INVALID(f"{error}.") from None
    if not isinstance(content, dict):
        raise errors.INVALID("The message must be one JSON object.")
    kind = content.get("type")
    return kind if isinstance(kind, str) else None


async def find(call: Call) -> Message:
    """The message that the path names, if it belongs to one of the caller's accounts."""
    message_id = requests.segment(call.request, "id")
    message = await call.service.store.message(message_id) if message_id else None
    if message is None or not call.caller.has(message.account):
        raise errors.NOT_FOUND("There is no such message in your accounts; check the id.")
    return message


def _state(call: Call, message: Message) -> MessageState:
    return views.message_state(message, now=call.service.now(), time_to_live=call.service.settings.time_to_live)
