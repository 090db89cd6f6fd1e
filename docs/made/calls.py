"""Every call of the service with its shapes, from the service's own description in OpenAPI."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from fotahook.service import Settings, build_app
from fotahook.service.openapi import document
from fotahook.store import Store

from .markdown import code, plain, table

Told = Mapping[str, Any]
_WHO: Final = {"client": "client id and secret", "accessToken": "access token", "sessionToken": "session token"}


def calls() -> str:
    """A section for each call and each shape, in the order of `/openapi.json`."""
    # Nothing is called, so no store is asked and no key is secret.
    app = build_app(cast(Store, None), Settings(secret_key=bytes(32)))
    told = document(app.resources)
    found = [(path, item) for path, item in told["paths"].items()]
    by_tag = {tag: [one for one in found if _tag(one[1]) == tag] for tag in ("ThingSpace", "fotahook")}
    parts = [
        "## ThingSpace's calls\n\n",
        *(_path(path, item) for path, item in by_tag["ThingSpace"]),
        "## fotahook's own calls\n\n",
        *(_path(path, item) for path, item in by_tag["fotahook"]),
        "## Refusals\n\n",
        table(("status", "means", "body"), sorted(dict.fromkeys(_refusals(told["paths"].values())))),
        "## Shapes\n\n",
        *(_shape(name, shape) for name, shape in sorted(told["components"]["schemas"].items())),
    ]
    return "".join(parts)


def _tag(item: Told) -> str:
    return next(str(told["tags"][0]) for method, told in item.items() if method != "parameters")


def _path(path: str, item: Told) -> str:
    shared = item.get("parameters", ())
    return "".join(
        _operation(method.upper(), path, told, shared) for method, told in item.items() if method != "parameters"
    )


def _operation(method: str, path: str, told: Told, shared: Sequence[Told]) -> str:
    rows = [(code(one["name"]), one["in"], _kind(one["schema"])) for one in (*shared, *told.get("parameters", ()))]
    if "requestBody" in told:
        body = told["requestBody"]
        rows += [
            ("body" if body["required"] else "body, may be left out", code(media), _kind(content["schema"]))
            for media, content in body["content"].items()
        ]
    answers = told["responses"].items()
    good = " or ".join(" ".join((code(status), *_contents(answer))) for status, answer in answers if status < "400")
    refused = ", ".join(code(status) for status, _ in answers if status >= "400")
    return (
        f"### {method} {plain(path)}\n\n{plain(told['summary'])} {_needs(told['security'])}\n\n"
        + (table(("parameter", "where", "kind"), rows) if rows else "")
        + f"Answers {good}. [Refused](#refusals) with {refused}.\n\n"
    )


def _refusals(items: Iterable[Told]) -> Iterator[tuple[str, str, str]]:
    operations = [told for item in items for method, told in item.items() if method != "parameters"]
    for status, answer in (answer for told in operations for answer in told["responses"].items()):
        if status >= "400":
            yield code(status), plain(answer["description"]), ", ".join(_contents(answer))


def _needs(security: Sequence[Mapping[str, Sequence[str]]]) -> str:
    if not security:
        return "Open to all."
    (needed,) = security
    who = " and ".join(_WHO[name] for name in needed)
    scopes = sorted({scope for scopes in needed.values() for scope in scopes})
    return f"Needs {who}" + (f", with scope {' or '.join(code(scope) for scope in scopes)}." if scopes else ".")


def _contents(answer: Told) -> Iterator[str]:
    for media, content in answer.get("content", {}).items():
        yield _kind(content["schema"]) + ("" if media == "application/json" else f" ({code(media)})")


def _shape(name: str, shape: Told) -> str:
    required = shape.get("required", ())
    rows = [
        (code(member), _kind(kind), "" if member in required else "may be missing")
        for member, kind in shape.get("properties", {}).items()
    ]
    told = plain(shape.get("description", "").strip())
    return f"### {name}\n\n{told}\n\n" + (table(("member", "kind", ""), rows) if rows else "")


def _kind(schema: Told) -> str:
    """What a value is, in words; shapes are linked to where they are told."""
    match schema:
        case {"$ref": reference}:
            name = str(reference).rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": kinds}:
            return " or ".join(_kind(kind) for kind in kinds)
        case {"enum": values}:
            return " or ".join(code("null" if value is None else str(value)) for value in values)
        case {"type": "array", "items": inner}:
            return f"array of {_kind(inner)}"
        case {"type": "object", "additionalProperties": inner} if isinstance(inner, Mapping):
            return f"object, each member {_kind(inner)}"
        case {"type": kind}:
            return " ".join([str(kind), *_limits(schema)])
    return "any"


def _limits(schema: Told) -> Iterator[str]:
    words = {"format": "{}", "pattern": "like `{}`", "minimum": "≥ {}", "maximum": "≤ {}"}
    words |= {"minLength": "≥ {} characters", "maxLength": "≤ {} characters"}
    for name, word in words.items():
        if name in schema:
            yield word.format(schema[name])
