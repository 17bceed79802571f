"""The page about event triggers names every argument with its default, and its example builds a Dag."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.triggers.base import BaseEventTrigger

from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.events import EVENT_NAMES, ModelState, SeenModel, Wanted, look_at_model
from airflow_mcp.triggers.data import DatasetVersionTrigger
from airflow_mcp.triggers.drift import DriftVerdictTrigger
from airflow_mcp.triggers.git import GitCommitTrigger
from airflow_mcp.triggers.registry import RegistryEventTrigger
from airflow_mcp.triggers.watch import STATE_KEY
from tests.support.paths import DOCS

PAGE = (DOCS / "triggers.md").read_text(encoding="utf-8")


def arguments(trigger: type[BaseEventTrigger]) -> dict[str, str]:
    parameters = inspect.signature(trigger.__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.name != "self"}
    return {
        name: "required"
        if value is inspect.Parameter.empty
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
        for name, value in defaults.items()
    }


@pytest.mark.parametrize(
    "trigger", [GitCommitTrigger, DatasetVersionTrigger, RegistryEventTrigger, DriftVerdictTrigger]
)
def test_every_argument_is_documented_with_its_default(trigger: type[BaseEventTrigger]) -> None:
    section = PAGE.split(f"\n## {trigger.__name__}\n")[1].split("\n## ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| `?(required|None|60|\(.*\))`? \|", section, re.M))
    assert documented == arguments(trigger)


@pytest.mark.parametrize(("number", "task"), [(1, "show"), (2, "deploy")])
def test_the_examples_build_dags(number: int, task: str) -> None:
    code = PAGE.split("<!-- checked: builds a Dag -->\n```python\n")[number].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "triggers.md", "exec"), names)
    dag = names["dag"]
    assert isinstance(dag, DAG)
    assert list(dag.task_dict) == [task]
    assert STATE_KEY in PAGE


def test_every_event_of_the_registry_and_every_field_of_its_payload_is_documented() -> None:
    section = PAGE.split("\n## RegistryEventTrigger\n")[1].split("\n## ")[0]
    seen = SeenModel(RegisteredModel("fraud", aliases={"champion": "1"}), {})
    _, (change,), _ = look_at_model(ModelState(), seen, Wanted(frozenset(EVENT_NAMES)))
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", section, re.M)) >= set(EVENT_NAMES)
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", section, re.M)) == set(change)
