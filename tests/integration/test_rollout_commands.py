"""``airflow-mcp rollout`` and the registry behind it, on a real MLflow without servers."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.panel.actions import BAKE_ABORT, steps_of, why_not
from airflow_mcp.core.panel.facts import ModelFacts
from airflow_mcp.core.panel.pages.layout import Frame
from airflow_mcp.core.panel.pages.model import render_model
from airflow_mcp.core.panel.words import Words
from airflow_mcp.core.rollout.advance import Abort, Write
from airflow_mcp.core.rollout.state import ARTIFACT_JOURNAL, TAG_ROLLOUT_RECORD, RolloutRecord, parse_journal
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.hooks import rollout_look
from airflow_mcp.hooks.replica_metrics import ReplicaText
from airflow_mcp.hooks.rollout_look import RolloutLooks
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import AsyncDriver
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.plugins.queries import ModelReader, model_facts
from airflow_mcp.registry import rollout_run
from airflow_mcp.registry.promotion import promote
from tests.support.mlflow_world import World
from tests.support.services import LOOPBACK
from tests.support.task_harness import TaskOutcome, event_within, run_task, trigger_of

STEPS = [{"setWeight": 5}, {"analysis": "10m"}, {"pause": {}}]


class Command:
    """The command on the model of one test, whose rollout has begun."""

    def __init__(self, world: World, output: pytest.CaptureFixture[str]) -> None:
        self.world, self._output = world, output
        world.versions(2)
        world.hook.set_alias(world.model_name, "champion", "1")

    def begin(self, try_number: int = 1, **arguments: Any) -> TaskOutcome:
        outcome = self.world.run(
            RolloutModelOperator,
            try_number=try_number,
            model_name=self.world.model_name,
            version="2",
            expected_champion="1",
            experiment_name=self.world.experiment,
            deferrable=True,
            **{"steps": STEPS, **arguments},
        )
        assert outcome.state == "deferred" or try_number > 1, outcome.error
        return outcome

    def resume(self, deferred: TaskOutcome, **event: Any) -> TaskOutcome:
        """Wake the task, as its trigger does."""
        return run_task(deferred.operator, supervisor=deferred.supervisor, resume_with={"status": "due", **event})

    def look(self) -> None:
        """Note in the journal that the servers were looked at just now."""
        run_id = self.document.run_id
        journal = parse_journal(self.world.artifact(run_id, ARTIFACT_JOURNAL), run_id)
        seen = dump_document(journal.model_copy(update={"looked": datetime.now(UTC)})).encode()
        self.world.hook.upload_artifact(run_id, ARTIFACT_JOURNAL, seen, content_type="application/json")

    def bake(self) -> TaskOutcome:
        """Promote the version, which is then watched."""
        rule = {"metric": "http_5xx_rate", "threshold": 0.05, "duration": "2m"}
        deferred = self.begin(rollback=rule, bake=600.0)
        self.write(phase="PROMOTING", weight=50.0, step=3, generation=2)
        self.look()
        baking = self.resume(deferred)
        assert (baking.state, self.world.aliases["champion"]) == ("deferred", "2"), baking.error
        return baking

    def write(self, **changes: Any) -> None:
        """Write what the rollout would write after a while."""
        text = self.document.model_copy(update=changes).model_dump_json(by_alias=True)
        self.world.hook.set_model_version_tag(self.world.model_name, "1", TAG_ROLLOUT, text)

    @property
    def document(self) -> RolloutDocument:
        text = self.world.hook.get_model_version(self.world.model_name, "1").tags[TAG_ROLLOUT]
        return RolloutDocument.model_validate_json(text)

    def __call__(self, action: str, *options: str, code: int = 0) -> Any:
        call = ["rollout", action, self.world.model_name, "--tracking-uri", self.world.url, "--format", "json"]
        self._output.readouterr()
        found = main([*call, *options])
        printed = self._output.readouterr()
        assert found == code, printed
        return json.loads(printed.out) if code == 0 else printed.err


@pytest.fixture
def command(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": world.url}))
    nobody = {"conn_type": "model_server", "host": LOOPBACK, "port": 9}
    monkeypatch.setenv("AIRFLOW_CONN_MODEL_SERVER_DEFAULT", json.dumps(nobody))
    return Command(world, capsys)


def test_status_shows_the_document_and_what_the_rules_say(command: Command) -> None:
    assert command("status")["phase"] is None
    command.begin()
    found = command("status")
    assert (found["phase"], found["canary"], found["weight"], found["champion"]) == ("INITIALIZING", "2", 0, "1")
    assert (found["verdict"], found["verdict_reason"]) == ("inconclusive", "nothing has been counted yet")


def test_a_rollout_is_paused_resumed_and_aborted(command: Command) -> None:
    command.begin()
    assert "cannot be paused now" in command("pause", "--reason", "wait", code=1)
    command.write(phase="PROGRESSING", weight=5.0, step=1, generation=2)
    paused = command("pause", "--reason", "wait")
    assert (paused["phase"], paused["weight"], paused["generation"]) == ("WAITING", 5, 3)
    assert paused["reason"] == "paused: wait"
    assert "@" in paused["by"]
    assert command("pause", "--reason", "again")["generation"] == 3
    resumed = command("resume", "--reason", "go")
    assert (resumed["phase"], resumed["step"]) == ("PROGRESSING", 1)
    command("pause", "--reason", "wait")
    assert command("resume", "--reason", "go", "--skip")["phase"] == "WAITING"  # the next step waits for a person
    assert command("resume", "--reason", "go")["phase"] == "PROMOTING"
    aborted = command("abort", "--reason", "not tonight")
    assert (aborted["phase"], aborted["weight"], aborted["reason"]) == ("FAILED", 0, "aborted: not tonight")
    assert command.world.claims == []


@pytest.mark.parametrize("is_late", [False, True])
def test_an_abort_stops_the_promotion_or_is_refused_but_never_both(
    command: Command, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    deferred = command.begin()
    command.write(phase="PROMOTING", weight=50.0, step=3, generation=2)
    command.look()
    world, answers = command.world, []

    def abort() -> None:
        answers.append(command("abort", "--reason", "stop", code=1 if is_late else 0))

    def promoted(*given: Any, **named: Any) -> Any:
        if not is_late:
            abort()
        plan = promote(*given, **named)
        if is_late:
            abort()
        return plan

    monkeypatch.setattr(rollout_run, "promote", promoted)
    outcome = command.resume(deferred)
    assert len(answers) == 1, outcome.error
    if is_late:
        assert (outcome.state, world.aliases["champion"]) == ("success", "2"), outcome.error
        assert "Nothing was written" in answers[0]
        return
    assert (outcome.state, outcome.xcom["cause"], outcome.xcom["reason"]) == ("failed", "aborted", "stop")
    assert (world.aliases["champion"], command.document.phase) == ("1", "FAILED")


def test_another_promotion_waits_until_it_has_ended(command: Command) -> None:
    command.begin()
    world = command.world
    arguments: dict[str, Any] = {
        "model_name": world.model_name,
        "version": "2",
        "expected_champion": "1",
        "task_id": "promote",
    }
    refused = world.run(PromoteModelOperator, **arguments)
    assert refused.state == "failed"
    assert "of version 2 is INITIALIZING" in str(refused.error)
    assert world.aliases["champion"] == "1"
    command("abort", "--reason", "by hand")
    assert world.run(PromoteModelOperator, **arguments).state == "success"


@pytest.mark.parametrize("action", ["pause", "resume", "abort"])
def test_without_a_rollout_there_is_nothing_to_change(command: Command, action: str) -> None:
    assert "no rollout of" in command(action, "--reason", "why", code=1)
    assert TAG_ROLLOUT not in command.world.hook.get_model_version(command.world.model_name, "1").tags


def test_a_reason_is_needed(command: Command) -> None:
    assert "--reason must be text that is not empty" in command("abort", "--reason", " ", code=2)


def test_a_task_that_is_cleared_after_a_rollback_does_not_say_that_its_promotion_holds(command: Command) -> None:
    command.begin()
    record = RolloutRecord(phase="SUCCEEDED", stable="1", since=datetime.now(UTC)).model_dump_json(by_alias=True)
    name = TAG_ROLLOUT_RECORD + command.document.identity
    command.world.hook.set_model_version_tag(command.world.model_name, "2", name, record)
    cleared = command.begin(try_number=2)
    assert cleared.state == "failed"
    assert "has moved since and now points at version 1" in str(cleared.error)


def test_a_split_that_was_left_behind_does_not_come_back_with_a_rollback(command: Command) -> None:
    command.begin()
    command.write(phase="PROMOTING", weight=50.0, generation=2)
    world = command.world
    world.hook.set_alias(world.model_name, "champion", "2")
    world.hook.set_alias(world.model_name, "previous_champion", "1")
    outcome = world.run(RollbackModelOperator, model_name=world.model_name, task_id="back")
    assert outcome.state == "success", outcome.error
    assert world.aliases["champion"] == "1"
    assert (command.document.phase, command.document.weight) == ("FAILED", 0)


def test_a_split_does_not_come_back_when_the_alias_does(command: Command) -> None:
    deferred = command.begin()
    command.write(phase="PROGRESSING", weight=30.0, step=1, generation=2)
    command.world.hook.set_alias(command.world.model_name, "champion", "2")
    outcome = command.resume(deferred)
    assert (outcome.state, outcome.xcom["cause"]) == ("failed", "superseded")
    command.world.hook.set_alias(command.world.model_name, "champion", "1")
    assert (command.document.phase, command.document.weight) == ("FAILED", 0)
    assert command("status")["phase"] == "FAILED"


def test_a_task_whose_plan_was_edited_goes_on_with_the_plan_it_began_with(command: Command) -> None:
    command.begin()
    before = command.document
    edited = command.begin(try_number=2, rules=["http_5xx_rate <= 0.02"])
    assert edited.state == "deferred", edited.error
    assert command.document == before
    assert len(command.world.runs()) == 3  # of two versions and of the one rollout
    other = command.begin(try_number=3, rules=["http_5xx_rate <= 0.02"], task_id="another")
    assert other.state == "failed"
    assert "is INITIALIZING, so none of version 2 can begin" in str(other.error)


def test_a_version_that_is_deleted_ends_its_rollout(command: Command) -> None:
    deferred = command.begin()
    command.write(phase="PROGRESSING", weight=30.0, step=1, generation=2)
    delete(command.world, "model-versions/delete", {"name": command.world.model_name, "version": "2"}, "DELETE")
    outcome = command.resume(deferred)
    assert (outcome.state, outcome.xcom["cause"]) == ("failed", "lost"), outcome.error
    assert outcome.xcom["reason"] == "version 2 was deleted"
    assert (command.document.phase, command.document.weight) == ("FAILED", 0)
    assert command.world.hook.get_run(command.document.run_id).status == "FAILED"


def test_a_rollout_whose_run_is_deleted_goes_on_with_a_new_one(command: Command) -> None:
    deferred = command.begin(poll_interval=1)
    command.write(phase="PROGRESSING", weight=30.0, step=1, generation=2)
    lost = command.document.run_id
    delete(command.world, "runs/delete", {"run_id": lost})
    event = event_within(deferred)  # no server answers at four looks
    assert command.resume(deferred, **event).state == "deferred"
    assert command.document.run_id != lost
    found = command("status")
    assert (found["phase"], found["run_id"]) == ("WAITING", command.document.run_id)
    assert "4 looks in a row failed" in found["reason"]


def test_whatever_fails_in_a_look_counts_as_a_failed_look(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, attempt = list[str](), AsyncDriver._attempt
    monkeypatch.setattr(AsyncDriver, "_attempt", lambda *given: (asked.append(given[2].what), attempt(*given))[1])
    command.begin()
    command.write(phase="PROGRESSING", weight=30.0, step=1, generation=2)
    looks = RolloutLooks(command.world.hook, Broken(), command.document.run_id)
    for errors in range(1, 5):
        journal, action = asyncio.run(looks.look())
        assert (journal.errors, journal.error) == (errors, "ValueError: not a number")
    assert isinstance(action, Write)
    assert action.document.phase == "WAITING"  # as on_inconclusive says
    name = command.world.model_name
    of_version, of_run = f"get version 2 of model {name!r}", f"get run {command.document.run_id!r}"
    assert (asked.count(f"get alias 'champion' of model {name!r}"), asked.count(of_version)) == (4, 1)  # not each time
    before = asked.count(of_run)
    monkeypatch.setattr(rollout_look, "ASKED_AGAIN_SECONDS", 0.0)
    delete(command.world, "model-versions/delete", {"name": name, "version": "2"}, "DELETE")
    _, action = asyncio.run(looks.look())
    assert isinstance(action, Abort)
    assert (action.cause, asked.count(of_run)) == ("lost", before)


def test_a_task_that_is_woken_while_mlflow_is_down_waits_again(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    deferred = command.begin()
    rollout = trigger_of(deferred).rollout
    with monkeypatch.context() as down:
        nowhere = {"conn_type": "mlflow", "host": f"http://{LOOPBACK}:9", "extra": {"retries": 0}}
        down.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(nowhere))
        waiting = command.resume(deferred, rollout=rollout)
    assert waiting.state == "deferred", waiting.error
    assert trigger_of(waiting).rollout == {**rollout, "failures": "1"}
    assert trigger_of(command.resume(waiting, rollout=trigger_of(waiting).rollout)).rollout["failures"] == "0"


def on_page(world: World) -> ModelFacts:
    """Return what the page of the model shows."""
    mlflow = DirectMlflow(MlflowSettings("tests", world.url, world.url))
    reader = ModelReader(lambda: mlflow)
    try:
        return model_facts(asyncio.run(reader.part(world.model_name)), None, {})
    finally:
        reader.close()
        mlflow.close()


def test_the_bake_time_is_seen_and_aborted_and_nothing_else_begins(command: Command) -> None:
    baking, world = command.bake(), command.world
    found = command("status")
    assert (found["phase"], found["canary"], found["stable"]) == ("BAKING", "2", "1")
    assert "version 2 is the champion already, and is watched" in command("pause", "--reason", "wait", code=1)
    facts = on_page(world)
    shown = render_model(Frame(Words(), "/mcp", datetime.now(UTC), "", "tests"), facts, {})
    assert "version 2 has been the champion since" in shown
    assert "It is watched until" in shown
    assert f'href="/mcp/ui/models/{world.model_name}/abort-rollout"' in shown
    assert "Rolling out" not in shown
    assert steps_of("abort-rollout", facts) == BAKE_ABORT
    assert why_not("abort-rollout", facts) is None
    refused = why_not("pause-rollout", facts)
    assert refused is not None
    assert refused.text == "The version is the champion already, and is watched."
    second = world.run(
        RolloutModelOperator,
        model_name=world.model_name,
        version="1",
        expected_champion="2",
        experiment_name=world.experiment,
        task_id="second",
    )
    assert "which is in its bake time" in str(second.error)
    third = world.run(
        PromoteModelOperator, model_name=world.model_name, version="1", expected_champion="2", task_id="third"
    )
    assert "which is in its bake time" in str(third.error)
    assert command("abort", "--reason", "too slow")["phase"] == "FAILED"
    assert world.aliases["champion"] == "1"
    ended = command.resume(baking)
    assert (ended.state, ended.xcom["cause"]) == ("failed", "aborted")
    assert ended.xcom["reason"] == "too slow; the alias was moved back to version 1"


def test_a_person_who_ends_the_task_in_the_bake_time_goes_back(command: Command) -> None:
    baking = command.bake()
    asyncio.run(trigger_of(baking).on_kill())
    assert command.world.aliases["champion"] == "1"
    assert command.resume(baking).xcom["cause"] == "aborted"


def test_status_says_when_nobody_has_looked_for_long(command: Command) -> None:
    command.begin()
    assert command("status")["stale_seconds"] is None
    run_id = command.document.run_id
    journal = parse_journal(command.world.artifact(run_id, ARTIFACT_JOURNAL), run_id)
    old = journal.model_copy(update={"started": datetime.now(UTC) - timedelta(minutes=7)})
    command.world.hook.upload_artifact(run_id, ARTIFACT_JOURNAL, dump_document(old).encode(), content_type="text/json")
    assert command("status")["stale_seconds"] >= 420


def test_a_wrong_name_and_a_repeated_pause_are_said(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.begin()
    command.write(phase="PROGRESSING", weight=5.0, step=1, generation=2)
    name, command.world.model_name = command.world.model_name, command.world.model_name[:-1]
    assert repr(name) in command("abort", "--reason", "stop", code=1)
    command.world.model_name = name
    assert command("pause", "--reason", "first")["changed"]
    assert not command("pause", "--reason", "second")["changed"]
    command.world.url = f"http://{LOOPBACK}:9"
    assert "Nothing was written. Servers keep the split that they follow" in command("abort", "--reason", "x", code=1)


class Broken:
    """Replicas whose metrics cannot be read."""

    async def read(self) -> list[ReplicaText]:
        raise ValueError("not a number")


def delete(world: World, path: str, body: dict[str, str], method: str = "POST") -> None:
    """Delete something with MLflow's own API, as a person does."""
    request = urllib.request.Request(
        f"{world.url}/api/2.0/mlflow/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=20):
        pass
