"""RegisterModelOperator against a real MLflow registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.registry import claims
from airflow_mcp.registry.aliases import versions_of
from tests.support.fakes.faulty_server import FaultyServer, lost_answer, refused_midway
from tests.support.forked import ForkedTask
from tests.support.mlflow_world import World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def register(world: World, source: str, **options: Any) -> TaskOutcome:
    return world.run(RegisterModelOperator, **{"model_name": world.model_name, "model_uri": source, **options})


def test_a_judged_model_becomes_a_version_with_its_provenance(world: World) -> None:
    run, model_id = world.judged_model(data_version="v1", code_commit="abc")
    outcome = register(world, f"models:/{model_id}", tags={"team": "fraud"}, description="nightly")
    assert outcome.state == "success"
    assert outcome.result == {
        "model_name": world.model_name,
        "version": "1",
        "model_uri": f"models:/{world.model_name}/1",
        "run_id": run.run_id,
    }
    version = world.hook.get_model_version(world.model_name, "1")
    assert (version.status, version.run_id, version.model_id) == ("READY", run.run_id, model_id)
    assert version.tags == {
        "team": "fraud",
        contract.TAG_GATE_VERDICT: "passed",
        "airflow_mcp.data_version": "v1",
        "airflow_mcp.code_commit": "abc",
    }
    assert world.hook.get_run(run.run_id).tags[contract.TAG_MODEL_VERSION] == f"{world.model_name}/1"
    links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
    assert f"{world.url}/#/models/{world.model_name}/versions/1" in links
    assert world.aliases == {}


def test_provenance_cannot_be_overwritten_by_tags(world: World) -> None:
    _, model_id = world.judged_model()
    register(world, f"models:/{model_id}", tags={contract.TAG_GATE_VERDICT: "failed"})
    assert world.hook.get_model_version(world.model_name, "1").tags[contract.TAG_GATE_VERDICT] == "passed"


def test_a_source_by_run_and_name_is_the_logged_model_of_that_name(world: World) -> None:
    run, _ = world.judged_model()
    wanted = world.logged_model(run, "scaler")
    assert register(world, f"runs:/{run.run_id}/scaler").state == "success"
    assert world.hook.get_model_version(world.model_name, "1").source == f"models:/{wanted}"


def test_a_retry_finds_the_version_of_the_first_try(world: World) -> None:
    _, model_id = world.judged_model()
    first = register(world, f"models:/{model_id}")
    second = register(world, f"models:/{model_id}", try_number=2)
    another_run = register(world, f"models:/{model_id}", dag_run_id="run-2")
    assert first.result == second.result == another_run.result
    assert len(world.all_versions()) == 1


def compete(world: World, number: int, model_id: str) -> tuple[str, str]:
    """Register with Airflow's retries, in a process of its own; give the last state and the version."""
    for try_number in range(1, 7):
        options = {"dag_run_id": f"run-{number}", "try_number": try_number, "retries": 5}
        outcome = register(world, f"models:/{model_id}", **options)
        if outcome.state != "up_for_retry":
            break
    return outcome.state, str((outcome.result or {}).get("version", outcome.error))


def test_a_model_that_eight_tasks_register_at_once_becomes_one_version(world: World) -> None:
    _, model_id = world.judged_model()
    world.hook.close()
    tasks = [ForkedTask(lambda number=number: compete(world, number, model_id)) for number in range(8)]
    assert {task.result() for task in tasks} == {("success", "1")}
    assert len(world.all_versions()) == 1
    assert world.claims == []


def test_models_that_are_registered_at_once_do_not_wait_for_each_other(world: World) -> None:
    models = [world.judged_model()[1] for _ in range(4)]
    world.hook.close()

    def one(model_id: str) -> str:
        return register(world, f"models:/{model_id}").state

    tasks = [ForkedTask(lambda model_id=model_id: one(model_id)) for model_id in models]
    assert [task.result() for task in tasks] == ["success"] * 4
    assert sorted(version.model_id for version in world.all_versions()) == sorted(models)
    assert world.claims == []


