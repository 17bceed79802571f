"""The OpenAPI document: valid, the same as the one in the docs, and complete."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from airflow_mcp.plugins.problems import KINDS
from tests.support.paths import DOCS

KEPT = DOCS / "publisher-openapi.json"


@pytest.fixture(scope="module")
def document() -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mcp.publisher"], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout)


def test_the_document_is_valid_and_the_validator_notices_a_mistake(document: Any) -> None:
    validate(document)
    broken = json.loads(json.dumps(document))
    del broken["paths"]["/models"]["get"]["responses"]
    broken["paths"]["/models"]["get"]["parameters"][0].pop("name")
    with pytest.raises(OpenAPIValidationError):
        validate(broken)


def test_the_document_in_the_docs_is_the_present_one(document: Any) -> None:
    assert json.loads(KEPT.read_text(encoding="utf-8")) == document, (
        "run python -m airflow_mcp.publisher > docs/publisher-openapi.json"
    )


def test_every_operation_has_a_name_a_login_and_problems_as_its_errors(document: Any) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) >= 19
    for operation in operations:
        assert operation["security"] == [{"airflow": []}], operation["operationId"]
        problem = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/ProblemDetails"}
        assert "422" not in operation["responses"]
        assert operation["description"], operation["operationId"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_write_of_json_asks_for_an_idempotency_key(document: Any) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {})
            needed = [
                each["name"] for each in operation.get("parameters", []) if each["in"] == "header" and each["required"]
            ]
            assert ("application/json" in body) is ("Idempotency-Key" in needed), f"{method} {path}"


def test_the_page_explains_every_kind_of_problem_that_the_api_answers() -> None:
    page = (DOCS / "publisher.md").read_text(encoding="utf-8")
    elsewhere = {"method-not-allowed", "internal"}
    missing = [kind for kind, (status, _) in KINDS.items() if f"`{kind}`" not in page and kind not in elsewhere]
    assert missing == []
