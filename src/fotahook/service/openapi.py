"""The service's OpenAPI 3.1 description, made from its endpoints and their models."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from ..contract.urls import ACCOUNT_LIMIT
from ..contract.version import VERSION
from .access import SESSION_HEADER
from .errors import GATEWAY_PATHS
from .routing import JSON, AnyObject, Call, Endpoint, Model, Resource

Schema = dict[str, Any]


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
    "id": {"type": "string", "minLength": 1},
}

_REFUSALS: Final = {
    400: "The request is invalid; the message says why.",
    401: "Credentials are missing or invalid.",
    403: "A scope is missing.",
    404: "Not found among the caller's accounts.",
    409: "The request conflicts with the present state; the message says how.",
    410: "Retention removed it.",
    413: "The body is too large.",
    429: "Too many requests; Retry-After says when to try again.",
    503: "The store is unavailable, or the service is busy; Retry-After says when to try again.",
    507: "The store is full.",
}


@Endpoint("GET", "/openapi.json", by="anyone", answer=AnyObject)
async def show(call: Call) -> Response:
    """This description, in OpenAPI 3.1."""
    app = call.request.app
    if not hasattr(app.state, "openapi"):
        app.state.openapi = msgspec.json.encode(document(app.resources))
    return Response(app.state.openapi, media_type=JSON)


def document(resources: Mapping[str, Resource]) -> Schema:
    """The description of resources by their paths."""
    models = dict.fromkeys(
        model
        for resource in resources.values()
        for one in resource.endpoints.values()
        for model in (Error, Fault, one.body, one.query, one.answer, *one.events)
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
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


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
    handler = endpoint.handler
    operation: Schema = {
        "operationId": f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}",
        "tags": ["ThingSpace" if endpoint.path.startswith(GATEWAY_PATHS) else "fotahook"],
        "summary": (handler.__doc__ or "").strip().partition("\n")[0],
        "security": _security(endpoint),
        "responses": _responses(endpoint),
    }
    key = {"type": "string", "pattern": "^[!-~]{1,128}$"}
    parameters = [{"name": name, "in": "header", "schema": key} for name in endpoint.headers]
    if endpoint.query is not None:
        properties = components[endpoint.query.__name__]["properties"].items()
        parameters += [{"name": name, "in": "query", "schema": _without_null(one)} for name, one in properties]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {endpoint.body_type: {"schema": _reference(endpoint.body)}}
        operation["requestBody"] = {"required": not endpoint.body_optional, "content": content}
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
    statuses = {400, 413, 503, *endpoint.also, endpoint.status}
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
    if endpoint.events:
        schema: Schema = {"schema": {"type": "string"}, "x-event-data": [_reference(one) for one in endpoint.events]}
        return {"description": "Events, until the client leaves.", "content": {endpoint.answer_type: schema}}
    if endpoint.answer is None:
        is_text = endpoint.answer_type != JSON
        content = {"content": {endpoint.answer_type: {"schema": {"type": "string"}}}} if is_text else {}
        return {"description": "Done.", **content}
    schema = _reference(endpoint.answer)
    if endpoint.answer_type != JSON:
        # Each line of a batch has its own answer.
        schema = {"anyOf": [schema, _reference(Error)]}
    return {"description": "Done.", "content": {endpoint.answer_type: {"schema": schema}}}


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
