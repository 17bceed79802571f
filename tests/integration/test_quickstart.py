"""The quickstart, followed exactly: its blocks are run as they are printed, and end with two champions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from openlineage.client.serde import Serde

from tests.support.mlflow_world import World
from tests.support.page_reader import BLOCK, PageReader
from tests.support.paths import DOCS
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

ELSEWHERE = (
    *("pip install", "python3 -m venv", "/opt/models/bin/pip install", "export AIRFLOW__AIRFLOW_MCP__PYTHON="),
    *("mlflow server", "--serve-artifacts", "airflow standalone", "airflow dags "),
)
"""Beginnings of lines that the test does in another way: the installation, the servers, and commands of Airflow."""


@pytest.fixture
def reader(world: World, tmp_path: Path) -> PageReader:
    return PageReader("quickstart.md", world, tmp_path, ELSEWHERE, {"/data/wine": str(tmp_path / "data")})


def test_no_line_is_left_out(reader: PageReader) -> None:
    assert {line.split()[0] for line in reader.lines(reader.text)} == {"airflow-mcp", "cd", "python", "export"}
    assert [block["comment"] for block in BLOCK.finditer(reader.text) if block["kind"] == "python"] == [
        *("quickstart: data", "checked: builds a Dag")
    ]


def test_a_pipeline_file_ends_with_a_champion(reader: PageReader) -> None:
    reader.follow(3)
    reader.follow(4)
    (stub,) = reader.dags.iterdir()
    outcomes = reader.run(stub)
    assert list(outcomes) == [
        *("begin", "build", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome")
    ]
    assert reader.champion("tumours") == "1"
    reader.follow(6)
    (status,) = (said for line, said in reader.said.items() if line.startswith("airflow-mcp status tumours"))
    assert "champion" in status


def test_a_dag_in_python_ends_with_a_champion(reader: PageReader, tmp_path: Path) -> None:
    data = tmp_path / "data"
    exec(reader.python("quickstart: data"), {})
    page = (DOCS / "training-scripts.md").read_text(encoding="utf-8")
    example = page.split("<!-- example: start -->")[1].split("<!-- example: end -->")[0]
    (reader.dags / "wine").mkdir()
    script = example.strip().removeprefix("```python\n").removesuffix("```")
    (reader.dags / "wine" / "train.py").write_text(script, encoding="utf-8")
    code = reader.python("checked: builds a Dag")
    assert "schedule=None" in code
    (reader.dags / "wine.py").write_text(code, encoding="utf-8")
    outcomes = reader.run(reader.dags / "wine.py")
    assert reader.champion("wine") == "1"
    require_lineage(outcomes, data, model="wine")


def require_lineage(outcomes: Mapping[str, TaskOutcome], data: Path, *, model: str) -> None:
    """Check that what the provider of OpenLineage gets of a night leads from the data to the champion."""
    extracted = {
        name: DefaultExtractor(outcome.executed).extract_on_complete(None) for name, outcome in outcomes.items()
    }
    events = {name: json.loads(Serde.to_json(found)) for name, found in extracted.items() if found is not None}
    reads = {name: [each["name"] for each in event["inputs"]] for name, event in events.items()}
    writes = {name: [each["name"] for each in event["outputs"]] for name, event in events.items()}
    assert reads["train"]
    assert all(name.startswith(str(data)) for name in reads["train"])
    assert set(reads["train"]) <= set(writes["pin_data"])
    (trained,) = writes["train"]
    assert trained in reads["evaluate"]
    assert reads["register"] == [trained]
    assert writes["register"] == [f"models/{model}"] == reads["load_check"] == reads["promote"]
    assert writes["promote"] == [f"models/{model}@champion"]
    assert events["gate"]["run_facets"]["airflow_mcp_gate"]["verdict"] == "passed"
    checked = [_require_schema(facet) for event in events.values() for facet in _facets(event)]
    assert {"GateRunFacet", "LoadCheckRunFacet", "MlflowRunFacet", "ModelVersionDatasetFacet"} <= set(checked)


def _facets(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    of_data = [each["facets"] for each in (*event["inputs"], *event["outputs"])]
    return [
        facet for facets in (event["run_facets"], *of_data) for name, facet in facets.items() if "airflow_mcp" in name
    ]


def _require_schema(facet: Mapping[str, Any]) -> str:
    """Validate a facet against the schema that it names, and return the name."""
    name = facet["_schemaURL"].rpartition("/")[2]
    jsonschema.validate(facet, json.loads((DOCS / "lineage" / f"{name}.json").read_text(encoding="utf-8")))
    return str(name)
