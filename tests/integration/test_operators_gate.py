"""EvaluationGateOperator against a real MLflow server: every verdict, and the report before anything fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.gate import EvaluationGateOperator
from tests.support.mlflow_world import World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

CHAMPION = ModelUnderTest(model_uri="models:/m-0", run_id="0" * 32, version="4")


def judge(world: World, run: Run, *thresholds: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "run_id": run.run_id,
        "model_name": world.model_name,
        "thresholds": list(thresholds) or ["accuracy >= 0.9"],
        **options,
    }
    return world.run(EvaluationGateOperator, **given)


def require_stored(world: World, run: Run, verdict: str) -> dict[str, Any]:
    """Require report and tag in the run, and give the report."""
    report: dict[str, Any] = json.loads(world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON))
    html = world.artifact(run, contract.ARTIFACT_GATE_REPORT_HTML).decode()
    assert report["verdict"] == verdict
    assert verdict in html.lower()
    assert world.model_name in html
    assert world.hook.get_run(run.run_id).tags[contract.TAG_GATE_VERDICT] == verdict
    return report


@pytest.fixture
def run(world: World) -> Run:
    return world.new_run()


def test_a_candidate_that_keeps_every_rule_passes(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.95, "latency_ms": 3.0}, CHAMPION, {"accuracy": 0.93})
    outcome = judge(world, run, "accuracy >= 0.95", "latency_ms < 4", "accuracy > champion + 0.01")
    assert outcome.state == "success"
    assert {key: outcome.result[key] for key in ("verdict", "run_id", "champion_version", "report")} == {
        "verdict": "passed",
        "run_id": run.run_id,
        "champion_version": "4",
        "report": contract.ARTIFACT_GATE_REPORT_HTML,
    }
    assert [rule["verdict"] for rule in outcome.result["rules"]] == ["passed"] * 3
    assert len(require_stored(world, run, "passed")["rules"]) == 3


def test_without_a_champion_rules_against_it_do_not_apply(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.95})
    outcome = judge(world, run, "accuracy >= 0.9", "accuracy > champion")
    assert outcome.state == "success"
    assert outcome.result["champion_version"] == "none"
    assert [rule["verdict"] for rule in outcome.result["rules"]] == ["passed", None]


def test_a_broken_rule_fails_the_task_at_once_after_the_report_is_stored(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.8, "f1": 0.99})
    outcome = judge(world, run, "accuracy >= 0.9", "f1 >= 0.9")
    assert outcome.state == "failed"
    assert f"evaluation gate of {world.model_name}: failed: accuracy >= 0.9: 0.8 is not >= 0.9" in str(outcome.error)
    assert "Nothing was registered" in str(outcome.error)
    assert outcome.xcom["verdict"] == "failed"
    assert outcome.xcom["return_value"]["champion_version"] == "none"
    assert [rule["verdict"] for rule in require_stored(world, run, "failed")["rules"]] == ["failed", "passed"]


@pytest.mark.parametrize(
    ("metrics", "champion", "rule", "reason"),
    [
        ({"f1": 0.9}, None, "accuracy >= 0.9", "no value of 'accuracy' for the candidate: it was not measured"),
        ({"accuracy": 0.9}, {"f1": 0.9}, "accuracy > champion", "no value of 'accuracy' for the champion"),
        ({"accuracy": 0.9}, None, "accuracy > champion", "no rule applies"),
    ],
    ids=["candidate", "champion", "nothing-applies"],
)
def test_what_was_not_measured_is_inconclusive_and_never_a_pass(
    world: World, run: Run, metrics: dict[str, float], champion: dict[str, float] | None, rule: str, reason: str
) -> None:
    world.store_evidence(run, metrics, CHAMPION if champion else None, champion)
    outcome = judge(world, run, rule)
    assert outcome.state == "failed"
    assert reason in str(outcome.error)
    assert outcome.xcom["verdict"] == "inconclusive"
    assert reason in require_stored(world, run, "inconclusive")["reason"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_makes_the_evidence_unusable(world: World, run: Run, number: str) -> None:
    world.store_evidence(run, {"accuracy": 0.123456})
    text = world.artifact(run, contract.ARTIFACT_EVIDENCE).replace(b"0.123456", number.encode())
    world.hook.upload_artifact(run.run_id, contract.ARTIFACT_EVIDENCE, text)
    outcome = judge(world, run, "accuracy <= 0.9")
    assert outcome.state == "failed"
    assert outcome.xcom["verdict"] == "error"
    require_stored(world, run, "error")


def test_a_metric_that_could_not_be_computed_says_why(world: World, run: Run) -> None:
    evidence = world.store_evidence(run, {"accuracy": 0.9})
    candidate = evidence.candidate.model_copy(update={"undefined": {"roc_auc": "only one class in the labels"}})
    world.store_evidence(run, {}, candidate=candidate)
    outcome = judge(world, run, "roc_auc >= 0.5")
    assert outcome.xcom["verdict"] == "inconclusive"
    assert "only one class in the labels" in outcome.xcom["reason"]


def test_a_run_without_evidence_is_an_error_with_a_report(world: World, run: Run) -> None:
    outcome = judge(world, run)
    assert outcome.state == "failed"
    assert "there is no evaluation/evidence.json" in str(outcome.error)
    assert outcome.xcom["verdict"] == "error"
    require_stored(world, run, "error")


@pytest.mark.parametrize("text", [b"", b"<html>sign in</html>", b'{"schema": "airflow_mcp/evaluation/1"}', b"\xff\xfe"])
def test_evidence_that_cannot_be_read_is_an_error(world: World, run: Run, text: bytes) -> None:
    world.hook.upload_artifact(run.run_id, contract.ARTIFACT_EVIDENCE, text)
    outcome = judge(world, run)
    assert outcome.state == "failed"
    assert outcome.xcom["verdict"] == "error"
    assert "is not a valid EvaluationEvidence" in str(outcome.error)
    require_stored(world, run, "error")


def test_evidence_about_another_run_is_an_error(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.99}, run_id="f" * 32)
    outcome = judge(world, run)
    assert outcome.xcom["verdict"] == "error"
    assert f"belongs to run {'f' * 32}" in str(outcome.error)


def test_evidence_of_another_evaluation_is_an_error(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.99})
    assert judge(world, run, evidence_identity="evaluation-1").state == "success"
    outcome = judge(world, run, evidence_identity="evaluation-2")
    assert outcome.state == "failed"
    assert "is from evaluation evaluation-1, not from evaluation-2" in str(outcome.error)
    require_stored(world, run, "error")


@pytest.mark.parametrize("metrics", [{"accuracy": 0.1}, {"f1": 0.1}], ids=["failed", "inconclusive"])
def test_skipping_ends_as_a_success_and_skips_the_direct_downstream_only(
    world: World, run: Run, metrics: dict[str, float]
) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    def add_downstream(gate: Any) -> None:
        register, promote, last = (
            EmptyOperator(task_id=name, dag=gate.dag) for name in ("register", "promote", "last")
        )
        gate >> register >> promote >> last.as_teardown()
        gate >> last  # a teardown runs all the same

    world.store_evidence(run, metrics)
    outcome = judge(world, run, on_failed="skip", before=add_downstream)
    assert outcome.state == "success"
    (message,) = outcome.supervisor.messages("SkipDownstreamTasks")
    assert message.tasks in (["register"], [("register", -1)])
    assert outcome.result["verdict"] in ("failed", "inconclusive")
    require_stored(world, run, outcome.result["verdict"])


def test_unusable_evidence_fails_even_when_failures_are_to_be_skipped(world: World, run: Run) -> None:
    outcome = judge(world, run, on_failed="skip")
    assert outcome.state == "failed"
    assert not outcome.supervisor.messages("SkipDownstreamTasks")


def test_a_deleted_run_never_passes(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.99})
    world.hook.delete_run(run.run_id)
    outcome = judge(world, run)
    assert outcome.state == "failed"
    assert f"MLflow run {run.run_id}" in str(outcome.error)
    assert "deleted" in str(outcome.error)


def test_a_second_judgement_replaces_the_first(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.8})
    judge(world, run)
    world.store_evidence(run, {"accuracy": 0.95})
    assert judge(world, run).state == "success"
    require_stored(world, run, "passed")


def test_a_gate_killed_after_any_write_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        run = world.new_run()
        world.store_evidence(run, {"accuracy": 0.95})
        first = judge(world, run, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert first.state != "success"
        assert judge(world, run, try_number=2).state == "success"
        require_stored(world, run, "passed")
    assert kills >= 3


SELF_REPORTED: dict[str, Any] = {"self_reported": True, "dataset": None, "model_type": None, "target": "", "rows": 0}


def test_self_reported_evidence_is_marked_in_report_result_and_run(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.95}, **SELF_REPORTED)
    outcome = judge(world, run, "accuracy >= 0.9")
    assert (outcome.state, outcome.result["self_reported"]) == ("success", True)
    assert require_stored(world, run, "passed")["self_reported"] is True
    assert "Self-reported" in world.artifact(run, contract.ARTIFACT_GATE_REPORT_HTML).decode()
    assert world.hook.get_run(run.run_id).tags[contract.TAG_SELF_REPORTED] == "true"

    world.store_evidence(run, {"accuracy": 0.95})
    assert judge(world, run, "accuracy >= 0.9").result["self_reported"] is False
    assert world.hook.get_run(run.run_id).tags[contract.TAG_SELF_REPORTED] == "false"


def test_self_reported_evidence_is_never_compared_with_the_champion(world: World, run: Run) -> None:
    world.store_evidence(run, {"accuracy": 0.95}, CHAMPION, {}, **SELF_REPORTED)
    outcome = judge(world, run, "accuracy >= 0.9", "accuracy > champion", on_failed="skip")
    assert outcome.state == "failed"
    assert "self-reported metrics cannot be compared with the champion" in str(outcome.error)
    assert require_stored(world, run, "error")["self_reported"] is True
