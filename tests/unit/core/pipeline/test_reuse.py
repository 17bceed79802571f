"""What may be taken over from an earlier run, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, MetricInterval, ModelEvidence, SliceEvidence
from airflow_mcp.core.gate.judgement import evaluate_gate
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.reuse import (
    require_evidence,
    require_passing_report,
    require_reusable,
    why_not_reusable,
)
from airflow_mcp.exceptions import EvidenceError, GateRejectedError

TAGS = {contract.TAG_KIND: contract.KIND_TRAINING, contract.TAG_MODEL_NAME: "fraud"}
RUN = Run("r1", "7", "FINISHED", tags=TAGS, model_ids=("m-1",))
PIN = DatasetPin(uri="/data/v1/test.csv", version="v1", hash="sha256:aa")


def test_a_finished_training_of_the_model_can_be_reused() -> None:
    require_reusable(RUN, model_name="fraud", experiment_id="7")
    assert why_not_reusable(RUN, model_name="fraud") == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "RUNNING"}, "it is RUNNING, not FINISHED"),
        ({"status": "FAILED"}, "it is FAILED, not FINISHED"),
        ({"lifecycle_stage": "deleted"}, "it is deleted"),
        ({"model_ids": ()}, "it logged no model"),
        ({"experiment_id": "8"}, "it is in another experiment"),
        ({"tags": {**TAGS, contract.TAG_MODEL_NAME: "churn"}}, "it was trained for model 'churn', not 'fraud'"),
        ({"tags": {**TAGS, contract.TAG_KIND: "drift_check"}}, "it is not a training run"),
        ({"tags": {}}, "it is not a training run"),
    ],
)
def test_any_other_run_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        require_reusable(replace(RUN, **changes), model_name="fraud", experiment_id="7")
    assert f"MLflow run r1 cannot be reused: {reason}" in str(caught.value)
    assert "Nothing was reused" in str(caught.value)


def evidence(**changes: Any) -> EvaluationEvidence:
    given: dict[str, Any] = {
        "identity": "e1",
        "run_id": "r1",
        "model_type": "classifier",
        "target": "y",
        "dataset": PIN,
        "rows": 10,
        "candidate": ModelEvidence(model_uri="models:/m-1", metrics={"f1": 0.9}),
        "champion": None,
        "created_at": "2026-11-21T02:00:00+00:00",
        **changes,
    }
    return EvaluationEvidence(**given)


SELF_REPORTED = evidence(self_reported=True, dataset=None, model_type=None, target="", rows=0)


def refusal(reuse: Callable[[], None]) -> str:
    """Give what an reuse is refused with; empty when it is taken."""
    try:
        reuse()
    except EvidenceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("found", "pin"),
    [
        (evidence(), PIN),
        (evidence(), PIN.model_copy(update={"uri": "s3://mirror/test.csv", "version": "x"})),
        (evidence(), PIN.model_copy(update={"hash": ""})),
        (SELF_REPORTED, None),
    ],
)
def test_evidence_about_the_same_model_and_data_is_taken(found: EvaluationEvidence, pin: DatasetPin | None) -> None:
    assert refusal(lambda: require_evidence(found, run_id="r1", model_uri="models:/m-1", pin=pin)) == ""


@pytest.mark.parametrize(
    ("found", "pin", "message"),
    [
        (evidence(run_id="r2"), PIN, "is about models:/m-1 of run r2"),
        (evidence(candidate=ModelEvidence(model_uri="models:/m-2", metrics={})), PIN, "is about models:/m-2"),
        (
            evidence(),
            PIN.model_copy(update={"hash": "sha256:bb"}),
            "measured on sha256:aa, and this run uses sha256:bb",
        ),
        (evidence(), DatasetPin(uri=PIN.uri, version="v2"), "and this run uses version:v2:"),
        (evidence(), None, "and this run uses no data (self-reported)"),
        (SELF_REPORTED, PIN, "measured on no data (self-reported)"),
    ],
)
def test_evidence_about_anything_else_is_refused(
    found: EvaluationEvidence, pin: DatasetPin | None, message: str
) -> None:
    with pytest.raises(EvidenceError) as caught:
        require_evidence(found, run_id="r1", model_uri="models:/m-1", pin=pin)
    assert message in str(caught.value)


def reuse_report(judged: EvaluationEvidence, now: EvaluationEvidence, by: list[str], asked: list[str]) -> None:
    report = evaluate_gate(judged, GatePolicy.parse(by), model_name="fraud", created_at="2026-11-21T02:00:00+00:00")
    require_passing_report(report, now, model_name="fraud", policy=GatePolicy.parse(asked))


def test_a_pass_of_this_evidence_by_these_rules_is_taken() -> None:
    assert refusal(lambda: reuse_report(evidence(), evidence(), ["f1 >= 0.9", "f1 > champion"], ["f1>=0.90"])) == ""


def test_a_report_of_other_evidence_is_refused() -> None:
    with pytest.raises(EvidenceError, match="is about run, evaluation and model"):
        reuse_report(evidence(identity="e0"), evidence(), ["f1 >= 0.9"], ["f1 >= 0.9"])


def test_a_pass_by_weaker_rules_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"does not have the rule f1 >= 0\.9\b"):
        reuse_report(evidence(), evidence(), ["f1 >= 0.8"], ["f1 >= 0.9"])


def test_a_report_that_is_no_pass_is_refused() -> None:
    with pytest.raises(GateRejectedError, match=r"says failed: f1 >= 0.95: 0.9 is not >= 0.95"):
        reuse_report(evidence(), evidence(), ["f1 >= 0.95"], ["f1 >= 0.95"])


@pytest.mark.parametrize(
    "stricter",
    [
        GatePolicy.parse(["f1 >= 0.9"], ["f1"]),
        GatePolicy.parse(["f1 >= 0.9"], [], {"floors": ["f1 >= 0.5"], "min_rows": 31}),
        GatePolicy.parse(["f1 >= 0.9"], [], {"floors": ["f1 >= 0.5"], "confidence": 0.99}),
    ],
    ids=["significance", "rows-of-a-slice", "confidence"],
)
def test_a_pass_that_knew_less_of_significance_or_slices_is_refused(stricter: GatePolicy) -> None:
    interval = MetricInterval(method="bootstrap", low=0.8, high=0.9, confidence=0.95, standard_error=0.01)
    part = SliceEvidence(column="sex", value="f", rows=500, candidate={"f1": 0.85}, intervals={"f1": interval})
    found = evidence(slices=(part,))
    policy = GatePolicy.parse(["f1 >= 0.9"], [], {"floors": ["f1 >= 0.5"]})
    report = evaluate_gate(found, policy, model_name="fraud", created_at="2026-11-21T02:01:00+00:00")
    require_passing_report(report, found, model_name="fraud", policy=policy)
    with pytest.raises(EvidenceError, match="does not have the rule f1 "):
        require_passing_report(report, found, model_name="fraud", policy=stricter)
