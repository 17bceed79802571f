"""Facets of every operator, as events hold them, against the schemas that the docs publish."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from openlineage.client.serde import Serde

from airflow_mcp.lineage.facets import PREFIX, operator_lineage
from airflow_mcp.lineage.tasks import LINEAGE, FinishedTask
from tests.support.paths import DOCS

SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "lineage").glob("*.json")}
DATA = {"uri": "s3://lake/churn/train.csv", "version": "v1", "hash": "sha256:" + "a" * 64}
ARGUMENTS = dict.fromkeys(("dataset", "reference", "current", "entities", "labels"), DATA)
MODEL = {"model_name": "churn", "version": "7", "model_uri": "models:/m-1", "run_id": "r1"}
OUTCOMES: dict[str, dict[str, Any]] = {
    "PinDatasetOperator": {"train": DATA},
    "EvaluationGateOperator": {
        **MODEL,
        "verdict": "passed",
        "decision": "passed",
        "mode": "enforce",
        "dry_run": False,
        "report": "gate/report.html",
    },
    "TransitionModelStageOperator": {**MODEL, "current_stage": "Staging"},
    "RolloutModelOperator": {**MODEL, "phase": "SUCCEEDED", "cause": "", "previous_version": "6"},
    "DriftCheckOperator": {
        "verdict": "drifted",
        "drift_share": 0.5,
        "drifted_columns": ["a"],
        "report": "r.html",
        "run_id": "r1",
    },
    "GetHistoricalFeaturesOperator": {"verdict": "fetched", "rows": 3, "run_id": "r1", "dataset": DATA},
    "FeatureSkewCheckOperator": {"verdict": "skewed", "report": "r.html", "run_id": "r1"},
    "CheckQualityOperator": {"verdict": "degraded", "labelled_share": 0.9, "report": "r.html", "run_id": "r1"},
    "LoadCheckOperator": {**MODEL, "verdict": "passed", "load_seconds": 1.5, "memory_peak_bytes": 1_000_000},
}
"""What operators push besides a model."""


def facets(operator: str) -> dict[str, dict[str, Any]]:
    """Return the facets of our own that a task of an operator reports, by their keys."""
    arguments = {**ARGUMENTS, "requests": "s3://logs/model=churn", "model_uri": "models:/m-1"}
    found = operator_lineage([operator], FinishedTask(arguments, OUTCOMES.get(operator, MODEL), "mlflow_prod"))
    assert found is not None
    assert found.inputs or found.outputs, f"{operator} reads and writes nothing"
    all_facets = dict(found.run_facets)
    for dataset in (*found.inputs, *found.outputs):
        all_facets |= dataset.facets or {}
    return {key: json.loads(Serde.to_json(value)) for key, value in all_facets.items() if key.startswith(PREFIX)}


@pytest.mark.parametrize("operator", sorted(LINEAGE))
def test_every_facet_of_an_operator_is_as_its_schema_says(operator: str) -> None:
    for key, facet in facets(operator).items():
        name = facet["_schemaURL"].rpartition("/")[2]
        assert name.lower().startswith(key.removeprefix(PREFIX).lower())
        jsonschema.validate(facet, SCHEMAS[name])


def test_every_schema_is_used_and_documented() -> None:
    found = {key: facet for operator in LINEAGE for key, facet in facets(operator).items()}
    assert {facet["_schemaURL"].rpartition("/")[2] for facet in found.values()} == set(SCHEMAS)
    page = (DOCS / "lineage.md").read_text(encoding="utf-8")
    for key, facet in found.items():
        name = facet["_schemaURL"].rpartition("/")[2]
        assert f"| `{key}` |" in page
        assert f"[{name}](lineage/{name}.json)" in page


@pytest.mark.parametrize("operator", sorted(LINEAGE))
def test_every_operator_with_a_lineage_is_documented(operator: str) -> None:
    table = (DOCS / "lineage.md").read_text(encoding="utf-8").partition("## What is reported")[2].partition("\n## ")[0]
    assert f"`{operator}`" in table
