"""Every trigger survives the way through Airflow's database: its class path leads back to it, its arguments too."""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import json
import pkgutil
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction
from airflow.sdk.serde import deserialize, serialize
from airflow.triggers.base import BaseTrigger

import airflow_mcp.triggers
from airflow_mcp.core.drift.goal import DriftGoal
from airflow_mcp.core.registry.goal import ModelGoal
from airflow_mcp.triggers.data import DatasetGoalTrigger, DatasetVersionTrigger
from airflow_mcp.triggers.drift import DriftGoalTrigger, DriftVerdictTrigger
from airflow_mcp.triggers.git import GitCommitTrigger
from airflow_mcp.triggers.model import ModelGoalTrigger
from airflow_mcp.triggers.model_server import ModelServerTrigger
from airflow_mcp.triggers.pod import WorkloadPodTrigger
from airflow_mcp.triggers.registry import RegistryEventTrigger
from airflow_mcp.triggers.release import ReleaseDecidedTrigger
from airflow_mcp.triggers.replicas import ReplicasTrigger
from airflow_mcp.triggers.rollout import RolloutStepTrigger
from airflow_mcp.triggers.serving import ModelServedTrigger
from airflow_mcp.triggers.target import TargetTrigger

POD: dict[str, Any] = {
    "mlflow_conn_id": "mlflow_default",
    "mlflow_run_id": "r1",
    "pod_name": "train-abc-1",
    "pod_namespace": "ml",
    "trigger_start_time": dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
    "base_container_name": "base",
    "kubernetes_conn_id": "kubernetes_default",
    "poll_interval": 1.5,
    "in_cluster": None,
    "config_dict": None,
    "startup_timeout": 30,
    "schedule_timeout": 60,
    "on_finish_action": OnFinishAction.DELETE_POD.value,
    "termination_grace_period": 10,
}
TRIGGERS = [
    WorkloadPodTrigger(**POD),
    ReplicasTrigger(replicas=3, **POD),
    TargetTrigger(target="train_job", **POD),
    GitCommitTrigger(repo_url="https://example.com/x", tags="v*", git_conn_id="git", path="a/b", poll_seconds=90),
    DatasetVersionTrigger(dvc={"repo_url": "https://example.com/x", "path": "a.csv", "revision": "main"}),
    DatasetGoalTrigger(place={"root": "/data"}, other_than="v1", poll_seconds=5),
    RegistryEventTrigger(
        models=["fraud", "churn-*"],
        events=("alias_moved", "model_tag_changed"),
        aliases=["champion"],
        tags=["owner"],
        mlflow_conn_id="mlflow_default",
        poll_seconds=30,
    ),
    ModelGoalTrigger(
        goal=ModelGoal("fraud", alias="champion", other_than="3", tags={"a": "b"}).to_json(),
        mlflow_conn_id="mlflow_default",
        poll_seconds=5,
    ),
    DriftGoalTrigger(
        goal=DriftGoal("fraud", "fraud-drift", since="2026-11-21T02:00:00+00:00").to_json(),
        mlflow_conn_id="mlflow_default",
        poll_seconds=5,
    ),
    DriftVerdictTrigger(model_name="fraud", experiment_name="fraud-drift"),
    ModelServerTrigger(
        deployment={"name": "fraud", "namespace": "ml"},
        connection={"conn_id": None, "in_cluster": True, "cluster_context": None, "config_file": "/etc/kubeconfig"},
        deadline=1_790_000_000.5,
        poll_seconds=5,
    ),
    RolloutStepTrigger(
        rollout={"model_name": "fraud", "identity": "r1", "run_id": "run", "on_kill_action": "keep"},
        mlflow_conn_id="mlflow",
        serving_conn_id="servers",
        actor={"kind": "task", "name": "dag.task", "via": "run-1"},
        poll_seconds=5,
    ),
    ReleaseDecidedTrigger(
        model_name="fraud",
        version="8",
        environment="prod",
        mlflow_conn_id="mlflow",
        audit_conn_id="log",
        poll_seconds=5,
    ),
    ModelServedTrigger(model_name="fraud", version="8", share=0.5, serving_conn_id="servers", poll_seconds=5),
]


def test_every_trigger_of_the_package_is_in_this_sweep() -> None:
    found = set()
    for module in pkgutil.iter_modules(airflow_mcp.triggers.__path__, "airflow_mcp.triggers."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, BaseTrigger) and value.__module__ == module.name:
                found |= set() if inspect.isabstract(value) else {value}
    assert found == {type(trigger) for trigger in TRIGGERS}


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_is_built_again_from_what_the_database_keeps(trigger: BaseTrigger) -> None:
    path, arguments = trigger.serialize()
    stored = json.loads(json.dumps(serialize(arguments)))
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**deserialize(stored))
    assert type(again) is type(trigger)
    assert again.serialize() == (path, arguments)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_keeps_every_argument_that_it_adds(trigger: BaseTrigger) -> None:
    own = set(inspect.signature(type(trigger).__init__).parameters) - {"self", "kwargs"}
    assert own
    assert own <= trigger.serialize()[1].keys()
