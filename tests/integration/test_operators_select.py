"""SelectModelOperator against a real MLflow server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_mcp.core import contract
from airflow_mcp.core.evidence import ModelEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.select import SelectModelOperator
from tests.mlflow_world import World
from tests.task_harness import FakeSupervisor, TaskOutcome, run_task

pytestmark = pytest.mark.integration


def candidate(world: World, name: str, value: float | None) -> tuple[Run, dict[str, Any]]:
    """Make a trained and evaluated candidate; without a value it has no evidence."""
    run = world.new_run()
    uri = f"models:/{world.logged_model(run)}"
    if value is not None:
        measured = ModelEvidence(model_uri=uri, run_id=run.run_id, metrics={"roc_auc": value})
        world.store_evidence(run, {}, candidate=measured, identity=f"evaluation-{name}")
    return run, {"name": name, "run_id": run.run_id, "model_uri": uri, "identity": f"training-{name}"}


def select(world: World, candidates: list[dict[str, Any]], **options: Any) -> TaskOutcome:
    return world.run(SelectModelOperator, candidates=candidates, **{"metric": "roc_auc", **options})


def test_the_best_candidate_is_handed_on_with_a_leaderboard_in_its_run(world: World) -> None:
    (_, linear), (best, forest) = candidate(world, "linear", 0.81), candidate(world, "forest", 0.93)
    outcome = select(world, [linear, forest])
    assert outcome.state == "success", outcome.error
    assert {key: outcome.result[key] for key in ("name", "run_id", "identity", "evidence_identity")} == {
        "name": "forest",
        "run_id": best.run_id,
        "identity": "training-forest",
        "evidence_identity": "evaluation-forest",
    }
    stored = json.loads(world.artifact(best, contract.ARTIFACT_LEADERBOARD))
    assert (stored["schema"], stored["winner"]) == ("airflow_mcp/leaderboard/1", "forest")
    assert stored["rows"] == outcome.result["leaderboard"]
    assert world.hook.get_run(best.run_id).tags[contract.TAG_SELECTED].startswith("forest: best of 2 by roc_auc")
    assert select(world, [linear, forest], try_number=2).result == outcome.result


def test_the_direction_decides_and_must_be_known(world: World) -> None:
    pair = [candidate(world, "a", 0.2)[1], candidate(world, "b", 0.3)[1]]
    assert select(world, pair, direction="minimize").result["name"] == "a"
    unknown = select(world, pair, metric="profit")
    assert unknown.state == "failed"
    assert "'profit'" in str(unknown.error)


def test_a_candidate_whose_training_pushed_nothing_is_refused_unless_it_may_be_missing(world: World) -> None:
    pair = [candidate(world, "good", 0.7)[1], {"name": "broken", "run_id": None, "model_uri": None}]
    refused = select(world, pair)
    assert refused.state == "failed"
    assert "broken: its training or evaluation pushed nothing" in str(refused.error)
    allowed = select(world, pair, allow_missing=True)
    assert allowed.result["name"] == "good"
    assert [row["rank"] for row in allowed.result["leaderboard"]] == [1, None]


def test_no_candidate_with_evidence_is_refused(world: World) -> None:
    outcome = select(world, [candidate(world, "a", None)[1]], allow_missing=True)
    assert outcome.state == "failed"
    assert "a: there is no evaluation/evidence.json" in str(outcome.error)


def test_evidence_about_another_model_or_evaluation_is_refused(world: World) -> None:
    item = candidate(world, "a", 0.9)[1]
    other = select(world, [{**item, "model_uri": "models:/m-other"}])
    assert other.state == "failed"
    assert "not models:/m-other" in str(other.error)
    again = select(world, [{**item, "evidence_identity": "evaluation-9"}])
    assert again.state == "failed"
    assert "expected evaluation-9" in str(again.error)
    assert select(world, [{**item, "evidence_identity": "evaluation-a"}]).state == "success"


class Train(BaseOperator):
    """A training task by name only."""


def test_what_a_failed_training_did_not_push_counts_as_missing(world: World) -> None:
    item = candidate(world, "good", 0.7)[1]
    with DAG(world.dag_id, schedule=None):
        good = Train(task_id="train_good", multiple_outputs=True)
        failed = Train(task_id="train_failed", multiple_outputs=True)
        pick = SelectModelOperator(
            task_id="select",
            metric="roc_auc",
            allow_missing=True,
            candidates=[
                {"name": name, "run_id": task.output["run_id"], "model_uri": task.output["model_uri"]}
                for name, task in (("failed", failed), ("good", good))
            ],
        )
    pushed = {("train_good", key): item[key] for key in ("run_id", "model_uri")}
    supervisor = FakeSupervisor(connections={"mlflow_default": {"host": world.url}}, xcoms=pushed)
    outcome = run_task(pick, supervisor=supervisor)
    assert outcome.state == "success", outcome.error
    assert outcome.result["name"] == "good"
    assert pick.trigger_rule == "all_done_min_one_success"
