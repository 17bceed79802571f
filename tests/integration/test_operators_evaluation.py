"""EvaluateModelOperator against a real MLflow server, with real models, real data and real processes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.registry.evidence import find_importance
from airflow_mcp.workloads.local import LocalBackend
from tests.support.logged_models import tracking
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

ROWS = "".join(f"{n % 7},{n % 5},{int(n % 7 > 3)}\n" for n in range(70))


@dataclass(frozen=True)
class Trained:
    """A model that was logged once for all tests."""

    run_id: str
    model_id: str

    @property
    def uri(self) -> str:
        return f"models:/{self.model_id}"


def _log(url: str, *, with_signature: bool, rule: int) -> Trained:
    import mlflow
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame({"x1": [n % 7 for n in range(70)], "x2": [n % 5 for n in range(70)]}).astype("int64")
    labels = (frame["x1"] > rule).astype("int64")
    with tracking(url), mlflow.start_run() as run:
        model = DecisionTreeClassifier(random_state=0).fit(frame, labels)
        signature = mlflow.models.infer_signature(frame, labels) if with_signature else False
        info = mlflow.sklearn.log_model(
            model, name="model", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
        )
    return Trained(run.info.run_id, info.model_id)


@pytest.fixture(scope="session")
def candidate(mlflow_server: MlflowServer) -> Trained:
    return _log(mlflow_server.url, with_signature=True, rule=3)


@pytest.fixture(scope="session")
def champion(mlflow_server: MlflowServer) -> Trained:
    return _log(mlflow_server.url, with_signature=True, rule=4)


@pytest.fixture(scope="session")
def unsigned(mlflow_server: MlflowServer) -> Trained:
    return _log(mlflow_server.url, with_signature=False, rule=3)


@pytest.fixture
def run(world: World) -> Run:
    """A run of the test's own to hold the evidence."""
    return world.new_run()


def write(world: World, text: str = "x1,x2,y\n" + ROWS, name: str = "evaluation.csv") -> dict[str, str]:
    """Write a data file and pin it."""
    path = world.folder / name
    path.write_bytes(text.encode())
    return {"uri": str(path), "version": "v1", "hash": content_hash(text.encode())}


def evaluate(world: World, run: Run, model_uri: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "run_id": run.run_id,
        "model_uri": model_uri,
        "model_name": world.model_name,
        "target": "y",
        "model_type": "classifier",
        "latency_calls": 20,
        "env": {"MARKER": world.marker},
        **options,
    }
    if "dataset" not in given:
        given["dataset"] = write(world)
    return world.run(EvaluateModelOperator, **given)


def crown(world: World, champion: Trained) -> str:
    """Make a model the champion and give its version."""
    world.hook.create_registered_model(world.model_name)
    version = world.hook.create_model_version(
        world.model_name, champion.uri, run_id=champion.run_id, model_id=champion.model_id
    )
    world.hook.set_alias(world.model_name, "champion", version.version)
    return version.version


