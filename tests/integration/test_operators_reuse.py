"""Runs that start at a later stage: what trainings, evaluations and gates hand on, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import ModelEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

PIN = DatasetPin(uri="/data/v1/test.csv", version="v1", hash="sha256:aa")


@pytest.fixture(autouse=True)
def _no_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when a workload is started: reusing is no work."""

    def refuse(self: LocalBackend, workload: Any, **_: Any) -> None:
        raise AssertionError(f"workload {workload.name} was started")

    monkeypatch.setattr(LocalBackend, "run", refuse)


@pytest.fixture
def trained(world: World) -> tuple[Run, str]:
    """A finished training run of this test's model, and the model's address."""
    tags = {
        contract.TAG_KIND: contract.KIND_TRAINING,
        contract.TAG_MODEL_NAME: world.model_name,
        contract.TAG_IDENTITY: "training-1",
    }
    run = world.new_run(tags)
    uri = f"models:/{world.logged_model(run)}"
    return world.hook.get_run(run.run_id), uri


def train(world: World, run_id: str, **options: Any) -> TaskOutcome:
    given = {"experiment_name": world.experiment, "model_name": world.model_name, "command": ["true"], **options}
    return world.run(TrainModelOperator, reuse_run_id=run_id, **given)


def evaluate(world: World, run: Run, uri: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "dataset": PIN.model_dump(),
        "target": "y",
        "model_type": "classifier",
        "reuse": "true",
        **options,
    }
    return world.run(EvaluateModelOperator, run_id=run.run_id, model_uri=uri, model_name=world.model_name, **given)


def judge(world: World, run: Run, *rules: str, reuse: str = "true") -> TaskOutcome:
    given = {"model_name": world.model_name, "thresholds": list(rules), "reuse": reuse}
    return world.run(EvaluationGateOperator, run_id=run.run_id, **given)


def store(world: World, run: Run, uri: str, accuracy: float = 0.95) -> None:
    measured = ModelEvidence(model_uri=uri, run_id=run.run_id, metrics={"accuracy": accuracy})
    world.store_evidence(run, {}, candidate=measured, dataset=PIN)


def test_a_training_hands_on_the_run_of_an_earlier_one(world: World, trained: tuple[Run, str]) -> None:
    run, uri = trained
    outcome = train(world, run.run_id)
    assert outcome.state == "success", outcome.error
    assert {key: outcome.result[key] for key in ("run_id", "model_uri", "identity", "reused")} == {
        "run_id": run.run_id,
        "model_uri": uri,
        "identity": "training-1",
        "reused": True,
    }
    assert len(world.runs()) == 1


def test_a_training_of_another_model_or_experiment_is_not_reused(world: World, trained: tuple[Run, str]) -> None:
    run_id = trained[0].run_id
    other = train(world, run_id, model_name="churn")
    assert other.state == "failed"
    assert f"it was trained for model {world.model_name!r}, not 'churn'" in str(other.error)
    elsewhere = train(world, run_id, experiment_name=f"{world.experiment}-2")
    assert elsewhere.state == "failed"
    assert "it is in another experiment" in str(elsewhere.error)


def test_a_training_that_did_not_finish_is_not_reused(world: World) -> None:
    tags = {contract.TAG_KIND: contract.KIND_TRAINING, contract.TAG_MODEL_NAME: world.model_name}
    outcome = train(world, world.new_run(tags, status="FAILED").run_id)
    assert outcome.state == "failed"
    assert "it is FAILED, not FINISHED; it logged no model" in str(outcome.error)


def test_an_evaluation_hands_on_the_evidence_of_an_earlier_one(world: World, trained: tuple[Run, str]) -> None:
    store(world, *trained)
    outcome = evaluate(world, *trained)
    assert outcome.state == "success", outcome.error
    assert (outcome.result["identity"], outcome.result["metrics"]) == ("evaluation-1", {"accuracy": 0.95})


def test_evidence_that_is_missing_or_of_other_data_is_not_reused(world: World, trained: tuple[Run, str]) -> None:
    missing = evaluate(world, *trained)
    assert missing.state == "failed"
    assert "to reuse. Nothing was measured; start at the stage evaluate" in str(missing.error)
    store(world, *trained)
    other = evaluate(world, *trained, dataset={**PIN.model_dump(), "hash": "sha256:bb"})
    assert other.state == "failed"
    assert "measured on sha256:aa, and this run uses sha256:bb" in str(other.error)


def test_evidence_that_cannot_be_read_is_not_reused(world: World, trained: tuple[Run, str]) -> None:
    world.hook.upload_artifact(trained[0].run_id, contract.ARTIFACT_EVIDENCE, b"{}")
    outcome = evaluate(world, *trained)
    assert outcome.state == "failed"
    assert "is not a valid EvaluationEvidence" in str(outcome.error)


def test_a_gate_hands_on_the_pass_of_an_earlier_one_and_writes_nothing(world: World, trained: tuple[Run, str]) -> None:
    run, uri = trained
    store(world, run, uri)
    first = judge(world, run, "accuracy >= 0.9", reuse="false")
    before = world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON)
    outcome = judge(world, run, "accuracy >= 0.9")
    assert (outcome.state, outcome.result) == ("success", first.result)
    assert world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON) == before


def test_a_gate_without_a_report_or_with_a_rejection_is_not_reused(world: World, trained: tuple[Run, str]) -> None:
    run, uri = trained
    store(world, run, uri, accuracy=0.5)
    missing = judge(world, run, "accuracy >= 0.9")
    assert missing.state == "failed"
    assert "to reuse; start at the gate" in str(missing.error)
    judge(world, run, "accuracy >= 0.9", reuse="false")
    rejected = judge(world, run, "accuracy >= 0.9")
    assert rejected.state == "failed"
    assert "says failed: accuracy >= 0.9" in str(rejected.error)


def test_a_gate_that_judged_other_evidence_or_by_other_rules_is_not_reused(
    world: World, trained: tuple[Run, str]
) -> None:
    run, uri = trained
    store(world, run, uri)
    judge(world, run, "accuracy >= 0.9", reuse="false")
    stricter = judge(world, run, "accuracy >= 0.94")
    assert stricter.state == "failed"
    assert "does not have the rule accuracy >= 0.94" in str(stricter.error)
    measured = ModelEvidence(model_uri=uri, run_id=run.run_id, metrics={"accuracy": 0.95})
    world.store_evidence(run, {}, candidate=measured, dataset=PIN, identity="evaluation-2")
    again = judge(world, run, "accuracy >= 0.9")
    assert again.state == "failed"
    assert "is about run, evaluation and model" in str(again.error)
