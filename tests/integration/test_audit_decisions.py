"""Decisions of real tasks in an audit log: recorded once, after what they rest on, and found when a task died."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.audit.event import event_id
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import DriftResult
from airflow_mcp.core.drift.summary import DriftSummary
from airflow_mcp.core.identity import TaskKey, content_hash
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.serving.replica_events import ReplicaEvent, ReplicaEvents
from airflow_mcp.core.serving.traffic import RolloutDocument
from airflow_mcp.exceptions import AuditConflictError, AuditUnavailableError, EvidenceError
from airflow_mcp.operators.audit import CheckpointAuditOperator, ReconcileAuditOperator
from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.reconcile import contradictions, reconcile
from airflow_mcp.registry.reconcile_servers import missing_server_events
from airflow_mcp.registry.recording import append_once
from airflow_mcp.registry.rollouts import RolloutStore
from tests.support.approvals import put_in_force
from tests.support.audit_log import ACTOR, Logs, moved, new_key, sqlite_logs
from tests.support.governed import policy_of
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server of this module's own: a reconciliation looks at every model of a server."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow"), http="gunicorn") as server:
        yield server


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    found = sqlite_logs(tmp_path)
    connection = {"conn_type": "audit_log", "extra": {"sqlite_path": found.owner.sqlite_path}}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
    return found


def facts(logs: Logs, subject: str, action: str = "") -> list[Record]:
    with closing(open_log(logs.owner)) as log:
        return log.facts(subject, action)


def down(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AuditUnavailableError("the audit log does not answer")

    monkeypatch.setattr(SqliteAuditLog, "append", refuse)


def judge(world: World, run: Any, threshold: str, **options: Any) -> Any:
    arguments = {"run_id": run.run_id, "model_name": world.model_name, "thresholds": [threshold]}
    return world.run(EvaluationGateOperator, **arguments, **options)


def hashes(world: World, run: Any, outcome: Any) -> dict[str, str]:
    """Return the hashes of what a gate has just stored."""
    inputs = world.artifact(run, contract.ARTIFACT_GATE_INPUTS)
    return {"report": outcome.result["report_hash"], "inputs": content_hash(inputs)}


class TestGate:
    @pytest.fixture
    def run(self, world: World) -> Any:
        run = world.new_run()
        world.store_evidence(run, {"accuracy": 0.95})
        return run

    def test_each_verdict_is_an_event_with_the_hash_of_its_report(self, world: World, logs: Logs, run: Any) -> None:
        passed = judge(world, run, "accuracy >= 0.9")
        evidence = hashes(world, run, passed)
        failed = judge(world, run, "accuracy >= 0.99", task_id="again")
        assert (passed.state, failed.state) == ("success", "failed")
        events = [record.event for record in facts(logs, f"model:{world.model_name}", "gate.")]
        assert [each["new"]["decision"] for each in events] == ["passed", "failed"]
        assert events[0]["inputs"] == evidence
        assert events[0]["task"]["task_id"] == "task"
        assert judge(world, run, "accuracy >= 0.9", dry_run=True, task_id="dry").state == "success"
        assert len(facts(logs, f"model:{world.model_name}", "gate.")) == 2  # a dry run decides nothing

    def test_a_candidate_is_let_through_after_the_record_only(
        self, world: World, logs: Logs, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            down(patch)
            assert judge(world, run, "accuracy >= 0.9").state == "up_for_retry"
        assert contract.TAG_GATE_VERDICT not in world.hook.get_run(run.run_id).tags
        assert judge(world, run, "accuracy >= 0.9", try_number=2).state == "success"
        assert world.hook.get_run(run.run_id).tags[contract.TAG_GATE_VERDICT] == "passed"
        assert len(facts(logs, f"model:{world.model_name}", "gate.")) == 1

    def test_a_candidate_is_stopped_also_while_the_log_is_down(
        self, world: World, logs: Logs, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(world, run, "accuracy >= 0.9")
        down(monkeypatch)
        judge(world, run, "accuracy >= 0.99", task_id="again")
        assert world.hook.get_run(run.run_id).tags[contract.TAG_GATE_VERDICT] == "failed"


def test_a_registration_and_a_copy_are_events_once(world: World, logs: Logs) -> None:
    _, model_id = world.judged_model()
    arguments = {"model_name": world.model_name, "model_uri": f"models:/{model_id}"}
    for number in (1, 2):
        assert world.run(RegisterModelOperator, **arguments, try_number=number).state == "success"
    target = f"{world.model_name}-copy"
    copy = {"model_name": world.model_name, "version": "1", "target_model_name": target}
    for number in (1, 2):
        outcome = world.run(
            CopyModelVersionOperator, **copy, experiment_name=world.experiment, runtime="local", try_number=number
        )
        assert outcome.state == "success", outcome.error
    (registered,) = facts(logs, f"version:{world.model_name}/1")
    (copied,) = facts(logs, f"version:{target}/1")
    assert (registered.event["action"], copied.event["action"]) == ("version.registered", "version.copied")
    assert registered.event["new"]["source"].endswith(model_id)
    assert copied.event["new"]["source"] == f"models:/{world.model_name}/1"
    assert copied.event["new"]["copy_of"]


class TestRollout:
    @pytest.fixture
    def store(self, world: World, logs: Logs) -> RolloutStore:
        world.versions(2)
        world.hook.set_alias(world.model_name, ALIAS_CHAMPION, "1")
        governance = Governance(open_log=lambda: open_log(logs.owner))
        actor = Actor.of_user("ada", "desk")
        return RolloutStore(
            world.hook, world.model_name, actor=actor, log=logging.getLogger("test"), governance=governance
        )

    def document(self, **fields: Any) -> RolloutDocument:
        values = {"identity": "r1", "generation": 1, "phase": "PROGRESSING", "stable": "1", "canary": "2"}
        return RolloutDocument.model_validate({**values, "weight": 5.0, **fields})

    def steps(self, world: World, logs: Logs) -> list[tuple[str, int]]:
        events = [record.event for record in facts(logs, f"model:{world.model_name}", "rollout.")]
        return [(each["action"].removeprefix("rollout.step_"), each["new"]["generation"]) for each in events]

    def test_each_step_is_intended_and_taken_once(self, world: World, logs: Logs, store: RolloutStore) -> None:
        first = store.write(self.document(), expected=0)
        assert store.write(self.document(), expected=0) == first  # a retry
        store.write(self.document(weight=25.0), expected=1)
        assert self.steps(world, logs) == [("intended", 1), ("taken", 1), ("intended", 2), ("taken", 2)]

    def test_without_the_log_nothing_advances_and_every_rollout_ends(
        self, world: World, logs: Logs, store: RolloutStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(self.document(), expected=0)
        with monkeypatch.context() as patch:
            down(patch)
            with pytest.raises(AuditUnavailableError):
                store.write(self.document(weight=25.0), expected=1)
            assert (state := store.read().document) is not None
            assert state.weight == 5.0
            store.write(self.document(phase="FAILED", weight=0.0), expected=1)
        assert store.read().active is None
        assert self.steps(world, logs) == [("intended", 1), ("taken", 1)]
        with closing(open_log(logs.owner)) as log:
            added = reconcile(world.hook, log, "dev", ACTOR).added
        assert [each.action for each in added if each.subject == f"model:{world.model_name}"] == ["rollout.step_taken"]


class TestReconcile:
    def test_decisions_that_the_log_missed_are_added_once(
        self, world: World, logs: Logs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_mcp.registry.reconcile_decisions.LOOKBACK", timedelta(days=4000))  # runs of `NOW`
        name = world.model_name
        check = LoadCheck("passed", "it loads", at="2999-01-01T00:00:00+00:00", run_id="0" * 32)
        (version,) = world.versions(1)
        for tag, value in check.to_tags().items():
            world.hook.set_model_version_tag(name, version.version, tag, value)
        run = world.new_run({contract.TAG_MODEL_NAME: name})
        world.store_evidence(run, {"accuracy": 0.95})
        drift = world.new_run({contract.TAG_MODEL_NAME: name, contract.TAG_KIND: contract.KIND_DRIFT_CHECK})
        result = DriftResult(
            verdict="not_drifted",
            reason="-",
            precision="profile",
            policy=ComparisonPolicy(),
            reference=(),
            current=(),
            reference_is_profile=True,
            current_is_profile=True,
            reference_rows=9,
            current_rows=9,
            columns=(),
            drifted_columns_count=0,
            compared_columns_count=4,
            drift_share=0.25,
        )
        summary = DriftSummary(identity="", run_id=drift.run_id, model_name=name, result=result)
        world.hook.upload_artifact(drift.run_id, contract.ARTIFACT_DRIFT_SUMMARY, dump_document(summary).encode())
        judged = judge(world, run, "accuracy >= 0.9")
        logs.sql("DROP TRIGGER no_delete")
        logs.sql("DELETE FROM event WHERE action = 'gate.decided'")  # as if its task had died before
        with closing(open_log(logs.owner)) as log:
            added = [each for each in reconcile(world.hook, log, "dev", ACTOR).added if name in each.subject]
            again = [each for each in reconcile(world.hook, log, "dev", ACTOR).added if name in each.subject]
        found = {each.action: each for each in added}
        assert set(found) == {"version.registered", "load_check.decided", "gate.decided", "drift.decided"}
        assert all(each.late for each in added)
        assert found["gate.decided"].inputs == hashes(world, run, judged)
        assert found["drift.decided"].new == {
            "run_id": drift.run_id,
            "verdict": "not_drifted",
            "drift_share": "0.25",
            "drifted_columns": [],
        }
        assert again == []

    def test_a_task_that_comes_back_after_the_reconciliation_finds_its_event(self, world: World, logs: Logs) -> None:
        _, model_id = world.judged_model()
        arguments = {"model_name": world.model_name, "model_uri": f"models:/{model_id}"}
        assert world.run(RegisterModelOperator, **arguments).state == "success"
        logs.sql("DROP TRIGGER no_delete")
        logs.sql("DELETE FROM event WHERE action = 'version.registered'")
        with closing(open_log(logs.owner)) as log:
            reconcile(world.hook, log, "dev", ACTOR)
        assert world.run(RegisterModelOperator, **arguments, try_number=2).state == "success"
        (record,) = facts(logs, f"version:{world.model_name}/1", "version.")
        assert record.event["late"] is True

    def test_an_event_that_says_something_else_is_a_conflict(self, logs: Logs) -> None:
        with closing(open_log(logs.owner)) as log:
            log.append(moved(1))
            assert append_once(log, replace(moved(1), late=True)) is None
            with pytest.raises(AuditConflictError):
                append_once(log, replace(moved(1), new={"champion": "9"}))

    def test_a_forged_move_and_a_changed_one_are_told(self, world: World, logs: Logs) -> None:
        world.versions(2)
        subject = f"model:{world.model_name}"
        arguments = {"model_name": world.model_name, "version": "1", "expected_champion": "none"}
        assert world.run(PromoteModelOperator, **arguments).state == "success"
        with closing(open_log(logs.owner)) as log:
            assert list(contradictions(world.registered, log)) == []
            new = {"move": "forged", "action": "promote", "champion": "2"}
            name = event_id("registry.moved", subject, "forged")
            log.append(replace(moved(2), id=name, subject=subject, new=new))
            (problem,) = contradictions(world.registered, log)
            assert "MLflow has no such move" in problem
            assert problem in reconcile(world.hook, log, "dev", ACTOR).problems


class TestServers:
    def page(self, *numbers: int, replica: str = "pod-1") -> str:
        events = tuple(
            ReplicaEvent.model_validate(
                {"number": number, "at": "2026-11-30T00:00:00Z", "action": "swapped", "model": "fraud"}
                | {"version": str(number), "before": str(number - 1)}
            )
            for number in numbers
        )
        return dump_document(ReplicaEvents(replica=replica, events=events))

    def pulled(self, logs: Logs, page: str) -> list[tuple[str, Any]]:
        with closing(open_log(logs.owner)) as log:
            events = list(missing_server_events(page, log, "dev"))
            for event in events:
                log.append(event)
        return [(each.action, (each.new or {}).get("number")) for each in events]

    def test_what_a_replica_did_is_pulled_once_and_a_gap_is_an_event(self, logs: Logs) -> None:
        assert self.pulled(logs, self.page(1, 2)) == [("serving.swapped", 1), ("serving.swapped", 2)]
        assert self.pulled(logs, self.page(1, 2, 3)) == [("serving.swapped", 3)]
        assert self.pulled(logs, self.page(7, 8)) == [
            *(("serving.missed", None), ("serving.swapped", 7), ("serving.swapped", 8))
        ]
        assert self.pulled(logs, self.page(7, 8)) == []
        missed = facts(logs, "replica:pod-1", "serving.missed")[0].event["new"]
        assert (missed["first"], missed["last"]) == (4, 6)
        assert self.pulled(logs, self.page(1, replica="pod-2")) == [("serving.swapped", 1)]
        assert facts(logs, "replica:pod-1")[0].event["new"]["model"] == "fraud"

    @pytest.mark.parametrize("page", ["{}", "<html>", '{"replica": "a b", "events": []}'])
    def test_another_page_is_refused(self, logs: Logs, page: str) -> None:
        with pytest.raises(EvidenceError):
            self.pulled(logs, page)

    def test_numbers_that_repeat_are_refused(self, logs: Logs) -> None:
        with pytest.raises(EvidenceError, match="numbered one by one"):
            self.pulled(logs, self.page(2, 1))


class TestOperators:
    def test_the_keeper_reconciles_and_then_anchors(
        self, world: World, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.versions(1)
        private, _ = new_key()
        monkeypatch.setenv(
            "AIRFLOW_CONN_KEY_TESTS", json.dumps({"conn_type": "signing_key", "password": private.decode()})
        )
        nobody = json.dumps({"conn_type": "model_server", "host": "127.0.0.1", "port": 1})
        monkeypatch.setenv("AIRFLOW_CONN_SERVERS_TESTS", nobody)
        reconciled = world.run(ReconcileAuditOperator, serving_conn_ids=["servers_tests"])
        assert reconciled.state == "success", reconciled.error
        assert reconciled.result["added"]["version.registered"] >= 1
        assert "servers_tests were not asked" in reconciled.result["problems"][0]
        (tmp_path / "kept").mkdir()
        kept = {"signing_conn_id": "key_tests", "anchors": [str(tmp_path / "kept"), f"mlflow:{world.model_name}"]}
        done = world.run(CheckpointAuditOperator, **kept, task_id="checkpoint")
        assert done.state == "success", done.error
        assert (len(done.result["places"]), done.result["failed"]) == (2, {})
        (note,) = (tmp_path / "kept").iterdir()
        assert any(note.read_text() in value for value in world.registered.tags.values())
        away = {**kept, "anchors": [str(tmp_path / "away")]}
        failed = world.run(CheckpointAuditOperator, **away, task_id="away")
        assert (failed.state, "no anchor that counts alone" in str(failed.error)) == ("up_for_retry", True)
        alone = {**kept, "anchors": [f"mlflow:{world.model_name}"]}
        assert world.run(CheckpointAuditOperator, **alone, task_id="alone").state == "failed"
        logs.sql("DROP TRIGGER no_update")
        logs.sql("UPDATE event SET record = replace(record, 'READY', 'ready') || ' ' WHERE seq = 3")
        (tmp_path / "kept" / note.name).unlink()
        for tag in [name for name in world.registered.tags if "audit_checkpoint" in name]:
            world.hook.delete_registered_model_tag(world.model_name, tag)
        changed = world.run(CheckpointAuditOperator, **kept, task_id="changed")
        assert (changed.state, "TAMPERED" in str(changed.error)) == ("failed", True)

    def test_a_person_who_makes_the_keeper_run_must_be_permitted_to_read_the_log(
        self, world: World, logs: Logs
    ) -> None:
        world.versions(1)
        with closing(open_log(logs.owner)) as log:
            put_in_force(log, policy_of("dev"), "dev")

        def reconciled(account: str, run_type: str = "manual") -> TaskOutcome:
            actor = Actor.of_task(TaskKey("audit_keeper", "r1", "task"), requested_by=account, run_type=run_type)
            return world.run(ReconcileAuditOperator, before=lambda made: setattr(made, "actor", lambda _: actor))

        for account, reason in (("dora", "'dora' has no role that grants audit/read"), ("", "nobody knows who asks")):
            outcome = reconciled(account)
            assert (outcome.state, reason in str(outcome.error)) == ("failed", True), outcome.error
            assert facts(logs, "audit")[-1].event["task"]["dag_id"] == "audit_keeper"
        assert reconciled("olga").state == "success"
        assert reconciled("", "scheduled").state == "success"


def test_nothing_is_recorded_and_everything_works_without_a_log(world: World, tmp_path: Path) -> None:
    _, model_id = world.judged_model()
    arguments = {"model_name": world.model_name, "model_uri": f"models:/{model_id}"}
    assert world.run(RegisterModelOperator, **arguments).state == "success"
    assert not any(tmp_path.rglob("log.db"))
