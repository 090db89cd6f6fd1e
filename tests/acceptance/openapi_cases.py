"""schemathesis reads the description of a real service and sends it what that allows, and what it does not."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

CASES: Final = 2000
"""In all, at the least."""
EACH: Final = 30
"""Of each operation and mode, unless there are not so many."""

# What is not looked at, and why.
PASSED_OVER: Final = {
    "/v1/events": "its answer does not end; tests/service holds it to its words",
}
UNCHECKED: Final = {
    "positive_data_acceptance": "accounts, URLs, cursors and times have rules that JSON Schema does not know",
}
UNCHECKED_OF_READING: Final = {
    "negative_data_rejection": "the test adds the tokens that a case leaves out, and ?= is a parameter without a name",
}
UNCHECKED_OF_BATCHES: Final = {
    "negative_data_rejection": "each line is refused by itself, within a 200",
}
UNCHECKED_IF_EMPTY: Final = {
    "content_type_conformance": "where nothing is registered ThingSpace answers 200 with no body, and so do we",
    "response_schema_conformance": "the same",
}
UNCHECKED_AT_QUOTA: Final = {
    "not_a_server_error": "an earlier case gave the account a small quota: 507 QUOTA_REACHED is what that asks for",
}

load_all_checks()


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: Any, value: Any) -> bytes:
    return b"\n".join(json.dumps(line).encode() for line in (value if isinstance(value, list) else [value]))


class Caller:
    """Both tokens of the development client and user, and a session that is ended by each logout."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.http = requests.Session()
        self.http.trust_env = False
        form = {"grant_type": "client_credentials"}
        answer = self.http.post(f"{url}/api/ts/v1/oauth2/token", data=form, auth=("dev", "dev-secret"))
        self._token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        self._session = self.login()

    def login(self) -> dict[str, str]:
        told = {"username": "dev", "password": "dev-password"}
        answer = self.http.post(f"{self._url}/api/m2m/v1/session/login", json=told, headers=self._token)
        return {"VZ-M2M-Token": answer.json()["sessionToken"]}

    def headers(self, path: str) -> Mapping[str, str]:
        if path.startswith("/api/ts/"):
            return {"Authorization": requests.auth._basic_auth_str("dev", "dev-secret")}
        return self._token | (self.login() if path.endswith("/logout") else self._session)


def send_all(url: str) -> None:
    """Send at least CASES; fails at the first wrong answer."""
    caller, sent = Caller(url), Counter[int]()
    described: Any = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [each.ok() for each in described.get_all_operations()]
    assert {operation.path for operation in operations} >= PASSED_OVER.keys()
    for operation in operations:
        if operation.path not in PASSED_OVER:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                sent.update(statuses(caller, operation, mode))
    assert sent.total() >= CASES
    # Not everything was refused, nor taken.
    assert min(sent[200], sent[202], sent[400], sent[404]) > 20, sent


def statuses(caller: Caller, operation: "APIOperation[Any, Any, Any, Any]", mode: GenerationMode) -> list[int]:
    """Send what is generated for an operation and check each answer; the statuses of all."""
    seen: list[int] = []

    @settings(
        max_examples=EACH,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: "Case[Any]") -> None:
        headers = dict(caller.headers(operation.path))
        answer = case.call(headers=headers, session=caller.http)
        seen.append(answer.status_code)
        excluded: Any = CHECKS.get_by_names(sorted(unchecked(case, answer)))
        case.validate_response(answer, headers=headers, excluded_checks=excluded)

    try:
        send()
    except Unsatisfiable:
        # There is nothing in such a call that could be wrong.
        assert mode is GenerationMode.NEGATIVE, operation.label
    return seen


def unchecked(case: "Case[Any]", answer: schemathesis.Response) -> set[str]:
    """The checks that are left out."""
    names = set(UNCHECKED) | (UNCHECKED_OF_READING.keys() if case.method == "GET" else set())
    match case.method, case.path, answer.content:
        case "POST", "/v1/messages", _:
            names |= UNCHECKED_OF_BATCHES.keys()
        case "GET", "/api/fota/v2/callbacks/{account}", b"" if answer.status_code == 200:
            names |= UNCHECKED_IF_EMPTY.keys()
        case "POST", _, content if answer.status_code == 507 and b"QUOTA_REACHED" in content:
            names |= UNCHECKED_AT_QUOTA.keys()
    return names
