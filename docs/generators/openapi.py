"""The service's OpenAPI 3.1 description, made from its endpoints and their models for `make openapi`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args, get_origin

import msgspec

from fotahook.contract.addresses import ACCOUNT_LIMIT
from fotahook.contract.events import EVENTS
from fotahook.contract.messages import CallbackMessage, Device, Firmware, Upgrade
from fotahook.contract.models import (
    CallbackSummary,
    CheckInHistoryItem,
    DeviceSoftwareUpgrade,
    FotaV2CallbackRegistrationResult,
)
from fotahook.contract.operator import Published, Redeliveries
from fotahook.contract.version import VERSION
from fotahook.service import Settings, build_app, health
from fotahook.service.access import SESSION_HEADER
from fotahook.service.errors import GATEWAY_PATHS
from fotahook.service.operator import accounts, events, messages
from fotahook.service.routing import JSON, Endpoint, Model, Resource
from fotahook.service.thingspace import auth, callbacks
from fotahook.store import Store

Schema = dict[str, Any]


class AnyObject(msgspec.Struct, frozen=True):
    """A JSON object with any members."""


class TokenForm(msgspec.Struct, frozen=True):
    """The form of the token call."""

    grant_type: Literal["client_credentials"]


class RevokeForm(TokenForm, frozen=True):
    """The form of the revoke call."""

    token: str


class Error(msgspec.Struct, frozen=True, rename="camel"):
    """An error: codes stay, messages may change."""

    error_code: str
    error_message: str


class FaultDetail(msgspec.Struct, frozen=True):
    """The gateway's error."""

    code: str
    message: str
    description: str


class Fault(msgspec.Struct, frozen=True):
    """An error of ThingSpace's gateway."""

    fault: FaultDetail


@dataclass(frozen=True, kw_only=True)
class Details:
    """What an endpoint's declaration does not say about its call."""

    headers: tuple[str, ...] = ()
    """Idempotency and ordering keys and the like."""
    body: Model | None = None
    body_type: str = JSON
    body_optional: bool = False
    answer: Model | None = None
    answer_type: str = JSON
    is_list: bool = False
    events: tuple[Model, ...] = ()
    """The data of an event stream's events."""
    also: tuple[int, ...] = ()
    """Statuses that only this call answers."""


_FORM: Final = "application/x-www-form-urlencoded"
_DETAILS: Final[Mapping[Endpoint, Details]] = {
    health.metrics: Details(answer_type="text/plain", also=(401, 403, 429)),
    health.openapi: Details(answer=AnyObject),
    health.console_session: Details(also=(429,)),
    health.console_login: Details(answer=health.ConsoleSession, also=(401, 403, 429)),
    health.console_logout: Details(answer=health.ConsoleSession),
    accounts.register_callback: Details(answer=FotaV2CallbackRegistrationResult),
    accounts.check: Details(body_optional=True, also=(409,)),
    events.stats: Details(also=(404,)),
    callbacks.list_callback: Details(answer=CallbackSummary),
    callbacks.register_callback: Details(answer=FotaV2CallbackRegistrationResult),
    callbacks.update_callback: Details(answer=FotaV2CallbackRegistrationResult),
    auth.token: Details(body=TokenForm, body_type=_FORM, also=(403,)),
    auth.revoke: Details(body=RevokeForm, body_type=_FORM, also=(403,)),
    auth.login: Details(also=(403,)),
    auth.logout: Details(also=(403,)),
    auth.reset_password: Details(also=(403,)),
    events.list_audit: Details(also=(404,)),
    callbacks.device_history: Details(answer=DeviceSoftwareUpgrade, is_list=True),
    callbacks.check_ins: Details(answer=CheckInHistoryItem, is_list=True),
    accounts.rotate_keys: Details(body_optional=True, also=(409,)),
    messages.publish: Details(headers=("Idempotency-Key", "Ordering-Key"), body=AnyObject, also=(409,)),
    messages.publish_batch: Details(body_type=messages.BATCH_TYPE, answer=Published, answer_type=messages.BATCH_TYPE),
    messages.body: Details(answer=AnyObject, also=(410,)),
    messages.redeliver_one: Details(body_optional=True, also=(409, 410)),
    messages.redeliver_many: Details(answer=Redeliveries, also=(200,)),
    events.follow: Details(
        headers=("Last-Event-ID",),
        answer_type=events.MEDIA_TYPE,
        events=tuple(EVENTS.values()),
        also=(404, 410, 429),
    ),
}

