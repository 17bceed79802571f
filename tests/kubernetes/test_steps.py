"""The built-in steps as pods: an evaluation, a replay and a drift check on data that only the pods can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.identity import content_hash
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.replay import ReplayModelOperator
from tests.kubernetes.cluster import PodWorld
from tests.support.task_harness import TaskOutcome

ROWS = [(n % 7, n % 5, int(n % 7 > 3)) for n in range(120)]
FILES = {
    "same.csv": "x1,x2,y\n" + "".join(f"{x1},{x2},{y}\n" for x1, x2, y in ROWS),
    "shifted.csv": "x1,x2,y\n" + "".join(f"{x1 + 9},{x2},{y}\n" for x1, x2, y in ROWS),
}
FILES["requests.jsonl"] = "".join(f'{{"x1": {x1}, "x2": {x2}}}\n' for x1, x2, _ in ROWS)
RESOURCES = {"memory": "1Gi", "cpu": "1"}


@pytest.fixture
def data(world: PodWorld) -> Mapping[str, dict[str, str]]:
    """Pins of data files that are in the cluster only, in a ConfigMap."""
    body = {"metadata": {"name": f"data-{world.marker}"}, "data": FILES}
    world.cluster.api.create_namespaced_config_map(world.cluster.namespace, body)
    return {
        name: {"uri": f"/data/{name}", "version": "v1", "hash": content_hash(text.encode())}
        for name, text in FILES.items()
    }


def pod(world: PodWorld) -> dict[str, Any]:
    volume = {"name": "data", "mount_path": "/data", "config_map": f"data-{world.marker}"}
    return world.pod_options(deferrable=False, volumes=[volume])


@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_in_a_pod_leaves_its_evidence_in_mlflow(
    world: PodWorld, data: Mapping[str, dict[str, str]]
) -> None:
    run_id, model_uri = log_a_model(world)
    given: dict[str, Any] = {
        "run_id": run_id,
        "model_uri": model_uri,
        "model_name": world.model_name,
        "target": "y",
        "model_type": "classifier",
        "latency_calls": 20,
        "dataset": data["same.csv"],
        "runtime": "kubernetes",
        "workload_resources": RESOURCES,
        "kubernetes": pod(world),
    }
    outcome = world.run(EvaluateModelOperator, **given)
    assert outcome.state == "success", outcome.error
    assert (outcome.result["rows"], outcome.result["metrics"]["accuracy"]) == (120, 1.0)
    evidence = parse_document(EvaluationEvidence, world.artifact(run_id, contract.ARTIFACT_EVIDENCE), "evidence")
    assert evidence.identity == outcome.result["identity"]
    assert world.cluster.pods(world.dag_id) == []


def check(world: PodWorld, reference: Mapping[str, str], current: Mapping[str, str]) -> TaskOutcome:
    world.hook.create_registered_model(world.model_name)
    run, model_id = world.judged_model()
    trained_on = {contract.TAG_DATA_URI: reference["uri"], contract.TAG_DATA_HASH: reference["hash"]}
    version = world.hook.create_model_version(
        world.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=trained_on
    )
    world.hook.set_alias(world.model_name, "champion", version.version)
    return world.run(
        DriftCheckOperator,
        experiment_name=world.experiment,
        model_name=world.model_name,
        ignored_columns=["y"],
        current=current,
        runtime="kubernetes",
        workload_resources=RESOURCES,
        kubernetes=pod(world),
    )


def test_a_drift_check_in_a_pod_finds_the_drift(world: PodWorld, data: Mapping[str, dict[str, str]]) -> None:
    outcome = check(world, data["same.csv"], data["shifted.csv"])
    assert outcome.state == "success", outcome.error
    assert (outcome.result["verdict"], outcome.result["drifted_columns"]) == ("drifted", ["x1"])
    assert world.hook.get_run(outcome.result["run_id"]).status == "FINISHED"
    assert world.cluster.pods(world.dag_id) == []


def test_data_that_a_pod_refuses_fails_the_task_for_good(world: PodWorld, data: Mapping[str, dict[str, str]]) -> None:
    outcome = check(world, data["same.csv"], {**data["shifted.csv"], "hash": content_hash(b"other")})
    assert outcome.state == "failed", outcome.error
    for text in (outcome.xcom["pod_name"], "exit code 2", "The same input would be refused again"):
        assert text in str(outcome.error)
    assert world.runs("RUNNING") == []
    assert world.cluster.pods(world.dag_id) == []


@pytest.mark.filterwarnings("ignore")
def test_a_replay_in_a_pod_reads_the_requests_there_and_leaves_its_evidence_in_mlflow(
    world: PodWorld, data: Mapping[str, dict[str, str]]
) -> None:
    champion_run, champion_uri = log_a_model(world)
    world.hook.create_registered_model(world.model_name)
    version = world.hook.create_model_version(
        world.model_name, champion_uri, run_id=champion_run, model_id=champion_uri.removeprefix("models:/")
    )
    world.hook.set_alias(world.model_name, "champion", version.version)
    run_id, model_uri = log_a_model(world, above=4)
    given: dict[str, Any] = {
        "run_id": run_id,
        "model_uri": model_uri,
        "model_name": world.model_name,
        "requests": "/data/requests.jsonl",
        "model_type": "classifier",
        "segments": ["x2"],
        "runtime": "kubernetes",
        "workload_resources": RESOURCES,
        "kubernetes": pod(world),
    }
    outcome = world.run(ReplayModelOperator, **given)
    assert outcome.state == "success", outcome.error
    evidence = parse_document(ReplayEvidence, world.artifact(run_id, contract.ARTIFACT_REPLAY), "the replay")
    assert (evidence.requests, evidence.compared) == (120, 120)
    assert evidence.flips == outcome.result["flips"] == sum(x1 == 4 for x1, _, _ in ROWS)
    assert {part.value: part.compared for part in evidence.segments} == dict.fromkeys("01234", 24)
    assert world.cluster.pods(world.dag_id) == []


def log_a_model(world: PodWorld, above: int = 3) -> tuple[str, str]:
    """Train a small model here and log it; give the ids of run and model."""
    import mlflow
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame({"x1": [row[0] for row in ROWS], "x2": [row[1] for row in ROWS]}).astype("int64")
    labels = (frame["x1"] > above).astype("int64")
    mlflow.set_tracking_uri(world.url)
    mlflow.set_experiment(world.experiment)
    with mlflow.start_run() as run:
        model = DecisionTreeClassifier(random_state=0).fit(frame, labels)
        signature = mlflow.models.infer_signature(frame, labels)
        info = mlflow.sklearn.log_model(
            model, name="model", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
        )
    return run.info.run_id, f"models:/{info.model_id}"
