"""RehearseRollbackOperator against a real MLflow server, with real models; status and doctor show what it found."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.rehearsal import Rehearsal, read_rehearsal
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK, RollbackDocument
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.rehearsal import RehearseRollbackOperator
from tests.support.logged_models import Logged, log_tree
from tests.support.mlflow_world import World, load_check_tags
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tree(mlflow_server: MlflowServer) -> Logged:
    return log_tree(mlflow_server)


@pytest.fixture
def two(world: World, tree: Logged) -> World:
    """Version 2 is champion, version 1 was it before; both load."""
    world.hook.set_tag(tree.run_id, contract.TAG_GATE_VERDICT, "passed")
    for number, before in (("1", "none"), ("2", "1")):
        tree.register(world, **load_check_tags("passed"))
        arguments = {"model_name": world.model_name, "version": number, "expected_champion": before}
        assert world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{number}").state == "success"
    return world


def rehearse(world: World, **options: Any) -> TaskOutcome:
    return world.run(RehearseRollbackOperator, model_name=world.model_name, env={"MARKER": world.marker}, **options)


def version(world: World, number: str) -> ModelVersion:
    return world.hook.get_model_version(world.model_name, number)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()  # logs of tasks
    main(list(arguments))
    return capsys.readouterr().out


def flags(world: World, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """Return what status and doctor say about the way back."""
    document = json.loads(told(capsys, "status", world.model_name, "--tracking-uri", world.url, "--format", "json"))
    call = ("doctor", "--no-cluster", "--tracking-uri", world.url, "--format", "json")
    findings = json.loads(told(capsys, *call))["findings"]
    return (
        [concern["says"] for concern in document["concerns"] if concern["kind"] == "way_back_not_ready"],
        [found["says"] for found in findings if found["subject"] == f"MLflow way back of {world.model_name}"],
    )


def test_a_way_back_in_time_is_told_with_its_seconds_and_moves_nothing(
    two: World, capsys: pytest.CaptureFixture[str]
) -> None:
    aliases = dict(two.aliases)
    outcome = rehearse(two)
    assert outcome.state == "success", outcome.error
    result = outcome.result
    assert (result["version"], result["champion_version"], result["verdict"]) == ("1", "2", "passed")
    assert 0 < result["load_seconds"] < result["seconds"] < result["budget_seconds"] == 300
    run = two.hook.get_run(result["run_id"])
    report = parse_document(Rehearsal, two.artifact(run, contract.ARTIFACT_REHEARSAL), "report")
    assert read_rehearsal(version(two, "1").tags) == report
    assert run.metrics["rehearsal_seconds"] == report.seconds == result["seconds"]
    assert version(two, "1").tags[contract.TAG_LOAD_CHECK] == "passed"
    assert two.aliases == aliases
    assert two.claims == []
    status = told(capsys, "status", two.model_name, "--tracking-uri", two.url)
    assert "rehearsal      passed at" in status
    assert flags(two, capsys) == ([], [])


def test_a_way_back_that_takes_too_long_is_flagged_until_it_is_in_time(
    two: World, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = rehearse(two, budget=timedelta(milliseconds=1))
    assert slow.state == "failed"
    assert "the way from version 2" in str(slow.error)
    assert "back to version 1 is not ready (failed): it answers" in str(slow.error)
    assert (slow.result["verdict"], slow.result["budget_seconds"]) == ("failed", 0.001)
    assert version(two, "1").tags[contract.TAG_LOAD_CHECK] == "passed"  # it loads, so it may have an alias
    (concern,), (finding,) = flags(two, capsys)
    assert "the way back to version 1 is not ready: its rehearsal failed at" in concern
    assert "from version 2 to version 1: its rehearsal failed at" in finding
    assert rehearse(two, dag_run_id="run-9").state == "success"
    assert flags(two, capsys) == ([], [])


def test_a_version_that_does_not_load_is_unusable_and_flagged(
    two: World, mlflow_server: MlflowServer, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = log_tree(mlflow_server)
    torn.tear()
    torn.register(two, **load_check_tags("passed"))
    two.hook.set_alias(two.model_name, contract.ALIAS_PREVIOUS_CHAMPION, "3")
    outcome = rehearse(two)
    assert outcome.state == "failed"
    assert "is unusable: it does not load" in str(outcome.error)
    assert (outcome.result["verdict"], outcome.result["way"]) == ("failed", "previous_champion")
    assert version(two, "3").tags[contract.TAG_REHEARSAL] == "failed"
    assert len(flags(two, capsys)[0]) == 1


def name_stable(world: World, stable: str, **given: Any) -> None:
    """Have servers go back from version 2 to another version by themselves."""
    document = RollbackDocument(threshold=0.05, duration=120, stable=stable, **given)
    world.hook.set_model_version_tag(world.model_name, "2", TAG_ROLLBACK, dump_document(document))


def test_a_rollback_that_would_be_refused_is_no_way_back(two: World, mlflow_server: MlflowServer) -> None:
    log_tree(mlflow_server).register(two)  # it never was champion, and no gate accepted it
    name_stable(two, "3")
    outcome = rehearse(two, way="stable")
    assert outcome.state == "failed"
    assert "but a rollback would be refused: version 3" in str(outcome.error)
    assert two.aliases["champion"] == "2"


def test_the_way_that_servers_go_by_themselves_is_rehearsed_when_it_is_another(two: World, tree: Logged) -> None:
    skipped = rehearse(two, way="stable")
    assert skipped.state == "skipped"
    name_stable(two, "1")
    assert rehearse(two, way="stable", dag_run_id="run-5").state == "skipped"
    tree.register(two, **load_check_tags("passed"))
    name_stable(two, "3")
    outcome = rehearse(two, way="stable", dag_run_id="run-6")
    assert outcome.state == "success", outcome.error
    assert (outcome.result["version"], outcome.result["way"]) == ("3", "stable")
    name_stable(two, "3", until=datetime.now(UTC) - timedelta(hours=1))
    assert rehearse(two, way="stable", dag_run_id="run-7").state == "skipped"
    name_stable(two, "2")
    itself = rehearse(two, way="stable", dag_run_id="run-8")
    assert itself.state == "failed"
    assert "names the champion as its own way back" in str(itself.error)


def test_without_a_previous_champion_there_is_nothing_to_rehearse(world: World, tree: Logged) -> None:
    tree.register(world)
    assert rehearse(world).state == "skipped"


def test_a_rehearsal_of_an_earlier_champion_says_nothing_about_the_present_one(
    two: World, tree: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse(two, budget=timedelta(milliseconds=1)).state == "failed"
    tree.register(two, **load_check_tags("passed"))
    arguments = {"model_name": two.model_name, "version": "3", "expected_champion": "2"}
    assert two.run(PromoteModelOperator, **arguments, dag_run_id="run-3").state == "success"
    assert flags(two, capsys) == ([], [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"way": "back"}, "way must be one of"),
        ({"budget": timedelta(0)}, "budget must be longer than zero"),
        ({"alias": "champion"}, "alias must not be given"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RehearseRollbackOperator(task_id="rehearse", model_name="churn", **given)
