"""SelectModelOperator against a real MLflow server."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_mcp.core import contract
from airflow_mcp.core.evaluation.evidence import ModelEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.mlflow_client import paging
from airflow_mcp.operators.select import SelectModelOperator
from tests.support.mlflow_world import NOW, World, kill_points
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

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
    assert (stored["schema"], stored["winner"]) == ("airflow_mcp/leaderboard/2", "forest")
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
    assert "broken: its training or evaluation pushed no XCom" in str(refused.error)
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


# --- the best run of an experiment ---------------------------------------------------------------------------------
def logged(world: World, value: float | None, *, model: str = "READY", status: str = "FINISHED", start: int = 0) -> Run:
    """Make a run of the test's experiment that logged a value itself, or none."""
    run = world.hook.create_run(world.experiment_id, f"run of {value}", {"tuned": "yes"}, NOW + start)
    if value is not None:
        world.hook.log_batch(run.run_id, {"auc": value}, timestamp_ms=NOW)
    if model:
        world.logged_model(run, status=model)
    if status != "RUNNING":
        world.hook.update_run(run.run_id, status, NOW + start + 5)  # type: ignore[arg-type]
    return run


def best_of(world: World, **options: Any) -> TaskOutcome:
    given = {"experiment_name": world.experiment, "metric": "auc", "direction": "maximize", **options}
    return world.run(SelectModelOperator, **given)


def test_the_best_run_of_an_experiment_wins_and_what_cannot_be_used_never_does(world: World) -> None:
    good, best = logged(world, 0.7), logged(world, 0.9)
    infinite, nan, silent = logged(world, math.inf), logged(world, math.nan), logged(world, None)
    without, pending = logged(world, 0.99, model=""), logged(world, 0.98, model="PENDING")
    failed, running = logged(world, 0.97, status="FAILED"), logged(world, 0.96, status="RUNNING")
    deleted = logged(world, 0.95)
    world.hook.delete_run(deleted.run_id)
    outcome = best_of(world)
    assert outcome.state == "success", outcome.error
    assert (outcome.result["run_id"], outcome.result["name"]) == (best.run_id, "run of 0.9")
    assert outcome.result["model_uri"] == f"models:/{world.hook.get_run(best.run_id).model_ids[-1]}"
    ranks = {row["run_id"]: row["rank"] for row in outcome.result["leaderboard"]}
    assert ranks == {best.run_id: 1, good.run_id: 2} | dict.fromkeys(
        (infinite.run_id, nan.run_id, silent.run_id, without.run_id, pending.run_id)
    )
    assert failed.run_id not in ranks
    assert running.run_id not in ranks
    reasons = {row["run_id"]: row["reason"] for row in outcome.result["leaderboard"]}
    assert reasons[infinite.run_id] == "auc is infinite"
    assert reasons[nan.run_id] == "auc is nan"
    assert reasons[silent.run_id] == "it did not log auc"
    assert reasons[without.run_id] == "it has no model"
    assert "is PENDING, not READY" in reasons[pending.run_id]
    stored = json.loads(world.artifact(best, contract.ARTIFACT_LEADERBOARD))
    assert (stored["experiment_name"], stored["runs_read"], stored["self_reported"]) == (world.experiment, 7, True)
    assert "best of experiment" in world.hook.get_run(best.run_id).tags[contract.TAG_SELECTED]


def test_of_equal_runs_the_one_that_started_first_wins_whatever_the_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [logged(world, 0.5, start=start) for start in (40, 10, 30, 20)]
    logged(world, 0.4)
    for size in (1, 2, 1000):
        monkeypatch.setattr(paging, "PAGE_SIZE", size)
        assert best_of(world, leaderboard_size=1).result["run_id"] == runs[1].run_id
    assert best_of(world, direction="minimize").result["name"] == "run of 0.4"


def test_reading_ends_when_the_leaderboard_is_settled_or_at_the_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        logged(world, number / 100, start=number)
    monkeypatch.setattr(paging, "PAGE_SIZE", 3)

    def read(**options: Any) -> int:
        outcome = best_of(world, **options)
        assert outcome.result["name"] == "run of 0.11"
        return int(json.loads(world.artifact(outcome.result["run_id"], contract.ARTIFACT_LEADERBOARD))["runs_read"])

    assert read(leaderboard_size=1) == 3
    assert read(leaderboard_size=4) == 6
    assert read() == 12
    assert read(max_runs=5) == 5


def test_a_filter_narrows_the_runs_and_a_wrong_one_is_refused_by_the_server(world: World) -> None:
    logged(world, 0.9)
    other = logged(world, 0.2)
    world.hook.set_tag(other.run_id, "tuned", "no")
    assert best_of(world, filter="tags.tuned = 'no'").result["run_id"] == other.run_id
    nothing = best_of(world, filter="tags.tuned = 'perhaps'")
    assert nothing.state == "failed"
    assert "there is none that is finished and meets the filter" in str(nothing.error)
    assert "INVALID_PARAMETER_VALUE" in str(best_of(world, filter="nonsense").error)


def test_no_run_with_a_usable_value_is_refused_with_the_reasons(world: World) -> None:
    run = logged(world, math.nan)
    outcome = best_of(world)
    assert outcome.state == "failed"
    assert f"{run.run_id}: auc is nan" in str(outcome.error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": []}, "exactly one of candidates and experiment_name must be given; got both"),
        ({"experiment_name": ""}, "exactly one of candidates and experiment_name must be given"),
        ({"experiment_name": "nobody made it"}, "got 'nobody made it'. It does not exist"),
        ({"metric": "a`b"}, "metric must be a name without backquotes"),
        ({"metric": "profit", "direction": None}, "'profit'"),
    ],
)
def test_a_pick_from_an_experiment_that_is_asked_for_wrongly_is_refused(
    world: World, options: dict[str, Any], message: str
) -> None:
    outcome = best_of(world, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)


def test_a_pick_from_an_experiment_that_is_killed_anywhere_is_the_same_when_it_is_retried(world: World) -> None:
    logged(world, 0.3)
    best = logged(world, 0.6)
    for kills, switch in enumerate(kill_points(writes_only=False)):
        first = best_of(world, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            assert kills >= 5
        assert best_of(world, try_number=2).result["run_id"] == best.run_id
