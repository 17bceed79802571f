"""What follows from a gate's verdict: modes, branches, and a person's yes, on a real MLflow server and task runner."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import call, create_autospec

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.evaluation.evidence import MetricComparison, ModelUnderTest
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.moves import MoveOrder, read_history
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.gate_approval import RecordApprovalOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.promotion import Promotion, check_promotion, promote
from tests.support.mlflow_world import World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

GOOD, BAD, UNKNOWN = {"accuracy": 0.95}, {"accuracy": 0.1}, {"f1": 0.9}
CHAMPION = ModelUnderTest(model_uri="models:/m-0", run_id="0" * 32, version="4")
UNDECIDED = MetricComparison(
    metric="accuracy",
    method="mcnemar",
    difference=0.01,
    low=-0.01,
    high=0.03,
    confidence=0.95,
    p_value=0.3,
    standard_error=0.01,
    rows=100,
    resamples=0,
    seed=0,
)


@pytest.fixture
def candidate(world: World) -> tuple[Run, str]:
    """A run with a logged model that nobody has judged yet."""
    return world.judged_model(None)


def judge(world: World, run: Run, **options: Any) -> TaskOutcome:
    given = {"run_id": run.run_id, "model_name": world.model_name, "thresholds": ["accuracy >= 0.9"]}
    return world.run(EvaluationGateOperator, **{**given, **options})


def register(world: World, model_id: str) -> TaskOutcome:
    return world.run(RegisterModelOperator, model_name=world.model_name, model_uri=f"models:/{model_id}")


def tag(world: World, run: Run, name: str = contract.TAG_GATE_VERDICT) -> str | None:
    return world.hook.get_run(run.run_id).tags.get(name)


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metrics", [BAD, UNKNOWN], ids=["failed", "inconclusive"])
def test_a_warned_candidate_is_registered_and_promoted_and_marked_everywhere(
    world: World, candidate: tuple[Run, str], metrics: dict[str, float]
) -> None:
    run, model_id = candidate
    world.store_evidence(run, metrics)
    gate = judge(world, run, mode="warn")
    assert gate.state == "success"
    assert (gate.result["decision"], gate.result["mode"]) == ("warned", "warn")
    assert gate.result["verdict"] in ("failed", "inconclusive")
    assert tag(world, run) == "warned"
    assert "Warned." in world.artifact(run, contract.ARTIFACT_GATE_REPORT_HTML).decode()

    registered = register(world, model_id)
    assert registered.state == "success", registered.error
    (version,) = world.all_versions()
    assert version.tags[contract.TAG_GATE_VERDICT] == "warned"
    promoted = world.run(
        PromoteModelOperator,
        model_name=world.model_name,
        version=version.version,
        expected_champion="none",
        require_load_check=False,
    )
    assert promoted.state == "success", promoted.error
    assert [move.gate_verdict for move in read_history(world.registered.tags)] == ["warned"]


def test_that_a_version_is_only_warned_is_said_once_by_its_promotion_and_by_a_dry_run_too(world: World) -> None:
    world.versions(1, "warned")
    order = MoveOrder("promote", "promotion-1", Actor.of_user("ada", "laptop"))
    promotion = Promotion(order=order, model_name=world.model_name, version="1", expected_champion=None)
    warning = f"version 1 of {world.model_name!r} did not pass the gate by itself: it is warned"
    dry_run, done = create_autospec(TaskLog), create_autospec(TaskLog)
    check_promotion(world.hook, promotion, log=dry_run)
    assert dry_run.warning.call_args_list == [call(warning)]
    assert world.aliases == {}
    promote(world.hook, promotion, log=done, governance=NOT_GOVERNED)
    assert done.warning.call_args_list == [call(warning)]
    assert world.aliases == {"champion": "1"}


@pytest.mark.parametrize("options", [{}, {"on_failed": "skip"}])
def test_a_gate_that_warns_fails_all_the_same_when_the_evidence_cannot_be_used(
    world: World, candidate: tuple[Run, str], options: dict[str, Any]
) -> None:
    run, model_id = candidate
    assert judge(world, run, mode="warn", **options).state == "failed"
    assert tag(world, run) == "error"
    assert register(world, model_id).state == "failed"


@pytest.mark.parametrize("metrics", [GOOD, BAD, UNKNOWN, None], ids=["passed", "failed", "inconclusive", "error"])
def test_a_dry_run_lets_the_dag_go_on_and_opens_no_registration(
    world: World, candidate: tuple[Run, str], metrics: dict[str, float] | None
) -> None:
    run, model_id = candidate
    if metrics is not None:
        world.store_evidence(run, metrics)
    gate = judge(world, run, dry_run=True)
    assert gate.state == "success", gate.error
    assert (gate.result["decision"], gate.result["report"]) == ("none", contract.ARTIFACT_GATE_DRY_RUN_HTML)
    assert tag(world, run) is None
    assert tag(world, run, contract.TAG_GATE_DRY_RUN) == gate.result["verdict"]
    assert "Dry run." in world.artifact(run, contract.ARTIFACT_GATE_DRY_RUN_HTML).decode()
    refused = register(world, model_id)
    assert refused.state == "failed"
    assert "has gate verdict none" in str(refused.error)


def test_a_dry_run_leaves_alone_what_an_enforced_gate_has_decided(world: World, candidate: tuple[Run, str]) -> None:
    run, _ = candidate
    world.store_evidence(run, GOOD)
    judge(world, run)
    report = world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON)
    assert judge(world, run, dry_run="true", thresholds=["accuracy >= 0.99"]).result["verdict"] == "failed"
    assert tag(world, run) == "passed"
    assert world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON) == report


def test_a_mode_that_does_not_exist_is_refused(world: World, candidate: tuple[Run, str]) -> None:
    outcome = judge(world, candidate[0], mode="{{ 'wran' }}")
    assert outcome.state == "failed"
    assert "mode must be one of enforce, warn; got 'wran'" in str(outcome.error)


@pytest.mark.parametrize(
    ("then", "now", "state"),
    [("warn", "warn", "success"), ("warn", "enforce", "failed"), ("enforce", "enforce", "failed")],
)
def test_a_warned_report_is_reused_only_where_the_gate_warns_today_too(
    world: World, then: str, now: str, state: str
) -> None:
    run = world.new_run({contract.TAG_KIND: contract.KIND_TRAINING, contract.TAG_MODEL_NAME: world.model_name})
    world.logged_model(run)
    world.store_evidence(run, BAD)
    judge(world, run, mode=then)
    assert judge(world, run, mode=now, reuse=True).state == state


# --- branches ---------------------------------------------------------------------------------------------------------


def lead_to(*direct: str, then: str = "register") -> Any:
    """Put tasks behind the gate; all of them lead to one."""

    def add(gate: Any) -> None:
        last = EmptyOperator(task_id=then, dag=gate.dag, trigger_rule="none_failed_min_one_success")
        gate >> last
        for name in direct:
            gate >> EmptyOperator(task_id=name, dag=gate.dag) >> last

    return add


def skipped(outcome: TaskOutcome) -> set[str]:
    messages = outcome.supervisor.messages("SkipDownstreamTasks")
    return {task if isinstance(task, str) else task[0] for message in messages for task in message.tasks}


BRANCHES = {"extend": "gather", "ask": "approve"}


@pytest.mark.parametrize(
    ("metrics", "options", "state", "expected"),
    [
        (GOOD, {}, "success", {"gather", "approve"}),
        (UNKNOWN, {}, "success", {"gather"}),
        (UNKNOWN, {"on_failed": "skip"}, "success", {"gather"}),
        (BAD, {}, "failed", set()),
        (BAD, {"on_failed": "skip"}, "success", {"gather", "approve", "register"}),
        (BAD, {"mode": "warn"}, "success", {"gather", "approve"}),
        (UNKNOWN, {"dry_run": True}, "success", {"gather", "approve"}),
        (None, {}, "failed", set()),
    ],
    ids=["passed", "asked", "asked-not-skipped", "failed", "skipped", "warned", "dry-run", "error"],
)
def test_tasks_take_over_only_when_the_gate_is_inconclusive(
    world: World, metrics: dict[str, float] | None, options: dict[str, Any], state: str, expected: set[str]
) -> None:
    run = world.new_run()
    if metrics is not None:
        world.store_evidence(run, metrics)
    outcome = judge(world, run, escalation=BRANCHES, before=lead_to("gather", "approve"), **options)
    assert outcome.state == state
    assert skipped(outcome) == expected
    assert outcome.result["run_id"] == run.run_id
    pushed = [message.key for message in outcome.supervisor.messages("SetXCom")]
    assert [pushed.count(key) for key in ("return_value", *outcome.result)] == [1] * (1 + len(outcome.result))
    if state == "success" and "register" not in expected:
        assert "register" in outcome.xcom["skipmixin_key"]["followed"]


@pytest.mark.parametrize("metrics", [GOOD, UNKNOWN], ids=["passed", "asked"])
def test_a_teardown_behind_the_gate_runs_whoever_takes_over(world: World, metrics: dict[str, float]) -> None:
    def add(gate: Any) -> None:
        lead_to("approve")(gate)
        gate >> EmptyOperator(task_id="outcome", dag=gate.dag).as_teardown()

    run = world.new_run()
    world.store_evidence(run, metrics)
    outcome = judge(world, run, escalation={"ask": "approve"}, before=add)
    assert outcome.state == "success"
    assert "outcome" not in skipped(outcome)
    assert "outcome" in outcome.xcom["skipmixin_key"]["followed"]


def test_more_rows_are_gathered_when_they_would_decide(world: World) -> None:
    run = world.new_run()
    world.store_evidence(run, GOOD, CHAMPION, {"accuracy": 0.94}, comparisons=(UNDECIDED,))
    rules = {"thresholds": ["accuracy >= 0.9"], "significance": ["accuracy"]}
    outcome = judge(world, run, escalation=BRANCHES, before=lead_to("gather", "approve"), **rules)
    assert (outcome.state, skipped(outcome)) == ("success", {"approve"})
    assert 600 < outcome.result["rows_needed"] < 1000
    few = {**BRANCHES, "max_rows": 500}
    assert skipped(judge(world, run, escalation=few, before=lead_to("gather", "approve"), **rules)) == {"gather"}


@pytest.mark.parametrize("metrics", [GOOD, UNKNOWN, BAD], ids=["passed", "asked", "skipped"])
def test_a_result_is_pushed_once_where_nothing_is_left_to_skip(world: World, metrics: dict[str, float]) -> None:
    def add(gate: Any) -> None:
        gate >> EmptyOperator(task_id="outcome", dag=gate.dag).as_teardown()

    run = world.new_run()
    world.store_evidence(run, metrics)
    branches = {"escalation": {"ask": "outcome"}, "on_failed": "skip"}
    outcome = judge(world, run, before=add, **branches)
    assert (outcome.state, skipped(outcome)) == ("success", set())
    pushed = [message.key for message in outcome.supervisor.messages("SetXCom")]
    assert [pushed.count(key) for key in ("return_value", "verdict", "rules")] == [1, 1, 1]


def test_without_a_task_to_follow_an_inconclusive_gate_fails(world: World) -> None:
    run = world.new_run()
    world.store_evidence(run, UNKNOWN)
    outcome = judge(world, run, escalation={"extend": "gather"}, before=lead_to("gather"))
    assert outcome.state == "failed"
    assert outcome.result["rows_needed"] is None


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"on_inconclusive": "skip"}, "success"),
        ({"on_inconclusive": "fail", "on_failed": "skip"}, "failed"),
        ({"on_inconclusive": "skip", "escalation": {"extend": "gather"}}, "success"),
    ],
)
def test_an_inconclusive_gate_may_end_in_another_way_than_a_failed_one(
    world: World, options: dict[str, Any], state: str
) -> None:
    run = world.new_run()
    world.store_evidence(run, UNKNOWN)
    outcome = judge(world, run, before=lead_to("gather"), **options)
    assert outcome.state == state
    assert skipped(outcome) == ({"gather", "register"} if state == "success" else set())


def test_a_task_that_does_not_follow_cannot_take_over(world: World) -> None:
    run = world.new_run()
    world.store_evidence(run, GOOD)
    outcome = judge(world, run, escalation={"ask": "aprove"}, before=lead_to("approve"))
    assert outcome.state == "failed"
    assert "escalation must name tasks that are directly downstream of 'task' (approve, register); got aprove" in str(
        outcome.error
    )
    assert tag(world, run) is None


def test_tasks_that_a_gate_skipped_stay_skipped_when_they_are_cleared() -> None:
    gate = EvaluationGateOperator(task_id="gate", run_id="1", model_name="m", thresholds=["f1 > 0"])
    assert gate.inherits_from_skipmixin


# --- a person's yes ---------------------------------------------------------------------------------------------------

YES: dict[str, Any] = {
    "chosen_options": ["Approve"],
    "params_input": {"reason": "seen on the test track"},
    "responded_by_user": {"id": "7", "name": "ada"},
    "responded_at": datetime(2026, 11, 25, 9, 30, tzinfo=UTC),
}


def approve(world: World, run: Run, report_hash: str, answer: Any = YES, **options: Any) -> TaskOutcome:
    given = {"run_id": run.run_id, "model_name": world.model_name, "report_hash": report_hash, "answer": answer}
    return world.run(RecordApprovalOperator, **{**given, **options})


def inconclusive(world: World, run: Run) -> str:
    world.store_evidence(run, UNKNOWN)
    gate = judge(world, run)
    assert gate.xcom["verdict"] == "inconclusive"
    return str(gate.xcom["report_hash"])


def test_a_persons_yes_opens_the_registration_and_goes_with_the_version(
    world: World, candidate: tuple[Run, str]
) -> None:
    run, model_id = candidate
    report_hash = inconclusive(world, run)
    assert register(world, model_id).state == "failed"
    outcome = approve(world, run, report_hash)
    assert outcome.state == "success", outcome.error
    assert outcome.result == {
        "run_id": run.run_id,
        "decision": "approved",
        "by": "ada",
        "at": "2026-11-25T09:30:00+00:00",
    }
    kept = json.loads(world.artifact(run, contract.ARTIFACT_GATE_APPROVAL))
    assert (kept["by"], kept["reason"], kept["report_hash"]) == ("ada", "seen on the test track", report_hash)
    assert register(world, model_id).state == "success"
    (version,) = world.all_versions()
    assert version.tags[contract.TAG_GATE_VERDICT] == "approved"
    assert json.loads(version.tags[contract.TAG_GATE_APPROVAL])["by"] == "ada"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen_options": ["Reject"]}, "the answer is Reject, not Approve"),
        ({"chosen_options": []}, "the answer is empty, not Approve"),
        ({"chosen_options": ["Approve", "Reject"]}, "the answer is Approve, Reject, not Approve"),
        ({"timedout": True}, "no person answered"),
        ({"responded_by_user": None}, "no person answered"),
        ({"responded_at": None}, "no person answered"),
    ],
)
def test_anything_but_a_persons_yes_opens_nothing(world: World, change: dict[str, Any], message: str) -> None:
    run = world.new_run()
    outcome = approve(world, run, inconclusive(world, run), {**YES, **change})
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert tag(world, run) == "inconclusive"


@pytest.mark.parametrize("answer", [None, "Approve", {}, {"chosen_options": "Approve"}])
def test_an_answer_that_a_task_did_not_push_is_refused(world: World, answer: Any) -> None:
    run = world.new_run()
    outcome = approve(world, run, inconclusive(world, run), answer)
    assert outcome.state == "failed"
    assert "the output of Airflow's ApprovalOperator" in str(outcome.error)
    assert tag(world, run) == "inconclusive"


@pytest.mark.parametrize("metrics", [GOOD, BAD, None], ids=["passed", "failed", "error"])
def test_only_an_inconclusive_verdict_can_be_accepted(world: World, metrics: dict[str, float] | None) -> None:
    run = world.new_run()
    if metrics is not None:
        world.store_evidence(run, metrics)
    gate = judge(world, run)
    outcome = approve(world, run, gate.xcom["report_hash"])
    assert outcome.state == "failed"
    assert "Only an inconclusive verdict can be accepted by a person" in str(outcome.error)
    assert tag(world, run) == gate.xcom["verdict"]


def test_a_yes_to_a_report_that_was_replaced_since_does_not_count(world: World) -> None:
    run = world.new_run()
    first = inconclusive(world, run)
    second = inconclusive(world, run)
    outcome = approve(world, run, first)
    assert outcome.state == "failed"
    assert "the candidate was judged again since" in str(outcome.error)
    assert approve(world, run, second).state == "success"


def test_a_second_judgement_takes_an_earlier_yes_back(world: World, candidate: tuple[Run, str]) -> None:
    run, model_id = candidate
    approve(world, run, inconclusive(world, run))
    inconclusive(world, run)
    assert (tag(world, run), tag(world, run, contract.TAG_GATE_APPROVAL)) == ("inconclusive", "")
    assert register(world, model_id).state == "failed"


def test_an_approved_report_is_reused_as_long_as_it_is_the_one_that_was_approved(world: World) -> None:
    run = world.new_run({contract.TAG_KIND: contract.KIND_TRAINING, contract.TAG_MODEL_NAME: world.model_name})
    world.logged_model(run)
    report_hash = inconclusive(world, run)
    assert judge(world, run, reuse=True).state == "failed"
    approve(world, run, report_hash)
    reused = judge(world, run, reuse=True)
    assert (reused.state, reused.result["decision"]) == ("success", "approved")
    report = json.loads(world.artifact(run, contract.ARTIFACT_GATE_REPORT_JSON))
    changed = json.dumps({**report, "rows": report["rows"] + 1}).encode()
    world.hook.upload_artifact(run.run_id, contract.ARTIFACT_GATE_REPORT_JSON, changed)
    assert judge(world, run, reuse=True).state == "failed"


def test_an_approval_killed_after_any_write_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        run = world.new_run()
        report_hash = inconclusive(world, run)
        first = approve(world, run, report_hash, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert approve(world, run, report_hash, try_number=2).state == "success"
        assert tag(world, run) == "approved"
    assert kills >= 3
