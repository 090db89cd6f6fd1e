"""The OpenAPI description: complete, and true of every answer in the other tests of this folder."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema_rs import Draft202012Validator

from fotahook.service import Settings, build_app
from fotahook.testing import Simulation
from fotahook.testing.simulator.campaign import Profile

from .conftest import DOCUMENT, Api, is_described
from .serving import SECRET_KEY

APP = build_app(None, Settings(secret_key=SECRET_KEY))  # type: ignore[arg-type]  # nothing of it is called
OPERATIONS = [
    (path, method, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
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


async def test_the_description_needs_no_token(api: Api) -> None:
    answer = await api("GET", "/openapi.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == DOCUMENT
    assert (await api("GET", "/openapi.json")).body == answer.body


def test_the_description_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    from generators.openapi import text

    # Otherwise run `make openapi`.
    assert files("fotahook.service").joinpath("openapi.json").read_bytes() == text()


def test_the_description_has_every_route_and_method() -> None:
    served = {
        (path, method.lower())
        for path, resource in APP.resources.items()
        for method in resource.endpoints
        if method != "HEAD"
    }
    assert len(served) > 30
    assert {(path, method) for path, method, _ in OPERATIONS} == served


def test_every_reference_resolves() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)} <= set(schemas)
    assert all(schema["type"] == "object" for schema in schemas.values())


def test_every_operation_has_a_summary_and_a_unique_id() -> None:
    assert len({operation["operationId"] for *_, operation in OPERATIONS}) == len(OPERATIONS)
    for _, _, operation in OPERATIONS:
        assert operation["summary"].endswith((".", ";", ":"))
        assert {"413", "400"} <= set(operation["responses"])


def test_the_description_names_the_required_scope() -> None:
    publish = DOCUMENT["paths"]["/v1/messages"]["post"]
    assert publish["security"] == [{"accessToken": ["publish"]}]
    callback = DOCUMENT["paths"]["/api/fota/v2/callbacks/{account}"]["get"]
    assert callback["security"] == [{"accessToken": ["callbacks"], "sessionToken": ["callbacks"]}]
    assert DOCUMENT["paths"]["/healthz"]["get"]["security"] == []


def test_queries_are_described_as_parameters_without_null() -> None:
    operation = {
        one["name"]: one["schema"] for one in DOCUMENT["paths"]["/v1/accounts/{account}/messages"]["get"]["parameters"]
    }
    assert list(operation) == ["state", "type", "key", "since", "until", "cursor", "limit"]
    assert operation["state"] == {"enum": ["dead", "delivered", "pending"]}
    assert operation["since"] == {"type": "string", "format": "date-time"}
    assert operation["limit"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}


def test_an_answer_is_described_by_its_model() -> None:
    operation: dict[str, Any] = DOCUMENT["paths"]["/v1/accounts/{account}"]["get"]["responses"]["200"]
    assert operation["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AccountState"}
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
def test_is_described_knows_statuses(method: str, path: str, status: int, described: bool) -> None:
    assert is_described(method, path, status) is described


def test_a_webhook_describes_the_messages_and_marks_what_is_published() -> None:
    """A validator of JSON Schema takes what is published, and what may come besides."""
    webhook = DOCUMENT["webhooks"]["message"]["post"]
    reference = webhook["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schemas = DOCUMENT["components"]["schemas"]
    origins = {
        f"{name}.{member}": schema["x-origin"]
        for name in (reference.rpartition("/")[2], "Upgrade", "Device", "Firmware")
        for member, schema in schemas[name]["properties"].items()
    }
    assert origins["CallbackMessage.accountName"] == origins["Upgrade.upgradeId"] == "published"
    assert origins["CallbackMessage.campaign"] == origins["Device.status"] == origins["Upgrade.campaignId"] == "ours"
    assert origins["CallbackMessage.callbackCount"] == "measured"
    assert not any("raw" in name or "extra" in name or "stale" in name for name in origins)
    validator = Draft202012Validator({**DOCUMENT, "$ref": reference})
    for profile in get_args(Profile):
        for message in Simulation("0000123456-00001", devices=3, profile=profile):
            validator.validate(json.loads(message.body))
    validator.validate({"somethingNew": 1, "type": None})
    assert not validator.is_valid({"accountName": 5})