def test_a_model_that_another_task_is_registering_is_left_to_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: None)
    _, model_id = world.judged_model()
    world.hook.create_registered_model(world.model_name)
    claim = {
        "expires_at": "9999-01-01T00:00:00+00:00",
        "holder": "other_dag.register run-7",
        "subject": f"models:/{model_id}",
    }
    world.hook.set_registered_model_tag(world.model_name, f"{contract.TAG_CLAIM_PREFIX}x", json.dumps(claim))
    outcome = register(world, f"models:/{model_id}")
    assert outcome.state == "up_for_retry"
    assert f"models:/{model_id} is being registered by other_dag.register run-7 (tag " in str(outcome.error)
    assert "Nothing was registered" in str(outcome.error)
    assert world.all_versions() == []
    assert register(world, f"models:/{world.judged_model()[1]}").state == "success"


def test_two_models_become_two_versions(world: World) -> None:
    versions = [register(world, f"models:/{world.judged_model()[1]}").result["version"] for _ in range(2)]
    assert versions == ["1", "2"]


@pytest.mark.parametrize("part", ["model-versions/create", "registered-models/create", "model-versions/search"])
@pytest.mark.parametrize("fault", [lost_answer(), refused_midway()], ids=["answer-lost", "request-lost"])
def test_a_retry_after_a_broken_connection_makes_no_second_version(world: World, part: str, fault: Any) -> None:
    _, model_id = world.judged_model()
    with FaultyServer(world.url) as server:
        server.fail(part, fault, times=1)
        first = register(world, f"models:/{model_id}", url=server.url)
        assert first.state == "up_for_retry"
        second = register(world, f"models:/{model_id}", url=server.url, try_number=2)
    assert second.state == "success"
    assert second.result["version"] == "1"
    assert len(world.all_versions()) == 1


