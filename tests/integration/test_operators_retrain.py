"""The operators of retraining on a real MLflow server: reasons, objections, outcomes, one Dag run per version."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.sdk.bases.skipmixin import XCOM_SKIPMIXIN_KEY as KEY

from airflow_mcp.core import contract
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.replay.retrain import replay_retrain
from airflow_mcp.core.retrain.documents import LEDGER_KEY, OUTCOMES_KEY, Ledger, ledger_name, read_document
from airflow_mcp.core.retrain.ledger import replay, state_of
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.retrain import RetrainOutcomeOperator, RetrainTriggerOperator
from tests.support.audit_log import sqlite_logs
from tests.support.governed import Governed
from tests.support.mlflow_world import World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

pytestmark = pytest.mark.integration

DATA = {"uri": "/data/v2/train.csv", "version": "v2", "hash": "sha256:22"}
NEWER = {"uri": "/data/v3/train.csv", "version": "v3", "hash": "sha256:33"}
DAG_ID = "nightly_retrain"


POLICY_ONLY = ("on_drift", "label_delay", "min_new_rows", "violations", "window_count")


def decide(world: World, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "trigger_dag_id": DAG_ID,
        "model_name": world.model_name,
        "experiment_name": world.experiment,
        "dataset": DATA,
        "cooldown": "PT1H",
        **options,
    }
    policy = {name: given.pop(name) for name in POLICY_ONLY if name in given}
    return world.run(RetrainTriggerOperator, policy=policy, **given)


def report(world: World, supervisor: FakeSupervisor, run_id: str = "", **options: Any) -> TaskOutcome:
    """Run the last task of the training Dag."""
    given = {"model_name": world.model_name, "run_id": run_id, "supervisor": supervisor, **options}
    return world.run(RetrainOutcomeOperator, task_id="outcome", **given)


def with_champion(world: World) -> None:
    world.versions(1)
    world.hook.set_alias(world.model_name, "champion", "1")


def trained(world: World, *, hours_ago: float = 48, status: str = "FINISHED", **tags: str) -> str:
    """Leave a training of the model behind, and give its run."""
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
    return run.run_id


def triggered(outcome: TaskOutcome) -> list[Any]:
    return outcome.supervisor.messages("TriggerDagRun")


def ledger(world: World, outcome: TaskOutcome) -> Ledger:
    stored = outcome.supervisor.asset_state[(ledger_name(world.model_name), LEDGER_KEY)]
    return read_document(Ledger, stored, world.model_name)


def end(supervisor: FakeSupervisor, run_id: str, state: str) -> None:
    supervisor.dag_run_states[(DAG_ID, run_id)] = state


def test_drift_triggers_the_training_dag_once_with_the_reason(world: World) -> None:
    with_champion(world)
    trained(world)
    outcome = decide(world, drift_verdict="drifted", conf={"force": False})
    assert outcome.state == "success"
    (message,) = triggered(outcome)
    assert message.dag_id == DAG_ID
    assert message.run_id == outcome.xcom["triggered_run_id"]
    assert message.run_id.startswith(f"retrain__{world.model_name}__v2__")
    expected = "retrain: the data drifted (version v2)"
    parent = {"dag_id": world.dag_id, "dag_run_id": "run-1"}
    assert message.conf == {"force": False, "reason": expected, "data_version": "v2", "parent_run": parent}
    assert (outcome.xcom["retrain"], outcome.xcom["verdict"]) == (True, "retrain")
    assert outcome.xcom["explanation"] == expected


def test_the_decision_is_in_the_ledger_before_it_is_carried_out(world: World) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict="drifted")
    kinds = [type(message).__name__ for message in outcome.supervisor.sent]
    assert kinds.index("SetAssetStateStoreByName") < kinds.index("TriggerDagRun")
    book = ledger(world, outcome)
    (entry,) = book.entries
    assert entry.answer.run_id == outcome.xcom["triggered_run_id"]
    assert entry.observation.by == f"{world.dag_id}.task run-1"
    assert replay(book) == []


def test_whoever_is_behind_the_run_must_be_permitted_to_retrain_and_a_clearer_too(world: World, tmp_path: Path) -> None:
    governed = Governed(world, sqlite_logs(tmp_path), "test")
    governed.activate()
    with_champion(world)

    def decided(**who: Any) -> TaskOutcome:
        governance = governed.governance(requester=lambda _: Requester(**who))
        return decide(world, drift_verdict="drifted", before=lambda made: made.__dict__.update(governance=governance))

    for number, who in enumerate(
        ({"account": "dora"}, {"account": "ada", "cleared_by": ("dora",)}, {"pipeline": "weekly"}, {"doubt": "a CLI"}),
        1,
    ):
        outcome = decided(**who)
        assert (outcome.state, triggered(outcome), outcome.supervisor.asset_state) == ("failed", [], {})
        event = governed.records("access.refused")[-1].event
        assert len(governed.records("access.refused")) == number
        assert (event["subject"], event["new"]["act"]) == (f"model:{world.model_name}", "retrain")
        assert event["task"]["task_id"] == "task"
    for who in ({"account": "ada"}, {"pipeline": "nightly"}):
        outcome = decided(**who)
        assert (outcome.state, len(triggered(outcome))) == ("success", 1), outcome.error
        event = governed.records("retrain.decided")[-1].event
        assert replay_retrain(event, ledger(world, outcome)).verdict == "identical"
    assert {record.event["new"]["number"] for record in governed.records("retrain.decided")} == {1}


def test_while_a_training_is_under_way_there_is_no_second_one(world: World) -> None:
    with_champion(world)
    first = decide(world, drift_verdict="drifted", cooldown="PT0S")
    other = {"dataset": NEWER, "drift_verdict": "drifted", "supervisor": first.supervisor, "cooldown": "PT0S"}
    second = decide(world, dag_run_id="run-2", **other)
    assert second.state == "skipped"
    assert f"training {first.xcom['triggered_run_id']} is queued" in second.xcom["explanation"]
    end(first.supervisor, first.xcom["triggered_run_id"], "failed")
    third = decide(world, dag_run_id="run-3", **other)
    assert third.state == "success"
    assert len(first.supervisor.existing_dag_runs) == 2


def test_a_retry_after_the_run_was_triggered_triggers_nothing_more(world: World) -> None:
    with_champion(world)
    first = decide(world, drift_verdict="drifted")
    again = decide(world, drift_verdict="drifted", supervisor=first.supervisor, try_number=2)
    assert again.state == "skipped"
    assert len(triggered(again)) == 1


def test_a_retry_after_the_ledger_was_written_and_nothing_triggered_triggers_the_same_run(world: World) -> None:
    with_champion(world)
    trained(world, data_hash=DATA["hash"], gate_verdict="error")  # of somebody else: it says nothing of this run
    first = decide(world, drift_verdict="drifted")
    first.supervisor.existing_dag_runs.clear()  # as if it had been killed right before
    again = decide(world, drift_verdict="drifted", supervisor=first.supervisor, try_number=2)
    assert again.state == "success"
    assert again.xcom["triggered_run_id"] == first.xcom["triggered_run_id"]


def test_a_run_that_is_gone_is_settled_and_the_need_is_kept(world: World) -> None:
    with_champion(world)
    first = decide(world, drift_verdict="drifted", cooldown="PT0S")
    run_id = first.xcom["triggered_run_id"]
    given = {"supervisor": first.supervisor, "cooldown": "PT0S"}
    assert decide(world, dag_run_id="run-2", **given).state == "skipped"
    first.supervisor.existing_dag_runs.clear()
    again = decide(world, dag_run_id="run-3", **given)
    assert state_of(ledger(world, again)).trainings[0].outcome == "vanished"
    assert again.xcom["triggered_run_id"] == f"{run_id}__2"


def test_a_model_without_a_champion_is_trained(world: World) -> None:
    outcome = decide(world)
    assert outcome.state == "success"
    assert outcome.xcom["reasons"] == ["there is no champion"]


def test_without_a_reason_the_task_is_skipped_and_says_so(world: World) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict="not_drifted", max_model_age="P30D")
    assert outcome.state == "skipped"
    assert (outcome.xcom["retrain"], outcome.xcom["verdict"]) == (False, "not_needed")
    assert outcome.xcom["explanation"] == "not needed: nothing asks for it"
    assert outcome.xcom["triggered_run_id"] == ""
    assert not triggered(outcome)


@pytest.mark.parametrize("verdict", ["inconclusive", None])
def test_drift_that_is_not_known_is_neither_a_reason_nor_none(world: World, verdict: str | None) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict=verdict)
    assert (outcome.state, outcome.xcom["verdict"]) == ("skipped", "inconclusive")
    strict = decide(world, drift_verdict=verdict, on_inconclusive="fail")
    assert strict.state == "failed"
    assert "cannot say, because" in str(strict.error)
    goes_on = decide(world, drift_verdict=verdict, on_inconclusive="continue")
    assert (goes_on.state, goes_on.result["verdict"]) == ("success", "inconclusive")
    assert not triggered(goes_on)
    assert len(ledger(world, strict).entries) == 1


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
    outcome = decide(world, on_drift=False, **options)
    assert outcome.state == "success"
    assert reason in outcome.xcom["explanation"]
    assert len(triggered(outcome)) == 1


@pytest.mark.parametrize(
    ("training", "objection"),
    [
        ({"hours_ago": 0.5}, "a training started 30 minutes ago (cooldown 60 minutes)"),
        ({"hours_ago": 0.5, "status": "RUNNING"}, "a training started 30 minutes ago"),
        ({"hours_ago": 0.5, "status": "FAILED"}, "a training started 30 minutes ago"),
        (
            {"data_hash": DATA["hash"], "gate_verdict": "failed"},
            "data version v2 has been trained on already (the gate's verdict on it is failed)",
        ),
        (
            {"data_hash": DATA["hash"], "model_version": "churn/3"},
            "data version v2 has been trained on already (registered as churn/3)",
        ),
    ],
    ids=["cooldown", "running", "failed", "rejected-data", "registered-data"],
)
def test_an_objection_outweighs_drift_and_is_explained(world: World, training: dict[str, Any], objection: str) -> None:
    with_champion(world)
    trained(world, **training)
    outcome = decide(world, drift_verdict="drifted")
    assert outcome.state == "skipped"
    assert outcome.xcom["explanation"].startswith("not now, because ")
    assert objection in outcome.xcom["explanation"]
    assert "(wanted: the data drifted (version v2))" in outcome.xcom["explanation"]
    assert not triggered(outcome)


@pytest.mark.parametrize("tags", [{"model_name": "another"}, {"kind": "drift_check"}], ids=["model", "kind"])
def test_runs_of_something_else_are_no_objection(world: World, tags: dict[str, str]) -> None:
    with_champion(world)
    trained(world, hours_ago=0, data_hash=DATA["hash"], gate_verdict="failed", **tags)
    assert decide(world, drift_verdict="drifted").state == "success"


@pytest.mark.parametrize("training", [{"status": "FAILED"}, {}], ids=["failed", "never-judged"])
def test_data_whose_training_came_to_nothing_may_be_trained_again(world: World, training: dict[str, str]) -> None:
    with_champion(world)
    trained(world, data_hash=DATA["hash"], **training)
    assert decide(world, drift_verdict="drifted").state == "success"


def test_new_rows_are_asked_for_and_counted(world: World) -> None:
    with_champion(world)
    few = decide(world, drift_verdict="drifted", min_new_rows=100, rows="99")
    assert "there are 99 new rows since the last training (needed: 100)" in few.xcom["explanation"]
    unknown = decide(world, drift_verdict="drifted", min_new_rows=100)
    assert unknown.xcom["verdict"] == "inconclusive"
    assert decide(world, drift_verdict="drifted", min_new_rows=100, rows="100").state == "success"


def test_a_window_is_judged_when_its_labels_are_in(world: World) -> None:
    with_champion(world)
    now = dt.datetime.now(dt.UTC)
    early = {"window_id": "monday", "window_end": now.isoformat(), "label_delay": "P7D"}
    assert decide(world, drift_verdict="drifted", **early).xcom["verdict"] == "inconclusive"
    late = {**early, "window_end": (now - dt.timedelta(days=8)).isoformat()}
    assert decide(world, drift_verdict="drifted", **late).state == "success"


class TestOutcome:
    """What the last task of a training Dag reports, and what the next decision makes of it."""

    def start(self, world: World) -> tuple[FakeSupervisor, str]:
        first = decide(world, drift_verdict="drifted", cooldown="PT0S")
        return first.supervisor, first.xcom["triggered_run_id"]

    def decided(self, world: World, supervisor: FakeSupervisor, **options: Any) -> TaskOutcome:
        given = {"supervisor": supervisor, "dag_run_id": "run-2", "dataset": NEWER, "cooldown": "PT0S", **options}
        return decide(world, **given)

    def outcome_of(self, world: World, supervisor: FakeSupervisor, run_id: str, mlflow_run: str = "") -> TaskOutcome:
        world.dag_id, dag_id = DAG_ID, world.dag_id
        outcome = report(world, supervisor, mlflow_run, dag_run_id=run_id)
        world.dag_id = dag_id
        end(supervisor, run_id, "success")
        return outcome

    def test_a_challenger_that_won_answers_the_need(self, world: World) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        mlflow_run = trained(
            world, data_hash=DATA["hash"], gate_verdict="passed", model_version=f"{world.model_name}/1"
        )
        outcome = self.outcome_of(world, supervisor, run_id, mlflow_run)
        assert outcome.result == {
            "outcome": "promoted",
            "detail": f"version 1, MLflow run {mlflow_run}",
            "run_id": mlflow_run,
        }
        after = self.decided(world, supervisor, drift_verdict="not_drifted")
        assert after.xcom["verdict"] == "not_needed"
        assert state_of(ledger(world, after)).trainings[-1].outcome == "promoted"

    def test_a_challenger_that_lost_counts_and_is_not_promoted(self, world: World) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        supervisor.task_states = {"train": "success", "gate": "failed", "promote": "upstream_failed"}
        mlflow_run = trained(world, data_hash=DATA["hash"], gate_verdict="failed")
        outcome = self.outcome_of(world, supervisor, run_id, mlflow_run)
        assert (outcome.state, outcome.xcom["outcome"]) == ("failed", "rejected")  # the Dag run ends as this task does
        assert "task gate failed. The outcome was recorded: rejected" in str(outcome.error)
        after = self.decided(world, supervisor, drift_verdict="drifted", max_rejections=1)
        assert "1 challengers in a row were rejected (limit 1); a person has to resume" in after.xcom["explanation"]

    def test_a_training_that_failed_is_needed_still(self, world: World) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        supervisor.task_states = {"train": "failed", "evaluate": "upstream_failed", "outcome": "running"}
        outcome = self.outcome_of(world, supervisor, run_id)
        assert (outcome.xcom["outcome"], outcome.xcom["detail"]) == ("failed", "task train failed")
        after = self.decided(world, supervisor, drift_verdict="not_drifted", dataset=DATA)
        assert after.xcom["triggered_run_id"] == f"{run_id}__2"

    @pytest.mark.parametrize(
        ("tags", "states", "outcome"),
        [
            ({"gate_verdict": "inconclusive"}, {"gate": "failed"}, "inconclusive"),
            ({"gate_verdict": "error"}, {"gate": "failed"}, "failed"),
            ({"gate_verdict": "passed"}, {"promote": "skipped"}, "failed"),
            ({"gate_verdict": "passed", "model_version": "NAME/7"}, {"promote": "failed"}, "failed"),
            ({"gate_verdict": "passed", "model_version": "NAME/7"}, {"register": "success"}, "registered"),
            ({}, {"evaluate": "failed"}, "failed"),
            (None, {"train": "skipped", "gate": "skipped"}, "unchanged"),
            (None, {"pin_data": "success", "train": "upstream_failed"}, "failed"),
        ],
        ids=["inconclusive", "error", "dry-run", "not-promoted", "registered", "not-judged", "unchanged", "upstream"],
    )
    def test_every_other_ending_has_its_name(
        self, world: World, tags: dict[str, str] | None, states: dict[str, str], outcome: str
    ) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        supervisor.task_states = states
        named = {name: value.replace("NAME", world.model_name) for name, value in (tags or {}).items()}
        mlflow_run = "" if tags is None else trained(world, **named)
        assert self.outcome_of(world, supervisor, run_id, mlflow_run).xcom["outcome"] == outcome

    @pytest.mark.parametrize(
        ("states", "durations", "xcoms", "outcome"),
        [
            ({"promote": "skipped"}, {"promote": 0}, {}, "failed"),
            ({"promote": "skipped"}, {"promote": 7}, {}, "failed"),
            (
                {"promote": "skipped", "alert": "skipped"},
                {"alert": 0},
                {("register", KEY): {"skipped": ["promote"]}},
                "registered",
            ),
            ({"promote": "skipped"}, {"promote": 0}, {("register", KEY): {"followed": []}}, "registered"),
            ({"promote": "skipped"}, {"promote": 0}, {("register", KEY): {"followed": ["promote"]}}, "failed"),
            ({"register": "skipped", "promote": "skipped"}, {"promote": 0}, {}, "registered"),
            ({"alert": "skipped"}, {"alert": 0}, {}, "registered"),
            ({"notify": "skipped"}, {"notify": 3}, {}, "registered"),
            ({"notify": "skipped"}, {"notify": 0}, {}, "failed"),
        ],
        ids=["marked", "waited-for-retry", "gate", "branch", "followed", "before", "rule", "own", "not-run"],
    )
    def test_a_task_that_somebody_kept_from_running_is_no_decision_to_skip(
        self,
        world: World,
        states: dict[str, str],
        durations: dict[str, float],
        xcoms: dict[tuple[str, str], Any],
        outcome: str,
    ) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        mlflow_run = trained(world, gate_verdict="passed", model_version=f"{world.model_name}/7")
        supervisor.task_states = {"register": "success", **states}
        supervisor.task_durations = durations
        supervisor.xcoms |= xcoms
        with DAG(DAG_ID, schedule=None, params={"dry_run": False}):
            register = EmptyOperator(task_id="register")
            promote = PromoteModelOperator(
                task_id="promote", model_name="m", version="7", expected_champion="1", dry_run="{{ params.dry_run }}"
            )
            alert = EmptyOperator(task_id="alert", trigger_rule="one_failed")
            end_of_run = RetrainOutcomeOperator(task_id="outcome", model_name=world.model_name, run_id=mlflow_run)
            register >> promote >> end_of_run
            register >> [alert, EmptyOperator(task_id="notify")] >> end_of_run
        ended = run_task(end_of_run, supervisor=supervisor, run_id=run_id)
        assert (ended.xcom["outcome"], ended.state) == (outcome, "failed" if outcome == "failed" else "success")
        if outcome == "failed":
            assert "did not run: somebody ended the Dag run before" in str(ended.error)

    def test_a_run_without_a_report_is_settled_from_mlflow(self, world: World) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        trained(world, dag_id=DAG_ID, dag_run_id=run_id, data_hash=DATA["hash"], gate_verdict="failed")
        end(supervisor, run_id, "failed")
        after = self.decided(world, supervisor, drift_verdict="not_drifted")
        (training,) = state_of(ledger(world, after)).trainings
        assert training.outcome == "rejected"

    def test_a_retry_reports_nothing_twice(self, world: World) -> None:
        with_champion(world)
        supervisor, run_id = self.start(world)
        mlflow_run = trained(world, gate_verdict="failed")
        for _ in range(2):
            self.outcome_of(world, supervisor, run_id, mlflow_run)
        stored = supervisor.asset_state[(ledger_name(world.model_name), OUTCOMES_KEY)]
        assert (stored["seq"], len(stored["entries"])) == (1, 1)

    def test_it_is_a_teardown_that_decides_how_the_dag_run_ends(self) -> None:
        operator = RetrainOutcomeOperator(task_id="outcome", model_name="m", run_id="")
        assert operator.is_teardown
        assert operator.on_failure_fail_dagrun
        assert operator.trigger_rule.value == "all_done_setup_success"


def test_two_models_that_share_a_ledger_are_refused(world: World) -> None:
    with_champion(world)
    shared = Asset("shared")
    first = decide(world, drift_verdict="drifted", ledger=shared)
    world.model_name = f"{world.model_name}-other"
    second = decide(world, drift_verdict="drifted", ledger=shared, supervisor=first.supervisor)
    assert second.state == "failed"
    assert "two models share one ledger" in str(second.error)


def test_a_templated_model_needs_a_ledger_that_is_named() -> None:
    from airflow_mcp.exceptions import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match="pass ledger=Asset"):
        RetrainOutcomeOperator(task_id="outcome", model_name="{{ params.model }}", run_id="")
    named = RetrainOutcomeOperator(task_id="o", model_name="{{ params.model }}", run_id="", ledger=Asset("retrain/x"))
    assert named.inlets == [Asset("retrain/x")]


def test_the_link_leads_to_the_champion(world: World) -> None:
    with_champion(world)
    outcome = decide(world, drift_verdict="not_drifted")
    links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
    assert links == {f"{world.url}/#/models/{world.model_name}/versions/1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": None}, "dataset must be a mapping with uri and version or hash; got None"),
        ({"dataset": {"uri": "/x", "version": "v1"}}, "dataset '/x' has no hash"),
        ({"drift_verdict": "maybe"}, "drift_verdict must be one of drifted, not_drifted, inconclusive; got 'maybe'"),
        (
            {"cooldown": "soon"},
            "cooldown must be a timedelta, or an ISO 8601 duration such as PT12H or P30D; got 'soon'",
        ),
        ({"max_model_age": "-PT1H"}, "max_model_age must be longer than zero"),
        ({"on_drift": False}, "the retrain policy has no reason to retrain"),
        ({"violations": 2}, "violations must be a whole number from 1 to 1; got 2"),
        ({"rows": "many"}, "rows must be a whole number from 0, or None when it is not known; got 'many'"),
        ({"labels": -1}, "labels must be a whole number from 0"),
        (
            {"drift_verdict": "drifted", "window_end": "2026-11-21"},
            "window_end must be ISO 8601 with an offset",
        ),
        (
            {"drift_verdict": "drifted", "conf": {"reason": "x"}},
            "conf must not set reason, data_version, parent_run, which the operator sets; got reason",
        ),
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
    assert not outcome.supervisor.asset_state


@pytest.mark.parametrize("ending", ["it's", 'say "x"', "' or name != '", "Modèle"])
def test_every_model_name_is_taken_as_it_is(world: World, ending: str) -> None:
    world.model_name = f"{world.model_name} {ending}"
    trained(world, hours_ago=0)
    outcome = decide(world, drift_verdict="drifted")
    assert outcome.state == "skipped"
    assert "cooldown" in outcome.xcom["explanation"]
