"""The calls of the service and their schemas as Markdown, from the service's OpenAPI description."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from .markdown import code, plain, table
from .openapi import document

Schema = Mapping[str, Any]
_CREDENTIALS: Final = {"client": "client id and secret", "accessToken": "access token", "sessionToken": "session token"}


def calls() -> str:
    """A section for each call and each schema, in the order of `/openapi.json`."""
    description = document()
    paths = list(description["paths"].items())
    by_tag = {tag: [one for one in paths if _tag(one[1]) == tag] for tag in ("ThingSpace", "fotahook")}
    parts = [
        "## ThingSpace's calls\n\n",
        *(_path(path, item) for path, item in by_tag["ThingSpace"]),
        "## Operator API\n\n",
        *(_path(path, item) for path, item in by_tag["fotahook"]),
        "## Errors\n\n",
        table(("status", "meaning", "body"), sorted(dict.fromkeys(_errors(description["paths"].values())))),
        "## Schemas\n\n",
        *(_schema(name, schema) for name, schema in sorted(description["components"]["schemas"].items())),
    ]
    return "".join(parts)


def _tag(item: Schema) -> str:
    return next(str(operation["tags"][0]) for method, operation in item.items() if method != "parameters")


def _path(path: str, item: Schema) -> str:
    shared = item.get("parameters", ())
    return "".join(
        _operation(method.upper(), path, operation, shared)
        for method, operation in item.items()
        if method != "parameters"
    )


def _operation(method: str, path: str, operation: Schema, shared: Sequence[Schema]) -> str:
    rows = [(code(one["name"]), one["in"], _type(one["schema"])) for one in (*shared, *operation.get("parameters", ()))]
    if "requestBody" in operation:
        body = operation["requestBody"]
        rows += [
            ("body" if body["required"] else "body, optional", code(media), _type(content["schema"]))
            for media, content in body["content"].items()
        ]
    responses = operation["responses"].items()
    success = " or ".join(
        " ".join((code(status), *_contents(response))) for status, response in responses if status < "400"
    )
    errors = ", ".join(code(status) for status, _ in responses if status >= "400")
    return (
        f"### {method} {plain(path)}\n\n{plain(operation['summary'])} {_needs(operation['security'])}\n\n"
        + (table(("parameter", "in", "type"), rows) if rows else "")
        + f"Returns {success}. [Errors](#errors): {errors}.\n\n"
    )


def _errors(items: Iterable[Schema]) -> Iterator[tuple[str, str, str]]:
    operations = [operation for item in items for method, operation in item.items() if method != "parameters"]
    for status, response in (response for operation in operations for response in operation["responses"].items()):
        if status >= "400":
            yield code(status), plain(response["description"]), ", ".join(_contents(response))


def _needs(security: Sequence[Mapping[str, Sequence[str]]]) -> str:
    if not security:
        return "Needs no credentials."
    (needed,) = security
    credentials = " and ".join(_CREDENTIALS[name] for name in needed)
    scopes = sorted({scope for scopes in needed.values() for scope in scopes})
    return f"Needs {credentials}" + (f", with scope {' or '.join(code(scope) for scope in scopes)}." if scopes else ".")


def _contents(response: Schema) -> Iterator[str]:
    for media, content in response.get("content", {}).items():
        yield _type(content["schema"]) + ("" if media == "application/json" else f" ({code(media)})")


def _schema(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = [
        (code(member), _type(one), "" if member in required else "optional")
        for member, one in schema.get("properties", {}).items()
    ]
    description = plain(schema.get("description", "").strip())
    return f"### {name}\n\n{description}\n\n" + (table(("member", "type", ""), rows) if rows else "")


def _type(schema: Schema) -> str:
    """A value's type in words; a schema's name links to its section."""
    match schema:
        case {"$ref": reference}:
            name = str(reference).rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": kinds}:
            return " or ".join(_type(kind) for kind in kinds)
        case {"enum": values}:
            return " or ".join(code("null" if value is None else str(value)) for value in values)
        case {"type": "array", "items": inner}:
            return f"array of {_type(inner)}"
        case {"type": "object", "additionalProperties": inner} if isinstance(inner, Mapping):
            return f"object, each member {_type(inner)}"
        case {"type": kind}:
            return " ".join([str(kind), *_limits(schema)])
    return "any"


def _limits(schema: Schema) -> Iterator[str]:
    words = {"format": "{}", "pattern": "like `{}`", "minimum": "≥ {}", "maximum": "≤ {}"}
    words |= {"minLength": "≥ {} characters", "maxLength": "≤ {} characters"}
    for name, word in words.items():
        if name in schema:
            yield word.format(schema[name])
