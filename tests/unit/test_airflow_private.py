"""The private names of Airflow that the package relies on still exist; an upgrade that removes one fails here."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.api.datamodels._generated import TIRunContext
from airflow.sdk.execution_time.context import AssetStateStoreAccessors
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_mcp import airflow_private
from tests.support.paths import ROOT

TUPLE_METHODS = {"_asdict", "_replace"}
"""Public methods of named tuples, in spite of their names."""


def test_a_task_instance_carries_what_the_server_told_the_task_runner() -> None:
    assert "_ti_context_from_server" in RuntimeTaskInstance.__private_attributes__ | RuntimeTaskInstance.model_fields
    assert "next_method" in TIRunContext.model_fields


@pytest.mark.parametrize(("next_method", "is_resumed"), [("resume_workload", True), (None, False)])
def test_a_task_with_a_next_method_is_resumed(next_method: str | None, is_resumed: bool) -> None:
    instance = SimpleNamespace(_ti_context_from_server=SimpleNamespace(next_method=next_method))
    assert airflow_private.is_resumed(instance) is is_resumed
    assert not airflow_private.is_resumed(SimpleNamespace())


def test_the_state_stores_of_all_watched_assets_are_found() -> None:
    accessors = AssetStateStoreAccessors(inlets=[Asset("a"), Asset.ref(uri="s3://b/c")], outlets=[])
    stores = airflow_private.asset_state_stores(accessors)
    assert len(stores) == 2
    assert stores[0] is accessors[Asset("a")]


def test_the_pod_operator_finds_the_namespace_of_its_own_pod() -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    operator = KubernetesPodOperator(task_id="look", name="look")
    assert airflow_private.incluster_namespace(operator) is None


def _public() -> Path:
    return airflow_private.calling_folder()


def test_the_folder_of_the_file_that_calls_is_found(tmp_path: Path) -> None:
    assert _public() == Path(__file__).parent
    caller: dict[str, Any] = {"__file__": str(tmp_path / "dag.py"), "load": _public}
    exec("found = load()", caller)
    assert caller["found"] == tmp_path


@pytest.mark.parametrize(
    ("class_path", "name"), [(path, name) for path, names in airflow_private.OVERRIDDEN.items() for name in names]
)
def test_the_provider_still_defines_what_our_subclasses_override_or_read(class_path: str, name: str) -> None:
    module, _, class_name = class_path.rpartition(".")
    found = getattr(__import__(module, fromlist=[class_name]), class_name)
    assert re.search(rf"def {name}\(|self\.{name}\b[^=\n]*= ", inspect.getsource(found))


def foreign_private_names(text: str) -> Iterator[str]:
    """Find attributes with a private name that are read from another object, where a module uses Airflow."""
    tree = ast.parse(text)
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if not any(re.match(r"airflow(\.|$)", module) for module in imported):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in TUPLE_METHODS:
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()"):
                yield f"line {node.lineno}: {owner}.{node.attr}"


def test_no_other_module_reads_a_private_name_of_an_airflow_object() -> None:
    modules = (ROOT / "airflow_mcp").rglob("*.py")
    found = {path.name: list(foreign_private_names(path.read_text(encoding="utf-8"))) for path in modules}
    assert {name: lines for name, lines in found.items() if lines} == {}
    text = "from airflow.sdk import DAG\nx = dag._secret + self._own"
    assert list(foreign_private_names(text)) == ["line 2: dag._secret"]
