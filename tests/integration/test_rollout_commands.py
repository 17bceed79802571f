"""``airflow-mcp rollout`` and the registry behind it, on a real MLflow without servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.rollout.state import TAG_ROLLOUT_RECORD, RolloutRecord
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome

STEPS = [{"setWeight": 5}, {"analysis": "10m"}, {"pause": {}}]


class Command:
    """The command on the model of one test, whose rollout has begun."""

    def __init__(self, world: World, output: pytest.CaptureFixture[str]) -> None:
        self.world, self._output = world, output
        world.versions(2)
        world.hook.set_alias(world.model_name, "champion", "1")

    def begin(self, try_number: int = 1) -> TaskOutcome:
        outcome = self.world.run(
            RolloutModelOperator,
            try_number=try_number,
            model_name=self.world.model_name,
            version="2",
            expected_champion="1",
            experiment_name=self.world.experiment,
            steps=STEPS,
            deferrable=True,
        )
        assert outcome.state == "deferred" or try_number > 1, outcome.error
        return outcome

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
def command(world: World, capsys: pytest.CaptureFixture[str]) -> Command:
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
