"""What each operator's lineage says, and that no operator is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.lineage.tasks import LINEAGE, FinishedTask, LineageDataset, lineage_of
from tests.support.operator_classes import operator_classes

NO_LINEAGE = {
    *("BeginPipelineOperator", "SelectModelOperator", "RecordApprovalOperator", "RunStepOperator", "SweepPodsOperator"),
    *("RetrainTriggerOperator", "RetrainOutcomeOperator", "RequestReleaseOperator", "ApprovalSeatOperator"),
    *("CheckpointAuditOperator", "ReconcileAuditOperator", "DeployModelServerOperator", "RollbackModelServerOperator"),
    "SteerRolloutOperator",
}
"""Operators that decide, ask or clean up: they read and write neither data nor models."""
HASH = "sha256:" + "a" * 64
DATA = {"uri": "s3://lake/churn/train.csv", "version": "v1", "hash": HASH}


def task(arguments: dict[str, Any], **outcome: Any) -> FinishedTask:
    return FinishedTask(arguments, outcome, "mlflow_prod")


def test_every_operator_has_a_lineage_or_is_known_to_have_none() -> None:
    known = LINEAGE.keys() | NO_LINEAGE
    unknown = [each.__name__ for each in operator_classes() if not known & {base.__name__ for base in each.__mro__}]
    assert unknown == []
    assert not LINEAGE.keys() & NO_LINEAGE


def test_a_training_reads_data_and_writes_a_model() -> None:
    found = lineage_of(["TrainModelOperator"], task({"dataset": DATA}, model_uri="models:/m-1", run_id="r1"))
    assert found is not None
    assert found.inputs == (LineageDataset("s3://lake", "churn/train.csv", HASH),)
    assert found.outputs == (LineageDataset("mlflow://mlflow_prod", "logged-models/m-1"),)
    assert found.facts == {"mlflow": {"runId": "r1"}}


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("/data/v1/train.csv", "file", "/data/v1/train.csv"),
        ("file:///data/train.csv", "file", "/data/train.csv"),
        ("https://user:secret@data.example.com/a/b.csv?token=secret", "https://data.example.com", "a/b.csv"),
        (
            f"dvc+https://git.example.com/team/repo#path=data/a.csv&rev={'c' * 40}",
            "https://git.example.com/team/repo",
            "data/a.csv",
        ),
        ("dvc+https://git.example.com/team/repo#path=", "dvc+https://git.example.com", "team/repo"),
    ],
)
def test_data_is_named_as_openlineage_names_it(uri: str, namespace: str, name: str) -> None:
    found = lineage_of(["TrainModelOperator"], task({"dataset": {"uri": uri, "version": "v1"}}))
    assert found is not None
    assert found.inputs == (LineageDataset(namespace, name, "v1"),)


@pytest.mark.parametrize(
    "value", [None, "", {}, {"profile": "runs:/1/p.json"}, {"requests": "s3://log"}, "champion", 3]
)
def test_what_is_not_pinned_data_is_left_out(value: Any) -> None:
    found = lineage_of(["DriftCheckOperator"], task({"reference": value, "current": [DATA]}, verdict="drifted"))
    assert found is not None
    assert [each.name for each in found.inputs] == ["churn/train.csv"]
    assert found.facts == {"drift": {"verdict": "drifted"}}


def test_a_promotion_moves_the_alias_to_the_version() -> None:
    found = lineage_of(["PromoteModelOperator"], task({}, model_name="churn", version="7", previous_version="6"))
    assert found is not None
    (version,), (alias,) = found.inputs, found.outputs
    assert (version.name, version.version) == ("models/churn", "7")
    assert (alias.name, alias.version) == ("models/churn@champion", "7")
    assert alias.model == {"modelName": "churn", "modelVersion": "7", "aliases": ["champion"]}


@pytest.mark.parametrize(("phase", "outputs"), [("SUCCEEDED", ["models/churn@champion"]), ("FAILED", [])])
def test_a_rollout_that_failed_moved_nothing(phase: str, outputs: list[str]) -> None:
    found = lineage_of(["RolloutModelOperator"], task({}, model_name="churn", version="7", phase=phase, cause=""))
    assert found is not None
    assert [each.name for each in found.outputs] == outputs
    assert found.facts == {"rollout": {"phase": phase}}


def test_a_pinned_version_writes_all_its_data() -> None:
    found = lineage_of(["PinDatasetOperator"], task({}, version="v1", hash=HASH, train=DATA, test=DATA))
    assert found is not None
    assert [each.name for each in found.outputs] == ["churn/train.csv", "churn/train.csv"]


@pytest.mark.parametrize("operator", sorted(LINEAGE))
def test_a_task_without_arguments_and_outcome_has_an_empty_lineage(operator: str) -> None:
    found = lineage_of([operator], task({}))
    assert found is not None
    assert (found.inputs, found.outputs, found.facts) == ((), (), {})


def test_a_subclass_has_the_lineage_of_its_base_and_a_stranger_has_none() -> None:
    assert lineage_of(["MyTraining", "TrainModelOperator", "BaseOperator"], task({})) is not None
    assert lineage_of(["SweepPodsOperator", "ModelControlOperator"], task({})) is None
