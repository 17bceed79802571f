"""Training and steps with code from a Git repository, against a real MLflow server and with real processes."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

SCRIPT = f"import pathlib\nprint('beside me:', pathlib.Path('beside.txt').read_text())\n{REST_TRAINING}"
LEAVES_ITS_RUN_OPEN = SCRIPT.replace('call("POST", "runs/update", run_id=run_id, status="FINISHED")', "")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "models")
    repository.commit("hello from the commit", "jobs/beside.txt")
    return repository


def source(repository: Repository, commit: str, /, **changes: str) -> dict[str, str]:
    return {"repo_url": repository.url, "revision": commit, "path": "jobs"} | changes


def train(world: World, code: dict[str, str], **options: Any) -> TaskOutcome:
    """Train with plain python, as in an image of the user's own."""
    given = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "code": code,
        "script": "train.py",
        "arguments": ["model"],
        "image": "example.com/own:1",
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(TrainModelOperator, **given)


def step(world: World, command: list[str], **options: Any) -> TaskOutcome:
    given = {"experiment_name": world.experiment, "command": command, "env": {"MARKER": world.marker}, **options}
    return world.run(RunStepOperator, **given)


# --- training ----------------------------------------------------------------------------------------------------
def test_a_script_trains_in_its_checkout_and_the_run_names_the_commit(world: World, repository: Repository) -> None:
    commit = repository.commit(SCRIPT, "jobs/train.py")
    repository.commit("raise SystemExit('the branch has moved on')", "jobs/train.py")
    outcome = train(world, source(repository, commit))
    assert outcome.state == "success", outcome.error
    (run,) = world.runs()
    assert run.status == "FINISHED"
    assert outcome.result["model_id"] == run.model_ids[0]
    assert run.tags[contract.TAG_CODE_COMMIT] == commit
    assert run.tags[contract.TAG_CODE_URL] == repository.url
    assert contract.TAG_CODE_HASH not in run.tags
    again = train(world, source(repository, commit), try_number=2)
    assert again.result == {**outcome.result, "reused": True}
    assert world.processes() == []


def test_a_script_of_the_repository_runs_under_our_runtime_without_an_image(
    world: World, repository: Repository
) -> None:
    repository.commit("raise SystemExit('a file of the repository stands in for a library')", "jobs/httpx.py")
    repository.commit("raise SystemExit('a file of the repository stands in for a library')", "jobs/mlflow.py")
    commit = repository.commit(SCRIPT, "jobs/train.py")
    outcome = train(world, source(repository, commit), image=None)
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    assert f"{contract.TAG_PREFIX}mlflow_version" in run.tags


def test_another_commit_is_other_work(world: World, repository: Repository) -> None:
    first = repository.commit(SCRIPT, "jobs/train.py")
    second = repository.commit("unrelated", "README.md")
    one, two = train(world, source(repository, first)), train(world, source(repository, second))
    assert one.result["inputs"] != two.result["inputs"]
    assert len(world.runs("FINISHED")) == 2


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("print('no model')", "is RUNNING, not FINISHED"),
        (LEAVES_ITS_RUN_OPEN, "is RUNNING, not FINISHED"),
    ],
)
def test_a_script_that_does_not_train_leaves_a_failed_run(
    world: World, repository: Repository, script: str, message: str
) -> None:
    commit = repository.commit(script, "jobs/train.py")
    outcome = train(world, source(repository, commit))
    assert outcome.state == "up_for_retry"
    assert message in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "FAILED"


def test_a_script_that_finishes_its_run_without_a_model_is_not_trained(world: World, repository: Repository) -> None:
    commit = repository.commit(SCRIPT, "jobs/train.py")
    outcome = train(world, source(repository, commit), arguments=[])
    assert outcome.state == "up_for_retry"
    assert "logged no model" in str(outcome.error)


@pytest.mark.parametrize(
    ("changes", "script", "message"),
    [
        ({"revision": "1" * 40}, "train.py", "has no commit 1111"),
        ({"path": "other"}, "train.py", "has no folder 'other'"),
        ({}, "other.py", "has no file 'jobs/other.py'"),
    ],
)
def test_code_that_is_not_there_fails_at_once_and_names_it(
    world: World, repository: Repository, changes: dict[str, str], script: str, message: str
) -> None:
    commit = repository.commit(SCRIPT, "jobs/train.py")
    outcome = train(world, source(repository, commit, **changes), script=script)
    assert outcome.state == "failed"
    assert "step 'checkout'" in str(outcome.error)
    assert message in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "FAILED"


def test_a_repository_that_does_not_answer_is_tried_again(world: World, repository: Repository) -> None:
    commit = repository.commit(SCRIPT, "jobs/train.py")
    outcome = train(world, source(repository, commit, repo_url="http://127.0.0.1:1/models"))
    assert outcome.state == "up_for_retry"
    assert "step 'checkout' of workload 'task' ended with exit code 1" in str(outcome.error)


