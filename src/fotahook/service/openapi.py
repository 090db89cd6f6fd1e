"""What the service serves, as OpenAPI 3.1: from its own routes, and from the models that its calls read and write."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..contract import operator
from ..contract.events import EVENTS
from ..contract.models import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
)
from ..contract.urls import ACCOUNT_LIMIT
from ..contract.version import VERSION
from . import health
from .access import SESSION_HEADER, Scope
from .context import Service
from .errors import GATEWAY_PATHS
from .operator import accounts, batch, events, messages, redelivery, signing_keys, stats
from .routing import Handler, Resource
from .thingspace import callbacks, sessions, tokens

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"

Model = type[msgspec.Struct]
Schema = dict[str, Any]


class Error(msgspec.Struct, frozen=True, rename="camel"):
    """What went wrong: codes stay, messages may change."""

    error_code: str
    error_message: str


class FaultDetail(msgspec.Struct, frozen=True):
    """What the gateway found wrong."""

    code: str
    message: str
    description: str


class Fault(msgspec.Struct, frozen=True):
    """An error of the gateway before ThingSpace's services."""

    fault: FaultDetail


class AnyObject(msgspec.Struct, frozen=True):
    """A JSON object with any members."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a route does not tell of a call: what it reads and answers, who may call, and other statuses that it has."""

    body: Model | None = None
    optional: bool = False
    """Whether the body may be left out."""
    media: str = JSON
    query: Model | None = None
    headers: tuple[str, ...] = ()
    status: int = 200
    answer: Model | None = None
    answer_media: str = JSON
    kinds: tuple[Model, ...] = ()
    """Of a stream: the models of what its events carry."""
    by: Literal["anyone", "client", "token", "both tokens"] = "token"
    scope: Scope | None = "operate"
    also: tuple[int, ...] = ()


CALLS: Final[Mapping[Handler, Call]] = {
    tokens.token: Call(body=tokens.TokenForm, media=FORM, by="client", scope=None, answer=tokens.AccessToken),
    tokens.revoke: Call(body=tokens.RevokeForm, media=FORM, by="client", scope=None),
    sessions.login: Call(body=sessions.Login, scope=None, answer=sessions.SessionToken),
    sessions.logout: Call(by="both tokens", scope=None, answer=sessions.SessionToken),
    sessions.reset_password: Call(
        by="both tokens", scope=None, body=sessions.PasswordReset, answer=sessions.NewPassword
    ),
    callbacks.list_callback: Call(by="both tokens", scope="callbacks", answer=CallbackSummary),
    callbacks.register_callback: Call(
        by="both tokens",
        scope="callbacks",
        body=FotaV2CallbackRegistrationRequest,
        answer=FotaV2CallbackRegistrationResult,
    ),
    callbacks.update_callback: Call(
        by="both tokens",
        scope="callbacks",
        body=FotaV2CallbackRegistrationRequest,
        answer=FotaV2CallbackRegistrationResult,
    ),
    callbacks.deregister_callback: Call(by="both tokens", scope="callbacks", answer=FotaV2SuccessResult),
    accounts.list_accounts: Call(query=accounts.AccountsAsked, answer=operator.AccountPage),
    accounts.show: Call(answer=operator.AccountState, also=(404,)),
    accounts.change: Call(body=accounts.AccountChange, answer=operator.AccountState, also=(404,)),
    accounts.callback_history: Call(answer=operator.CallbackHistory, also=(404,)),
    accounts.pause: Call(answer=operator.AccountState, also=(404,)),
    accounts.resume: Call(answer=operator.AccountState, also=(404,)),
    redelivery.redeliver_many: Call(
        body=redelivery.Redeliver, status=202, answer=operator.Redeliveries, also=(200, 404)
    ),
    signing_keys.list_keys: Call(answer=operator.SigningKeys, also=(404,)),
    signing_keys.rotate_keys: Call(
        body=signing_keys.Rotation, optional=True, status=201, answer=operator.NewSigningKey, also=(404, 409)
    ),
    signing_keys.delete_key: Call(answer=FotaV2SuccessResult, also=(404,)),
    messages.list_messages: Call(query=messages.MessagesAsked, answer=operator.MessagePage, also=(404,)),
    messages.publish: Call(
        scope="publish",
        headers=("Idempotency-Key", "Ordering-Key"),
        body=AnyObject,
        status=202,
        answer=operator.Published,
        also=(404, 409),
    ),
    batch.publish: Call(
        scope="publish",
        body=batch.Line,
        media=batch.MEDIA_TYPE,
        answer=operator.Published,
        answer_media=batch.MEDIA_TYPE,
    ),
    events.follow: Call(
        query=events.EventsAsked,
        headers=("Last-Event-ID",),
        kinds=tuple(EVENTS.values()),
        answer_media=events.EventStream.media_type,
        also=(404, 410, 429),
    ),
    messages.show: Call(answer=operator.MessageState, also=(404,)),
    messages.body: Call(answer=AnyObject, also=(404, 410)),
    messages.attempts: Call(answer=operator.Attempts, also=(404,)),
    messages.why: Call(answer=operator.Why, also=(404,)),
    redelivery.redeliver_one: Call(
        body=redelivery.Redelivery, optional=True, status=202, answer=operator.Redelivered, also=(404, 409, 410)
    ),
    health.signing_key: Call(by="anyone", answer=health.PublicKey),
    health.alive: Call(by="anyone", answer=health.Status),
    health.metrics: Call(by="anyone", answer_media="text/plain"),
    stats.show: Call(query=stats.StatsAsked, answer=operator.Stats),
    health.ready: Call(by="anyone", answer=health.Status),
}


