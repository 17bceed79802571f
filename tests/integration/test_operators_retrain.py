"""RetrainTriggerOperator against a real MLflow server: reasons, objections, and one Dag run per version of the data."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.retrain import RetrainTriggerOperator
from tests.mlflow_world import World
from tests.task_harness import FakeSupervisor, TaskOutcome

pytestmark = pytest.mark.integration

DATA = {"uri": "/data/v2/train.csv", "version": "v2", "hash": "sha256:22"}


def decide(world: World, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "trigger_dag_id": "nightly_retrain",
        "model_name": world.model_name,
        "experiment": world.experiment,
        "dataset": DATA,
        "cooldown": "PT1H",
        **options,
    }
    return world.run(RetrainTriggerOperator, **given)


def with_champion(world: World) -> None:
    world.versions(1)
    world.hook.set_alias(world.model_name, "champion", "1")


def trained(world: World, *, hours_ago: float = 48, status: str = "FINISHED", **tags: str) -> None:
    """Leave a training of the model behind."""
    start = int((time.time() - hours_ago * 3600) * 1000)
    given = {
        contract.TAG_KIND: contract.KIND_TRAINING,
        contract.TAG_MODEL_NAME: world.model_name,
        contract.TAG_DATA_HASH: "sha256:11",
        **{f"{contract.TAG_PREFIX}{name}": value for name, value in tags.items()},
    }
    run = world.hook.create_run(world.experiment_id, "training", given, start)
    if status != "RUNNING":
        world.hook.update_run(run.run_id, status, start + 1000)  # type: ignore[arg-type]


def triggered(outcome: TaskOutcome) -> list[Any]:
    return outcome.supervisor.messages("TriggerDagRun")


def test_drift_triggers_the_training_dag_once_with_the_reason(world: World) -> None:
    with_champion(world)
    trained(world)
    outcome = decide(world, drift_verdict="drifted", conf={"force": False})
    assert outcome.state == "success"
    (message,) = triggered(outcome)
    assert message.dag_id == "nightly_retrain"
    assert message.run_id == outcome.xcom["triggered_run_id"]
    assert message.run_id.startswith(f"retrain__{world.model_name}__v2__")
    expected = "retrain: the data drifted (version v2)"
    assert message.conf == {"force": False, "reason": expected, "data_version": "v2"}
    assert outcome.xcom["retrain"] is True
    assert outcome.xcom["explanation"] == expected


def test_the_same_data_is_never_triggered_twice(world: World) -> None:
    with_champion(world)
    first = decide(world, drift_verdict="drifted")
    supervisor: FakeSupervisor = first.supervisor
    second = decide(world, drift_verdict="drifted", dag_run_id="run-2", supervisor=supervisor)
    assert (first.state, second.state) == ("success", "skipped")
    assert len(supervisor.existing_dag_runs) == 1
    other = {**DATA, "hash": "sha256:23"}
    assert decide(world, drift_verdict="drifted", dataset=other, supervisor=supervisor).state == "success"
    assert len(supervisor.existing_dag_runs) == 2


def test_a_model_without_a_champion_is_trained(world: World) -> None:
    outcome = decide(world)
    assert outcome.state == "success"
    assert outcome.xcom["reasons"] == ["there is no champion"]


@pytest.mark.parametrize("verdict", ["not_drifted", "inconclusive", None])
def test_without_a_reason_the_task_is_skipped_and_says_so(world: World, verdict: str | None) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict=verdict, max_model_age="P30D")
    assert outcome.state == "skipped"
    assert outcome.xcom["retrain"] is False
    assert outcome.xcom["explanation"] == "not now: no reason to retrain"
    assert outcome.xcom["triggered_run_id"] == ""
    assert not triggered(outcome)


@pytest.mark.parametrize(
    ("options", "training", "reason"),
    [
        ({"max_model_age": "PT0.001S"}, None, "the champion is"),
        ({"retrain_every": "PT24H"}, {"hours_ago": 48}, "the latest training was 2 days ago"),
        ({"retrain_every": "PT24H"}, None, "the latest training was never"),
    ],
    ids=["age", "schedule", "never-trained"],
)
def test_age_and_schedule_are_reasons(
    world: World, options: dict[str, Any], training: dict[str, Any] | None, reason: str
) -> None:
    with_champion(world)
    if training:
        trained(world, **training)
    outcome = decide(world, **options)
    assert outcome.state == "success"
    assert reason in outcome.xcom["explanation"]
    assert len(triggered(outcome)) == 1


@pytest.mark.parametrize(
    ("training", "objection"),
    [
        ({"hours_ago": 0.5}, "a training started 30 minutes ago (cooldown 60 minutes)"),
        ({"hours_ago": 0.5, "status": "RUNNING"}, "a training started 30 minutes ago"),
        ({"hours_ago": 0.5, "status": "FAILED"}, "a training started 30 minutes ago"),
        ({"data_hash": DATA["hash"]}, "data version v2 has been trained on already"),
    ],
    ids=["cooldown", "running", "failed", "same-data"],
)
def test_an_objection_outweighs_drift_and_is_explained(world: World, training: dict[str, Any], objection: str) -> None:
    with_champion(world)
    trained(world, **training)
    outcome = decide(world, drift_verdict="drifted")
    assert outcome.state == "skipped"
    assert objection in outcome.xcom["explanation"]
    assert "(wanted: the data drifted (version v2))" in outcome.xcom["explanation"]
    assert not triggered(outcome)


@pytest.mark.parametrize("tags", [{"model_name": "another"}, {"kind": "drift_check"}], ids=["model", "kind"])
def test_runs_of_something_else_are_no_objection(world: World, tags: dict[str, str]) -> None:
    with_champion(world)
    trained(world, hours_ago=0, data_hash=DATA["hash"], **tags)
    assert decide(world, drift_verdict="drifted").state == "success"


def test_data_whose_training_failed_may_be_trained_again(world: World) -> None:
    with_champion(world)
    trained(world, status="FAILED", data_hash=DATA["hash"])
    assert decide(world, drift_verdict="drifted").state == "success"


def test_the_link_leads_to_the_champion(world: World) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict="not_drifted")
    links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
    assert links == {f"{world.url}/#/models/{world.model_name}/versions/1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": None}, "dataset is None"),
        ({"dataset": {"uri": "/x", "version": "v1"}}, "dataset '/x' has no hash"),
        ({"drift_verdict": "maybe"}, "drift_verdict is 'maybe'; allowed: drifted, not_drifted, inconclusive"),
        ({"cooldown": "soon"}, "cooldown is 'soon'; allowed: a timedelta, or an ISO 8601 duration"),
        ({"max_model_age": "-PT1H"}, "max_model_age is"),
        ({"on_drift": False}, "the retrain policy has no reason to retrain"),
        ({"drift_verdict": "drifted", "conf": {"reason": "x"}}, "conf sets reason, which the operator sets itself"),
    ],
)
def test_an_argument_that_is_wrong_is_refused_and_triggers_nothing(
    world: World, options: dict[str, Any], message: str
) -> None:
    with_champion(world)
    _ = world.experiment_id
    outcome = decide(world, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert not triggered(outcome)


@pytest.mark.parametrize("ending", ["it's", 'say "x"', "' or name != '"])
def test_quotes_in_a_model_name_are_taken_as_they_are(world: World, ending: str) -> None:
    world.model_name = f"{world.model_name} {ending}"
    trained(world, hours_ago=0)
    outcome = decide(world, drift_verdict="drifted")
    assert outcome.state == "skipped"
    assert "cooldown" in outcome.xcom["explanation"]