@pytest.mark.parametrize("script", ["/etc/train.py", "../train.py", ""])
def test_a_script_outside_its_repository_is_refused_before_anything_starts(
    world: World, repository: Repository, script: str
) -> None:
    commit = repository.commit(SCRIPT, "jobs/train.py")
    outcome = train(world, source(repository, commit), script=script)
    assert outcome.state == "failed"
    assert "script must be" in str(outcome.error)
    assert world.runs() == []


def test_the_login_of_the_connection_is_for_the_checkout_alone(
    world: World, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "git", "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps(connection))
    script = f"import os\nassert not [name for name in os.environ if '_GIT_' in name]\n{SCRIPT}"
    commit = repository.commit(script, "jobs/train.py")
    with GitHttpServer(repository.folder.parent) as server:
        code = source(repository, commit, repo_url=f"{server.url}/models", git_conn_id="git_tests")
        outcome = train(world, code)
    assert outcome.state == "success", outcome.error
    assert PASSWORD not in json.dumps([run.tags for run in world.runs()])


@pytest.mark.cold
def test_a_script_that_runs_too_long_is_stopped(world: World, repository: Repository) -> None:
    commit = repository.commit("import time\nprint('started')\ntime.sleep(600)", "jobs/train.py")
    outcome = train(world, source(repository, commit), workload_timeout=timedelta(seconds=6))
    assert "ran longer than its timeout" in str(outcome.error)
    assert world.processes() == []


# --- steps -------------------------------------------------------------------------------------------------------
def test_a_step_runs_its_command_in_the_checkout_and_owns_a_finished_run(world: World, repository: Repository) -> None:
    commit = repository.commit("x = 1", "jobs/train.py")
    command = [sys.executable, "-m", "py_compile", "train.py"]
    outcome = step(world, command, code=source(repository, commit), model_name=world.model_name)
    assert outcome.state == "success", outcome.error
    (run,) = world.runs()
    assert outcome.result == {
        "run_id": run.run_id,
        "identity": run.tags[contract.TAG_IDENTITY],
        "image_digest": "",
        "skipped": False,
    }
    assert (run.status, run.tags[contract.TAG_KIND]) == ("FINISHED", contract.KIND_STEP)
    assert run.tags[contract.TAG_CODE_COMMIT] == commit
    again = step(world, command, code=source(repository, commit), model_name=world.model_name, try_number=2)
    assert again.result == outcome.result
    assert len(world.runs()) == 1


def test_a_step_runs_in_a_folder_of_this_machine(world: World, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("x")
    assert step(world, ["test", "-f", "here.txt"], folder=str(tmp_path)).state == "success"
    refused = step(world, ["true"], folder=str(tmp_path / "missing"), dag_run_id="run-2")
    assert refused.state == "failed"
    assert "folder must be an existing folder on this worker" in str(refused.error)


def test_a_folder_of_this_machine_is_refused_for_a_pod_before_anything_starts(world: World, tmp_path: Path) -> None:
    refused = step(world, ["true"], folder=str(tmp_path), runtime="kubernetes")
    assert refused.state == "failed"
    assert "folder must be empty with runtime='kubernetes', because a pod cannot see it" in str(refused.error)
    assert world.runs() == []


def test_a_step_that_fails_leaves_a_failed_run_with_its_last_lines(world: World, repository: Repository) -> None:
    commit = repository.commit("x = (", "jobs/train.py")
    outcome = step(world, [sys.executable, "-m", "py_compile", "train.py"], code=source(repository, commit))
    assert outcome.state == "up_for_retry"
    (run,) = world.runs()
    assert run.status == "FAILED"
    assert "SyntaxError" in run.tags[contract.TAG_ERROR]


@pytest.mark.parametrize("dry_run", [True, "true"])
def test_a_dry_run_does_nothing_and_succeeds(world: World, dry_run: bool | str) -> None:
    outcome = step(world, ["false"], dry_run=dry_run)
    assert outcome.state == "success"
    assert outcome.result == {"run_id": "", "identity": "", "image_digest": "", "skipped": True}
    assert world.runs() == []


@pytest.mark.parametrize("command", ["pytest -q", [], [1]])
def test_a_command_that_is_no_list_of_texts_is_refused(world: World, command: Any) -> None:
    outcome = step(world, command)
    assert outcome.state == "failed"
    assert "command must be a list of strings" in str(outcome.error)


def test_a_step_whose_run_the_command_ended_as_failed_is_no_success(world: World) -> None:
    body = (
        "import json,os,urllib.request as u;"
        "b=json.dumps(dict(run_id=os.environ['MLFLOW_RUN_ID'],status='FAILED')).encode();"
        "r=u.Request(os.environ['MLFLOW_TRACKING_URI']+'/api/2.0/mlflow/runs/update',b,{'content-type':'application/json'});"
        "u.urlopen(r)"
    )
    outcome = step(world, [sys.executable, "-c", body])
    assert outcome.state == "up_for_retry"
    assert "is FAILED (active), not FINISHED" in str(outcome.error)
