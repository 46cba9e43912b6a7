"""The OpenAPI document: valid, complete, and true of the server that publishes it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from gateway.admin.api import operations
from gateway.admin.operation import Operation
from tests.admin_server import TOKEN, AdminServer, admin_server

EXAMPLES = [6, pytest.param(60, marks=pytest.mark.long)]  # of each operation in each mode
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    with admin_server(f"sqlite:///{tmp_path_factory.mktemp('admin') / 'a.db'}") as server:
        yield server


@pytest.fixture(scope="module")
def described(server: AdminServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/admin/openapi.json")


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("each", operations(), ids=lambda each: f"{each.method} {each.path}")
def test_the_api_behaves_as_its_description_says(
    described: Any, each: Operation, mode: GenerationMode, examples: int
) -> None:
    if mode is GenerationMode.NEGATIVE and not (each.query or each.body or each.if_match):
        return  # nothing of it can be got wrong

    @given(case=described["/admin/v1" + each.path][each.method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        # An empty list is no parameter once it is written: what was wrong is gone with it.
        assume(all(value not in ([], {}, None) for value in (case.query or {}).values()))
        case.call_and_validate(headers={"authorization": f"Bearer {TOKEN}"}, checks=CHECKS)

    holds()


def test_the_description_is_openapi_3_1_and_names_every_operation(server: AdminServer) -> None:
    document = httpx.get(f"{server.url}/admin/openapi.json", trust_env=False).json()

    described = {
        (method.upper(), path.removeprefix("/admin/v1"))
        for path, methods in document["paths"].items()
        for method in methods
    }

    assert document["openapi"].startswith("3.1")
    assert described == {(each.method, each.path) for each in operations()}


def test_operations_have_names_of_their_own() -> None:
    from gateway.admin import openapi

    document = openapi.document(operations(), "/admin/v1", "0")
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]

    assert len(set(names)) == len(names)