def test_a_retry_after_a_kill_after_any_write_ends_with_one_version(world: World) -> None:
    kills = 0
    for switch in kill_points():
        world.model_name = f"{world.model_name.split('.')[0]}.{kills}"
        run, model_id = world.judged_model()
        first = register(world, f"models:/{model_id}", before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert first.state != "success"
        world.let_claims_run_out()
        second = register(world, f"models:/{model_id}", try_number=2)
        assert (second.state, second.result["version"]) == ("success", "1")
        assert [version.status for version in world.all_versions()] == ["READY"]
        assert world.hook.get_run(run.run_id).tags[contract.TAG_MODEL_VERSION] == f"{world.model_name}/1"
    assert kills >= 5


@pytest.mark.parametrize(
    "source",
    [
        "/data/model",
        "model",
        "./model",
        "s3://bucket/model",
        "file:///data/model",
        "http://example.com/model",
        "models:/other/1",
        "models:/other@champion",
        "models:/m-123",
        "runs:/0123/model",
        f"runs:/{'0' * 32}/",
        f"runs:/{'0' * 32}//etc",
        f"models:/m-{'0' * 32}/../x",
        "mlflow-artifacts:/1/x/artifacts/model",
    ],
)
def test_a_source_that_can_change_its_meaning_is_refused(world: World, source: str) -> None:
    outcome = register(world, source)
    assert outcome.state == "failed"
    message = str(outcome.error)
    assert f"got {source!r}" in message
    assert "model_uri must be models:/<model id> or runs:/<run id>/<name of the logged model>" in message
    assert world.all_versions() == []


def test_a_run_without_a_model_of_that_name_is_refused(world: World) -> None:
    run, _ = world.judged_model()
    outcome = register(world, f"runs:/{run.run_id}/forest")
    assert outcome.state == "failed"
    assert "the run has logged no model named 'forest' (logged: model)" in str(outcome.error)
    assert world.all_versions() == []


@pytest.mark.parametrize("source", [f"runs:/{'0' * 32}/model", f"models:/m-{'0' * 32}"])
def test_an_unknown_run_or_model_registers_nothing(world: World, source: str) -> None:
    outcome = register(world, source)
    assert outcome.state in ("failed", "up_for_retry")
    assert "0" * 32 in str(outcome.error)
    assert "RESOURCE_DOES_NOT_EXIST" in str(outcome.error)
    assert world.all_versions() == []


@pytest.mark.parametrize("status", ["PENDING", "UPLOAD_FAILED"])
def test_a_model_that_is_not_ready_is_refused(world: World, status: str) -> None:
    run = world.new_run({contract.TAG_GATE_VERDICT: "passed"})
    model_id = world.logged_model(run, status=status)
    outcome = register(world, f"models:/{model_id}")
    assert outcome.state == "failed"
    assert f"logged model models:/{model_id} is {status}, not READY. Nothing was registered" in str(outcome.error)
    assert world.all_versions() == []


@pytest.mark.parametrize("verdict", [None, "failed", "inconclusive", "error", "PASSED"])
def test_a_model_that_did_not_pass_its_gate_is_refused(world: World, verdict: str | None) -> None:
    run, model_id = world.judged_model(verdict)
    outcome = register(world, f"models:/{model_id}")
    assert outcome.state == "failed"
    expected = f"MLflow run {run.run_id} has gate verdict {verdict or 'none'}; passed, warned or approved is"
    assert expected in str(outcome.error)
    assert world.all_versions() == []


def test_without_a_gate_a_model_is_registered_when_that_is_asked_for(world: World) -> None:
    _, model_id = world.judged_model(None)
    assert register(world, f"models:/{model_id}", require_gate=False).state == "success"


@pytest.mark.parametrize("dry_run", [True, "true", "True", "{{ 1 == 1 }}"])
def test_a_dry_run_checks_everything_and_registers_nothing(world: World, dry_run: bool | str) -> None:
    _, model_id = world.judged_model()
    assert register(world, f"models:/{model_id}", dry_run=dry_run).state == "skipped"
    assert world.all_versions() == []
    _, rejected = world.judged_model("failed")
    assert register(world, f"models:/{rejected}", dry_run=dry_run).state == "failed"


def test_the_model_of_a_deleted_run_is_refused(world: World) -> None:
    run, model_id = world.judged_model()
    world.hook.delete_run(run.run_id)
    outcome = register(world, f"models:/{model_id}")
    assert outcome.state == "failed"
    assert f"the candidate's MLflow run {run.run_id} is deleted" in str(outcome.error)
    assert world.all_versions() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": "text"}, "tags must be a mapping of text to text; got 'text'"),
        ({"tags": {"a": 1}}, "tags must be a mapping of text to text; got {'a': 1}"),
        ({"description": 7}, "description must be text; got 7"),
        ({"tags": {"bad key!": "x"}}, "No version was created"),
        ({"model_name": "a/b"}, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_what_mlflow_would_refuse_again_is_refused_without_a_retry(
    world: World, options: dict[str, Any], message: str
) -> None:
    _, model_id = world.judged_model()
    outcome = register(world, f"models:/{model_id}", **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert world.claims == []


def test_a_model_name_that_no_search_can_contain_is_refused_before_anything_is_registered(world: World) -> None:
    _, model_id = world.judged_model()
    outcome = register(world, f"models:/{model_id}", model_name='it\'s "x"')
    assert outcome.state == "failed"
    assert "cannot be used in an MLflow filter" in str(outcome.error)


@pytest.mark.parametrize("odd", ["it's", 'say "a"', "back\\slash", "ba\\'ck"])
def test_a_model_name_with_quotes_or_a_backslash_is_found_again_by_all(world: World, odd: str) -> None:
    _, model_id = world.judged_model()
    world.model_name = f"{odd} {world.model_name}"
    assert register(world, f"models:/{model_id}").state == "success"
    assert register(world, f"models:/{model_id}", try_number=2).result["version"] == "1"
    assert [found.version for found in world.hook.find_model_versions(world.model_name)] == ["1"]
    assert [found.version for found in versions_of(world.hook, world.model_name)] == ["1"]
    assert [
        found.name for found in world.hook.search_registered_models(f"name = {filter_value(world.model_name)}")
    ] == [world.model_name]
