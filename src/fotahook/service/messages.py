"""Messages: accepted durably, and what became of them."""

from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ..contract.messages import MessageInvalid, parse_json
from ..contract.operator import Published
from ..store.base import CALLBACK_CONSUMER, Attempt, Message, NewMessage, Placement
from . import access, problems, reading
from .context import Service

PHASES: Final = ("dns", "connect", "tls", "firstByte", "total")


async def publish(service: Service, request: Request) -> Response:
    """202 once the message is on disk, to be delivered byte for byte."""
    caller = await access.bearer(service, request)
    caller.need("publish")
    account = reading.account(request)
    if not caller.has(account):
        raise problems.no_account()
    ordering_key = reading.key_header(request, "Ordering-Key")
    idempotency_key = reading.key_header(request, "Idempotency-Key")
    body = await reading.body(request, service.settings.message_limit)
    message = NewMessage(
        account=account,
        body=body,
        type=message_type(body),
        ordering_key=ordering_key,
        idempotency_key=idempotency_key,
    )
    [accepted] = await service.store.accept([message])
    if accepted.conflict:
        raise problems.other_message()
    return problems.answer(Published(id=accepted.id, duplicate=accepted.duplicate), 202)


async def show(service: Service, request: Request) -> Response:
    """A message and where it stands, without its bytes."""
    return problems.answer(_message(await _find(service, request)))


async def body(service: Service, request: Request) -> Response:
    """The bytes of a message."""
    message = await _find(service, request)
    if message.body is None:
        raise problems.gone("The message's bytes were removed by retention; its id, hash and attempts are kept.")
    return Response(message.body, media_type="application/json")


async def attempts(service: Service, request: Request) -> Response:
    """Every attempt at a message, oldest first."""
    message = await _find(service, request)
    tried = await service.store.attempts(message.id)
    return problems.answer({"attempts": [_attempt(number, one) for number, one in enumerate(tried, 1)]})


def message_type(body: bytes) -> str | None:
    """The message's `type` where it is a string; a Problem if the bytes are not one JSON object."""
    try:
        content = parse_json(body)
    except MessageInvalid as error:
        raise problems.invalid(f"{error}.") from None
    if not isinstance(content, dict):
        raise problems.invalid("The message must be one JSON object.")
    kind = content.get("type")
    return kind if isinstance(kind, str) else None


async def _find(service: Service, request: Request) -> Message:
    """The message that the path names, if it belongs to an account of the caller's."""
    caller = await access.bearer(service, request)
    caller.need("operate")
    message_id = reading.segment(request, "id")
    message = await service.store.message(message_id) if message_id else None
    if message is None or not caller.has(message.account):
        raise problems.not_found("There is no such message in your accounts; check the id.")
    return message


def _message(message: Message) -> dict[str, object]:
    return {
        "id": message.id,
        "account": message.account,
        "type": message.type,
        "orderingKey": message.ordering_key,
        "size": message.size,
        "sha256": message.sha256.hex(),
        "acceptedAt": moment(message.accepted_at),
        "deliveries": [_delivery(message.account, placement) for placement in message.placements],
    }


def _delivery(account: str, placement: Placement) -> dict[str, object]:
    return {
        # The lane to the callback is named by its account.
        "lane": account if placement.consumer == CALLBACK_CONSUMER else placement.consumer,
        "state": placement.state,
        "attempts": placement.attempts,
        "due": moment(placement.due) if placement.state == "pending" else None,
        "lastOutcome": placement.last_outcome,
    }


def _attempt(number: int, attempt: Attempt) -> dict[str, object]:
    return {
        "number": number,
        "startedAt": moment(attempt.started_at),
        "url": attempt.url,
        "outcome": attempt.outcome,
        "httpStatus": attempt.status,
        "errorCode": attempt.error_code,
        "fix": attempt.fix,
        # A phase that was not reached is null.
        "phases": {phase: attempt.phases.get(phase) for phase in PHASES},
        "excerpt": attempt.excerpt,
    }


def moment(seconds: float) -> datetime:
    """A time of the store as answers have it; JSON writes it by RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC)
