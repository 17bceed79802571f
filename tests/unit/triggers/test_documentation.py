"""The page about event triggers names every argument with its default, and its example builds a Dag."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_mcp.triggers.data import DatasetVersionTrigger
from airflow_mcp.triggers.drift import DriftVerdictTrigger
from airflow_mcp.triggers.git import GitCommitTrigger
from airflow_mcp.triggers.model import ModelVersionTrigger
from airflow_mcp.triggers.watch import STATE_KEY, WatchTrigger

PAGE = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text(encoding="utf-8")


def arguments(trigger: type[WatchTrigger]) -> dict[str, str]:
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


@pytest.mark.parametrize("trigger", [GitCommitTrigger, DatasetVersionTrigger, ModelVersionTrigger, DriftVerdictTrigger])
def test_every_argument_is_documented_with_its_default(trigger: type[WatchTrigger]) -> None:
    section = PAGE.split(f"\n## {trigger.__name__}\n")[1].split("\n## ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| `?(required|None|60)`? \|", section, re.M))
    assert documented == arguments(trigger)


def test_the_example_builds_a_dag() -> None:
    code = PAGE.split("<!-- checked: builds a Dag -->\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "triggers.md", "exec"), names)
    dag = names["dag"]
    assert isinstance(dag, DAG)
    assert list(dag.task_dict) == ["show"]
    assert STATE_KEY in PAGE