_PUBLISHED: Final[Mapping[Model, tuple[str, ...]]] = {
    CallbackMessage: (
        "accountName",
        "participantName",
        "type",
        "username",
        "password",
        "firmwareList",
        "upgradeScheduled",
        "upgradeProgress",
    ),
    Firmware: tuple(field.encode_name for field in msgspec.structs.fields(Firmware)),
    Upgrade: ("firmwareName", "upgradeId", "startDate"),
    Device: (),
}
"""The members of a callback message that Verizon publishes, of V1; the others are ours."""
_MEASURED: Final[Mapping[str, Schema]] = {
    "requestId": {"type": "string"},
    "callbackCount": {"type": "integer"},
    "maxCallbackThreshold": {"type": "integer"},
}
"""Members that were measured of ThingSpace's connectivity callbacks, and that fotahook does not send."""
_SIGNATURE: Final = {
    "webhook-id": "The message's id, the same on every attempt. Only fotahook sends it.",
    "webhook-timestamp": "When the attempt was signed, in Unix seconds. Only fotahook sends it.",
    "webhook-signature": "Signatures of id, timestamp and body. Only fotahook sends it.",
    "Fotahook-Account": "The account, percent-encoded. Only fotahook sends it.",
}

_SCHEMES: Final = {
    "client": {"type": "http", "scheme": "basic", "description": "The client's id and secret."},
    "accessToken": {"type": "http", "scheme": "bearer", "description": "The access token, valid for an hour."},
    "sessionToken": {
        "type": "apiKey",
        "in": "header",
        "name": SESSION_HEADER,
        "description": "The session token, valid until 20 minutes idle.",
    },
}

_PATH_PARAMETERS: Final[Mapping[str, Schema]] = {
    "account": {"type": "string", "minLength": 1, "maxLength": ACCOUNT_LIMIT},
    **{name: {"type": "string", "minLength": 1} for name in ("id", "campaign", "device")},
}

_REFUSALS: Final = {
    400: "The request is invalid; the message says why.",
    401: "Credentials are missing or invalid.",
    403: "A scope is missing, or the call comes from outside the networks that are granted.",
    404: "Not found among the caller's accounts.",
    409: "The request conflicts with the present state; the message says how.",
    410: "Retention removed it.",
    413: "The body is too large.",
    429: "Too many requests; Retry-After says when to try again.",
    503: "The store is unavailable, or the service is busy; Retry-After says when to try again.",
    507: "The store is full.",
}


def document() -> Schema:
    """The description of every call of the service."""
    # The app only describes itself: it needs no store and no real key.
    resources = build_app(cast(Store, None), Settings(secret_key=bytes(32))).resources
    models = dict.fromkeys(
        model
        for resource in resources.values()
        for one in resource.endpoints.values()
        for model in (Error, Fault, _body(one), one.query, _answer(one), *_details(one).events)
        if model is not None
    )
    _, components = msgspec.json.schema_components(models, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fotahook",
            "version": VERSION,
            "description": "ThingSpace's Software Management Callbacks V2, and fotahook's own API for messages.",
        },
        "paths": {path: _path(path, resource, components) for path, resource in resources.items()},
        "webhooks": {"message": {"post": _webhook()}},
        "components": {"schemas": components | _message_schemas(), "securitySchemes": _SCHEMES},
    }


def _webhook() -> Schema:
    """What a callback URL receives."""
    schema = {"type": "string"}
    headers = [
        {"name": name, "in": "header", "description": text, "schema": schema} for name, text in _SIGNATURE.items()
    ]
    return {
        "operationId": "webhooks.message",
        "tags": ["Callback messages"],
        "summary": "A message to the callback URL of an account.",
        "description": "ThingSpace publishes its messages only in part. x-origin says of each member whether it is "
        "published (of V1), measured (of connectivity callbacks), or ours. Any may be missing, and more may come.",
        "parameters": headers,
        "requestBody": {"required": True, "content": {JSON: {"schema": _reference(CallbackMessage)}}},
        "responses": {
            "2XX": {"description": "The message is stored. Answer within 3 seconds."},
            "default": {"description": "fotahook tries again, for up to 7 days; ThingSpace once, after a second."},
        },
    }


def _message_schemas() -> Schema:
    """The schemas of a callback message and its parts, each member with its origin; msgspec cannot describe `extra`."""
    schemas: Schema = {}
    for model, published in _PUBLISHED.items():
        members = {
            field.encode_name: _member(field.type)
            | {"x-origin": "published" if field.encode_name in published else "ours"}
            for field in msgspec.structs.fields(model)
            # The others are fields of the Python class alone.
            if not field.encode_name.startswith("fotahook:")
        }
        if model is CallbackMessage:
            members |= {name: member | {"x-origin": "measured"} for name, member in _MEASURED.items()}
        description = (model.__doc__ or "").partition("\n")[0]
        schemas[model.__name__] = {"type": "object", "description": description, "properties": members}
    return schemas