def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when a workload is started."""

    def refuse(self: LocalBackend, workload: Any, **_: Any) -> None:
        raise AssertionError(f"workload {workload.name} was started")

    monkeypatch.setattr(LocalBackend, "run", refuse)


def test_a_candidate_is_measured_beside_the_champion_and_a_retry_measures_nothing(
    world: World, run: Run, candidate: Trained, champion: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = crown(world, champion)
    outcome = evaluate(world, run, candidate.uri, slices=["x2"])
    assert outcome.state == "success", outcome.error
    assert outcome.result["champion_version"] == version
    assert outcome.result["rows"] == 70
    assert outcome.result["metrics"]["accuracy"] == 1.0
    assert outcome.result["metrics"]["latency_ms"] > 0
    evidence = parse_document(EvaluationEvidence, world.artifact(run, contract.ARTIFACT_EVIDENCE), "evidence")
    assert evidence.identity == outcome.result["identity"]
    assert evidence.champion is not None
    assert evidence.champion.metrics["accuracy"] == pytest.approx(60 / 70)
    assert (evidence.champion.model_uri, evidence.champion.version) == (f"models:/{world.model_name}/1", "1")
    assert len(json.loads(world.artifact(run, contract.ARTIFACT_SLICES))) == 5
    assert world.artifact(run, contract.ARTIFACT_PREDICTIONS).startswith(b"PAR1")
    assert world.hook.get_run(run.run_id).metrics["evaluation/accuracy"] == 1.0

    no_process(monkeypatch)
    again = evaluate(world, run, candidate.uri, slices=["x2"], try_number=2)
    assert (again.state, again.result) == ("success", outcome.result)

    other = evaluate(world, run, candidate.uri, slices=["x1"], try_number=2)
    assert other.state != "success"
    assert "was started" in str(other.error)
    moved = evaluate(world, run, candidate.uri, slices=["x2"], try_number=2, dag_run_id="run-2")
    assert "was started" in str(moved.error)


def test_without_a_champion_the_candidate_is_measured_alone(world: World, run: Run, candidate: Trained) -> None:
    outcome = evaluate(world, run, candidate.uri)
    assert outcome.state == "success", outcome.error
    assert outcome.result["champion_version"] == "none"
    assert world.processes() == []
    assert find_importance(world.hook, run.run_id) is None
    links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
    assert links == {f"{world.url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"}


def test_the_importance_of_features_is_measured_when_it_is_asked_for(
    world: World, run: Run, candidate: Trained
) -> None:
    outcome = evaluate(world, run, candidate.uri, importance_rows=50)
    assert outcome.state == "success", outcome.error
    assert find_importance(world.hook, run.run_id) == {"x1": 1.0, "x2": 0.0}


def test_evidence_of_another_evaluation_is_not_taken_for_this_one(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store_evidence(run, {"accuracy": 1.0})
    monkeypatch.setattr(LocalBackend, "run", lambda self, workload, **_: None)
    outcome = evaluate(world, run, f"models:/m-{'0' * 32}")
    assert outcome.state == "up_for_retry"
    assert "is about another evaluation (evaluation-1, expected " in str(outcome.error)


def test_an_evaluation_that_leaves_no_evidence_is_said_so(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalBackend, "run", lambda self, workload, **_: None)
    outcome = evaluate(world, run, f"models:/m-{'0' * 32}")
    assert outcome.state == "up_for_retry"
    assert f"left no {contract.ARTIFACT_EVIDENCE} in MLflow run {run.run_id}" in str(outcome.error)


def test_a_deleted_run_is_refused_before_anything_is_measured(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_process(monkeypatch)
    world.hook.delete_run(run.run_id)
    outcome = evaluate(world, run, f"models:/m-{'0' * 32}")
    assert outcome.state == "failed"
    assert f"the candidate's MLflow run {run.run_id} is deleted" in str(outcome.error)


def test_a_run_deleted_while_it_is_evaluated_fails_and_stores_no_evidence(
    world: World, run: Run, candidate: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_local = LocalBackend.run

    def delete_then_run(self: LocalBackend, workload: Any, **options: Any) -> None:
        world.hook.delete_run(run.run_id)
        run_local(self, workload, **options)

    monkeypatch.setattr(LocalBackend, "run", delete_then_run)
    outcome = evaluate(world, run, candidate.uri)
    assert outcome.state == "failed"
    assert f"MLflow run {run.run_id} is deleted: nothing can be recorded in it" in str(outcome.error)
    assert world.processes() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "evaluation.csv is empty (0 bytes)"),
        ("x1,x2,y\n", "got 0 rows and 3 columns"),
        ("x1,x2,label\n" + ROWS, "no column 'y', needed as the label (target); it has 'x1', 'x2', 'label'"),
        ("x1,z,y\n" + ROWS, "'x2' is missing"),
        ("x1,x2,y\n" + ROWS.replace("0,0,0\n", "zero,0,0\n", 1), "'x1' is object and cannot be converted to long"),
    ],
    ids=["empty", "header-only", "no-label", "column-missing", "column-of-text"],
)
def test_data_that_does_not_fit_is_described(
    world: World, run: Run, candidate: Trained, text: str, message: str
) -> None:
    outcome = evaluate(world, run, candidate.uri, dataset=write(world, text))
    assert outcome.state == "failed"  # a retry would measure the same data
    assert message in str(outcome.error).split("error:", 1)[1]
    assert "Traceback" not in str(outcome.error)
    assert world.processes() == []
    assert world.hook.list_artifacts(run.run_id, "evaluation") == []


def test_data_that_changed_since_it_was_pinned_is_refused(world: World, run: Run, candidate: Trained) -> None:
    pin = {**write(world), "hash": f"sha256:{'0' * 64}"}
    outcome = evaluate(world, run, candidate.uri, dataset=pin)
    assert "is not the one that was pinned" in str(outcome.error)
    assert world.hook.list_artifacts(run.run_id, "evaluation") == []


def test_data_that_is_gone_is_described(world: World, run: Run, candidate: Trained) -> None:
    pin = write(world)
    Path(pin["uri"]).unlink()
    outcome = evaluate(world, run, candidate.uri, dataset=pin)
    assert outcome.state != "success"
    assert pin["uri"] in str(outcome.error)
    assert "error:" in str(outcome.error)


def test_a_model_without_a_signature_is_refused(world: World, run: Run, unsigned: Trained) -> None:
    outcome = evaluate(world, run, unsigned.uri)
    assert outcome.state == "failed"
    assert f"model {unsigned.uri} has no signature" in str(outcome.error)
    assert world.hook.list_artifacts(run.run_id, "evaluation") == []
    assert world.processes() == []


def test_an_unknown_model_is_named(world: World, run: Run) -> None:
    outcome = evaluate(world, run, f"models:/m-{'0' * 32}")
    assert outcome.state != "success"
    assert f"m-{'0' * 32}" in str(outcome.error)
    assert "error:" in str(outcome.error)


# --- without a dataset: what the training script reported -----------------------------------------------------------


@pytest.fixture(scope="session")
def talkative(mlflow_server: MlflowServer) -> Trained:
    """A model with an input example, whose script logged metrics: good ones, a NaN, and a latency of its own."""
    import mlflow
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame({"x1": [float(n % 7) for n in range(70)]})
    labels = (frame["x1"] > 3).astype("int64")
    with tracking(mlflow_server.url), mlflow.start_run() as run:
        mlflow.log_metrics(
            {"accuracy": 0.97, "val/f1": 0.9, "loss": float("nan"), "gain": float("inf"), "latency_ms": 0.001}
        )
        info = mlflow.sklearn.log_model(
            DecisionTreeClassifier(random_state=0).fit(frame, labels),
            name="model",
            input_example=frame.head(3),
            pip_requirements=[],
            serialization_format="cloudpickle",
        )
    return Trained(run.info.run_id, info.model_id)


def self_report(world: World, run_id: str, model_uri: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {"run_id": run_id, "model_uri": model_uri, "model_name": world.model_name, **options}
    return world.run(EvaluateModelOperator, latency_calls=20, **given)


def test_without_a_dataset_the_scripts_metrics_count_and_latency_is_measured(
    world: World, talkative: Trained, champion: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(world, champion)
    outcome = self_report(world, talkative.run_id, talkative.uri)
    assert outcome.state == "success", outcome.error
    assert (outcome.result["self_reported"], outcome.result["rows"]) == (True, 0)
    assert outcome.result["champion_version"] == "1"
    text = world.artifact(talkative.run_id, contract.ARTIFACT_EVIDENCE)
    evidence = parse_document(EvaluationEvidence, text, "evidence")
    metrics = dict(evidence.candidate.metrics)
    assert metrics.pop("latency_ms") > 0.001
    assert {name: value for name, value in metrics.items() if not name.startswith("latency")} == {
        "accuracy": 0.97,
        "val/f1": 0.9,
    }
    undefined = dict(evidence.candidate.undefined)
    assert "needs at least 100 calls" in undefined.pop("latency_ms_p99")
    assert undefined == {
        "loss": "the training script logged nan",
        "gain": "the training script logged an infinite value",  # SQLite keeps it as the largest double
    }
    assert evidence.champion is not None
    assert evidence.champion.metrics == {}

    no_process(monkeypatch)
    again = self_report(world, talkative.run_id, talkative.uri, try_number=2)
    assert (again.state, again.result) == ("success", outcome.result)


def test_without_an_input_example_there_is_no_latency(world: World, run: Run, unsigned: Trained) -> None:
    logged = {"accuracy": 0.9, "latency_ms": 1.0, "evaluation/accuracy": 0.1}
    world.hook.log_batch(run.run_id, metrics=logged, timestamp_ms=1)
    outcome = self_report(world, run.run_id, unsigned.uri)
    assert outcome.state == "success", outcome.error
    assert outcome.result["metrics"] == {"accuracy": 0.9}
    text = world.artifact(run, contract.ARTIFACT_EVIDENCE)
    undefined = parse_document(EvaluationEvidence, text, "evidence").candidate.undefined
    assert "input example" in undefined["latency_ms"]


def test_a_dataset_that_was_not_pushed_does_not_turn_into_self_reported_metrics(
    world: World, run: Run, candidate: Trained
) -> None:
    outcome = evaluate(world, run, candidate.uri, dataset="{{ none }}")
    assert outcome.state == "failed"
    assert "dataset must be a mapping" in str(outcome.error)
    assert "got 'None'" in str(outcome.error)
