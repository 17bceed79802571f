"""The page about sensors names every parameter, its example builds a Dag, and Dags keep sensors as they are."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from airflow.sdk import DAG, BaseSensorOperator

import airflow_mcp.sensors
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.sensors import dataset, drift, registry, release, serving, waiting
from tests.support.paths import DOCS
from tests.unit.test_docs import parameters, wrong_parameters

PAGE = (DOCS / "sensors.md").read_text(encoding="utf-8")
SENSORS: dict[type[ModelControlOperator], dict[str, Any]] = {
    registry.ModelAliasSensor: {"model_name": "fraud", "version": "3"},
    registry.ModelVersionSensor: {"model_name": "fraud", "version": "3"},
    drift.DriftSensor: {"model_name": "fraud", "experiment_name": "fraud-drift"},
    dataset.DatasetVersionSensor: {"root": "/data"},
    release.ReleaseGrantedSensor: {"model_name": "fraud", "version": "3"},
    serving.ModelServedSensor: {"model_name": "fraud", "version": "3"},
}


def test_every_sensor_of_the_package_is_checked_here() -> None:
    found = set()
    for module in pkgutil.iter_modules(airflow_mcp.sensors.__path__, "airflow_mcp.sensors."):
        for name, value in vars(importlib.import_module(module.name)).items():
            is_own = isinstance(value, type) and value.__module__ == module.name and not name.startswith("_")
            found |= {value} if is_own and issubclass(value, BaseSensorOperator) else set()
    assert found - {waiting.WaitingSensor} == set(SENSORS)


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.__name__)
def test_every_parameter_is_documented_with_default_and_templating(sensor: type[ModelControlOperator]) -> None:
    section = PAGE.split(f"\n## {sensor.__name__}\n")[1].split("\n## ")[0]
    assert wrong_parameters(f"## Parameters\n{section}", sensor) == []
    assert len(parameters(sensor)) >= 7


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.__name__)
def test_a_sensor_survives_serialisation_in_a_dag(sensor: type[ModelControlOperator]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("a_dag", schedule=None) as dag:
        sensor(task_id="task", deferrable=True, poke_interval=7, **SENSORS[sensor])
    document = DagSerialization.to_dict(dag)
    restored = DagSerialization.from_dict(document).get_task("task")
    assert restored.task_type == sensor.__name__
    assert set(restored.template_fields) == set(sensor.template_fields)
    assert DagSerialization.to_dict(dag) == document


def test_the_example_builds_a_dag() -> None:
    code = PAGE.split("<!-- checked: builds a Dag -->\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "sensors.md", "exec"), names)
    assert list(names["dag"].task_dict) == ["promoted", "deploy"]