def _member(kind: Any) -> Schema:
    """The schema of a field's type: a text, a part, or a list of parts, each perhaps null."""
    first = get_args(kind)[0]
    if get_origin(kind) is tuple:
        return {"anyOf": [{"type": "array", "items": _reference(first)}, {"type": "null"}]}
    return {"type": ["string", "null"]} if first is str else {"anyOf": [_reference(first), {"type": "null"}]}


def _details(endpoint: Endpoint) -> Details:
    return _DETAILS.get(endpoint, Details())


def _body(endpoint: Endpoint) -> Model | None:
    return endpoint.body or _details(endpoint).body


def _answer(endpoint: Endpoint) -> Model | None:
    returned = endpoint.handler.__annotations__["return"]
    return returned if issubclass(returned, msgspec.Struct) else _details(endpoint).answer


def _path(path: str, resource: Resource, components: Mapping[str, Schema]) -> Schema:
    methods: Schema = {
        method.lower(): _operation(endpoint, components)
        for method, endpoint in resource.endpoints.items()
        if method != "HEAD"
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in path
    ]
    return {"parameters": parameters, **methods} if parameters else methods


def _operation(endpoint: Endpoint, components: Mapping[str, Schema]) -> Schema:
    handler, details = endpoint.handler, _details(endpoint)
    operation: Schema = {
        "operationId": f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}",
        "tags": ["ThingSpace" if endpoint.path.startswith(GATEWAY_PATHS) else "fotahook"],
        "summary": (handler.__doc__ or "").strip().partition("\n")[0],
        "security": _security(endpoint),
        "responses": _responses(endpoint),
    }
    key = {"type": "string", "pattern": "^[!-~]{1,128}$"}
    parameters = [{"name": name, "in": "header", "schema": key} for name in details.headers]
    if endpoint.query is not None:
        properties = components[endpoint.query.__name__]["properties"].items()
        parameters += [{"name": name, "in": "query", "schema": _without_null(one)} for name, one in properties]
    if parameters:
        operation["parameters"] = parameters
    if (body := _body(endpoint)) is not None:
        content = {details.body_type: {"schema": _reference(body)}}
        operation["requestBody"] = {"required": not details.body_optional, "content": content}
    return operation


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    scopes = [endpoint.scope] if endpoint.scope else []
    schemes = {
        "anyone": (),
        "client": ("client",),
        "token": ("accessToken",),
        "both tokens": ("accessToken", "sessionToken"),
    }[endpoint.by]
    return [{scheme: [*scopes] for scheme in schemes}] if schemes else []


def _responses(endpoint: Endpoint) -> Schema:
    statuses = {400, 413, 503, *_details(endpoint).also, endpoint.status}
    if endpoint.by != "anyone":
        statuses |= {401, 429, 403} if endpoint.scope else {401, 429}
    # A call with a session writes even if it only reads: it renews the session.
    if "{" in endpoint.path and not endpoint.path.startswith(GATEWAY_PATHS):
        statuses.add(404)
    if endpoint.method != "GET" or endpoint.by == "both tokens":
        statuses.add(507)
    return {
        str(status): _success(endpoint) if status < 300 else _refusal(endpoint.path, status)
        for status in sorted(statuses)
    }


def _success(endpoint: Endpoint) -> Schema:
    details, answer = _details(endpoint), _answer(endpoint)
    if details.events:
        schema: Schema = {"schema": {"type": "string"}, "x-event-data": [_reference(one) for one in details.events]}
        return {"description": "Events, until the client leaves.", "content": {details.answer_type: schema}}
    if answer is None:
        is_text = details.answer_type != JSON
        content = {"content": {details.answer_type: {"schema": {"type": "string"}}}} if is_text else {}
        return {"description": "Done.", **content}
    schema = {"type": "array", "items": _reference(answer)} if details.is_list else _reference(answer)
    if details.answer_type != JSON:
        # Each line of a batch has its own answer.
        schema = {"anyOf": [schema, _reference(Error)]}
    return {"description": "Done.", "content": {details.answer_type: {"schema": schema}}}


def _refusal(path: str, status: int) -> Schema:
    by_gateway = status == 401 and path.startswith(GATEWAY_PATHS)
    schema = {"anyOf": [_reference(Fault), _reference(Error)]} if by_gateway else _reference(Error)
    return {"description": _REFUSALS[status], "content": {JSON: {"schema": schema}}}


def _reference(model: Model) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _without_null(schema: Schema) -> Schema:
    """A parameter's schema without null: it is left out instead."""
    kept = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    for one in schema.get("anyOf", ()):
        if one != {"type": "null"}:
            kept |= one
    if None in kept.get("enum", ()):
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept


def text() -> bytes:
    """The file that the service serves at `/openapi.json`."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1) + b"\n"