async def show(service: Service, request: Request) -> Response:
    """This description, in OpenAPI 3.1."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = msgspec.json.encode(document(request.app.routes))
    return Response(state.openapi, media_type=JSON)


def document(routes: Sequence[BaseRoute]) -> Schema:
    """The description of those routes that are ours."""
    own = [(route, route.endpoint) for route in routes if isinstance(route, Route)]
    found = [(route.path_format, resource) for route, resource in own if isinstance(resource, Resource)]
    models = [Error, Fault, *_models(call_of(handler) for _, one in found for handler in one.handlers.values())]
    _, components = msgspec.json.schema_components(models, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fotahook",
            "version": VERSION,
            "description": "ThingSpace's Software Management Callbacks V2, and fotahook's own API for messages.",
        },
        "paths": {path: _path(path, resource.handlers, components) for path, resource in found},
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


def call_of(handler: Handler) -> Call:
    """What is told of a call; KeyError for one of which nothing is."""
    return _DESCRIPTION if handler is show else CALLS[handler]


_DESCRIPTION: Final = Call(by="anyone", answer=AnyObject)

_SCHEMES: Final = {
    "client": {"type": "http", "scheme": "basic", "description": "The client's id and secret."},
    "accessToken": {"type": "http", "scheme": "bearer", "description": "The access token, an hour."},
    "sessionToken": {
        "type": "apiKey",
        "in": "header",
        "name": SESSION_HEADER,
        "description": "The session token, 20 idle minutes.",
    },
}

_REFUSALS: Final = {
    400: "The request is wrong; the message says where.",
    401: "No credentials, or credentials that are not good.",
    403: "A scope is missing.",
    404: "No such thing among the caller's accounts.",
    409: "It does not fit what is there; the message says why.",
    410: "It was there, and retention removed it.",
    413: "The body is too large.",
    429: "Too much at once; Retry-After says when to come again.",
    503: "The store cannot be reached, or the service is busy; Retry-After says when to come again.",
    507: "The store has no room left.",
}


def _models(calls: Iterable[Call]) -> list[Model]:
    told = [model for call in calls for model in (call.body, call.query, call.answer, *call.kinds)]
    return [model for model in dict.fromkeys(told) if model is not None]


def _path(path: str, handlers: Mapping[str, Handler], components: Mapping[str, Schema]) -> Schema:
    methods: Schema = {
        method.lower(): _operation(path, handler, method, components)
        for method, handler in handlers.items()
        if method != "HEAD"
    }
    named = [_path_parameter(name) for name in ("account", "id") if f"{{{name}}}" in path]
    return {"parameters": named, **methods} if named else methods


def _operation(path: str, handler: Handler, method: str, components: Mapping[str, Schema]) -> Schema:
    call = call_of(handler)
    told: Schema = {
        "operationId": f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}",
        "tags": ["ThingSpace" if path.startswith(GATEWAY_PATHS) else "fotahook"],
        "summary": _summary(handler),
        "security": _security(call),
        "responses": _responses(path, call, method),
    }
    parameters = [_key_header(name) for name in call.headers]
    if call.query is not None:
        parameters += _query_parameters(components[call.query.__name__])
    if parameters:
        told["parameters"] = parameters
    if call.body is not None:
        told["requestBody"] = {"required": not call.optional, "content": {call.media: {"schema": _schema(call.body)}}}
    return told


def _summary(handler: Handler) -> str:
    return (handler.__doc__ or "").strip().partition("\n")[0]


def _security(call: Call) -> list[dict[str, list[str]]]:
    scopes = [call.scope] if call.scope else []
    match call.by:
        case "anyone":
            return []
        case "client":
            return [{"client": []}]
        case "token":
            return [{"accessToken": [*scopes]}]
        case "both tokens":
            return [{"accessToken": [*scopes], "sessionToken": [*scopes]}]


def _responses(path: str, call: Call, method: str) -> Schema:
    refused = {400, 413, 503, *call.also}
    if call.by != "anyone":
        refused |= {401, 429}
    if call.scope and call.by != "anyone":
        refused.add(403)
    if method != "GET":
        refused.add(507)
    if call.by == "both tokens" and method == "GET":
        # The session that is kept alive by it is written.
        refused.add(507)
    answers = {call.status: _answer(call)} | {status: _answer(call) for status in call.also if status < 300}
    errors = {status: _refusal(path, status) for status in refused if status >= 400}
    return {str(status): answer for status, answer in sorted((answers | errors).items())}


def _answer(call: Call) -> Schema:
    if call.kinds:
        told: Schema = {"schema": {"type": "string"}, "x-event-data": [_schema(kind) for kind in call.kinds]}
        return {"description": "Events, until the client leaves.", "content": {call.answer_media: told}}
    if call.answer is None:
        text = {"content": {call.answer_media: {"schema": {"type": "string"}}}} if call.answer_media != JSON else {}
        return {"description": "Done.", **text}
    schema = _schema(call.answer)
    if call.answer_media != JSON:
        # Of a batch each line has its own answer.
        schema = {"anyOf": [schema, _schema(Error)]}
    return {"description": "Done.", "content": {call.answer_media: {"schema": schema}}}


def _refusal(path: str, status: int) -> Schema:
    by_gateway = status == 401 and path.startswith(GATEWAY_PATHS)
    schema = {"anyOf": [_schema(Fault), _schema(Error)]} if by_gateway else _schema(Error)
    return {"description": _REFUSALS[status], "content": {JSON: {"schema": schema}}}


def _schema(model: Model) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _path_parameter(name: str) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1}
    if name == "account":
        schema["maxLength"] = ACCOUNT_LIMIT
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _key_header(name: str) -> Schema:
    return {"name": name, "in": "header", "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"}}


def _query_parameters(schema: Schema) -> list[Schema]:
    return [{"name": name, "in": "query", "schema": _without_null(one)} for name, one in schema["properties"].items()]


def _without_null(schema: Schema) -> Schema:
    """A parameter is never null: it is left out."""
    kept = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    for one in schema.get("anyOf", ()):
        if one != {"type": "null"}:
            kept |= one
    if None in kept.get("enum", ()):
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept
