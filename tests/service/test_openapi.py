"""The service's own description: complete, and true of what every other test here is answered."""

from collections.abc import Iterator
from typing import Any

import pytest

from fotahook.service import Settings, build_app
from fotahook.service.openapi import document

from .conftest import Api, is_described
from .serving import SECRET_KEY

APP = build_app(None, Settings(secret_key=SECRET_KEY))  # type: ignore[arg-type]  # nothing of it is called
DOCUMENT = document(APP.resources)
OPERATIONS = [
    (path, method, told)
    for path, item in DOCUMENT["paths"].items()
    for method, told in item.items()
    if method != "parameters"
]


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


async def test_anybody_may_read_it(api: Api) -> None:
    answer = await api("GET", "/openapi.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == DOCUMENT
    assert (await api("GET", "/openapi.json")).body == answer.body


def test_each_route_and_method_is_in_it() -> None:
    served = {
        (path, method.lower())
        for path, resource in APP.resources.items()
        for method in resource.endpoints
        if method != "HEAD"
    }
    assert len(served) > 30
    assert {(path, method) for path, method, _ in OPERATIONS} == served


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)} <= set(schemas)
    assert all(schema["type"] == "object" for schema in schemas.values())


def test_every_operation_is_told_in_words_and_has_a_name_of_its_own() -> None:
    assert len({told["operationId"] for *_, told in OPERATIONS}) == len(OPERATIONS)
    for _, _, told in OPERATIONS:
        assert told["summary"].endswith((".", ";", ":"))
        assert {"413", "400"} <= set(told["responses"])


def test_a_scope_is_told_where_one_is_needed() -> None:
    publish = DOCUMENT["paths"]["/v1/messages"]["post"]
    assert publish["security"] == [{"accessToken": ["publish"]}]
    callback = DOCUMENT["paths"]["/api/fota/v2/callbacks/{account}"]["get"]
    assert callback["security"] == [{"accessToken": ["callbacks"], "sessionToken": ["callbacks"]}]
    assert DOCUMENT["paths"]["/healthz"]["get"]["security"] == []


def test_queries_are_told_as_parameters_that_are_never_null() -> None:
    told = {
        one["name"]: one["schema"] for one in DOCUMENT["paths"]["/v1/accounts/{account}/messages"]["get"]["parameters"]
    }
    assert list(told) == ["state", "type", "key", "since", "until", "cursor", "limit"]
    assert told["state"] == {"enum": ["dead", "delivered", "pending"]}
    assert told["since"] == {"type": "string", "format": "date-time"}
    assert told["limit"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}


def test_what_a_call_answers_is_its_model() -> None:
    told: dict[str, Any] = DOCUMENT["paths"]["/v1/accounts/{account}"]["get"]["responses"]["200"]
    assert told["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AccountState"}
    properties = DOCUMENT["components"]["schemas"]["AccountState"]["properties"]
    assert set(properties) == {"account", "callback", "lane", "backlog", "limits", "known"}


@pytest.mark.parametrize(
    ("method", "path", "status", "described"),
    [
        ("GET", "/healthz", 200, True),
        ("HEAD", "/healthz", 418, False),
        ("GET", "/v1/messages/x%2Fy/why?a=b", 409, False),
        ("POST", "/v1/messages/x/redeliver", 409, True),
        ("PUT", "/v1/messages/x/redeliver", 405, True),
        ("GET", "/nowhere", 404, True),
    ],
)
def test_every_answer_in_these_tests_is_held_against_it(method: str, path: str, status: int, described: bool) -> None:
    assert is_described(method, path, status) is described
