"""TrainModelOperator against a real MLflow server, with real processes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.identity import content_hash
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

DATA = {"uri": "/data/v1/train.csv", "version": "v1", "hash": "sha256:00"}


def train(world: World, *arguments: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "command": world.command(*(arguments or ("model",))),
        "env": {"MARKER": world.marker},
        "config": {"depth": 3},
        "dataset": DATA,
        **options,
    }
    return world.run(TrainModelOperator, **given)


def test_a_training_gives_a_finished_run_with_provenance_config_and_model(world: World) -> None:
    outcome = train(world, reason="because")
    assert outcome.state == "success"
    (run,) = world.runs()
    assert outcome.result == {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "model_uri": f"models:/{run.model_ids[0]}",
        "model_id": run.model_ids[0],
        "identity": run.tags[contract.TAG_IDENTITY],
        "inputs": run.tags[contract.TAG_INPUTS],
        "reused": False,
    }
    assert outcome.xcom["model_uri"] == outcome.result["model_uri"]
    expected = {
        contract.TAG_KIND: "training",
        contract.TAG_MODEL_NAME: world.model_name,
        contract.TAG_DAG_ID: world.dag_id,
        contract.TAG_DAG_RUN_ID: "run-1",
        contract.TAG_TASK_ID: "task",
        contract.TAG_TRY_NUMBER: "1",
        contract.TAG_DATA_URI: DATA["uri"],
        contract.TAG_DATA_VERSION: DATA["version"],
        contract.TAG_DATA_HASH: DATA["hash"],
        contract.TAG_REASON: "because",
    }
    assert expected.items() <= run.tags.items()
    assert run.status == "FINISHED"
    assert world.artifact(run, "config/config.json") == b'{\n  "depth": 3\n}\n'
    assert world.processes() == []


def test_an_interpreter_without_mlflow_is_refused_before_a_run_exists(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = world.folder / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    (world.folder / "train.py").touch()
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__PYTHON", str(bare))
    outcome = train(world, command=None, script=str(world.folder / "train.py"), retries=3)
    assert outcome.state == "failed"
    assert f"the interpreter {bare} has no mlflow" in str(outcome.error)
    assert world.runs() == []
    assert train(world, retries=3).state == "success", "a command of one's own needs no interpreter"


def test_the_link_leads_to_the_run(world: World) -> None:
    outcome = train(world)
    links = [value for key, value in outcome.xcom.items() if key.startswith("_link_")]
    assert links == [f"{world.url}/#/experiments/{outcome.result['experiment_id']}/runs/{outcome.result['run_id']}"]


@pytest.mark.cold
def test_a_script_of_scikit_learn_trains_through_the_runtime(world: World) -> None:
    script = world.folder / "fit.py"
    script.write_text(
        "import os, sys, mlflow\n"
        "from sklearn.dummy import DummyClassifier\n"
        "import numpy as np, yaml\n"
        "config = yaml.safe_load(open(os.environ['AIRFLOW_MCP_CONFIG_PATH']))\n"
        "with mlflow.start_run():\n"
        "    model = DummyClassifier().fit(np.zeros((4, 1)), [0, 1, 1, 1])\n"
        "    mlflow.log_params({**config, 'argument': sys.argv[1]})\n"
        "    mlflow.sklearn.log_model(model, name='model', pip_requirements=[])\n"
    )
    outcome = train(world, command=None, script=str(script), arguments=["--fast"], dataset=None)
    assert outcome.state == "success", outcome.error
    (run,) = world.runs()
    assert run.status == "FINISHED"
    assert run.params == {"depth": "3", "argument": "--fast"}
    assert run.tags[contract.TAG_CODE_HASH].startswith("sha256:")
    assert outcome.result["model_id"] == run.model_ids[0]


def test_a_retry_takes_what_a_finished_try_left(world: World) -> None:
    first = train(world)
    second = train(world, try_number=2)
    assert second.state == "success"
    assert second.result == {**first.result, "reused": True}
    assert len(world.runs()) == 1


def test_another_dag_run_trains_again(world: World) -> None:
    first, second = train(world), train(world, dag_run_id="run-2")
    assert first.result["run_id"] != second.result["run_id"]
    assert first.result["inputs"] == second.result["inputs"]
    assert len(world.runs("FINISHED")) == 2


def test_a_run_left_open_by_a_dead_try_is_closed_before_a_new_one_starts(world: World) -> None:
    key = train(world).result["identity"]
    (finished,) = world.runs()
    world.hook.delete_run(finished.run_id)
    dead = world.new_run({contract.TAG_IDENTITY: key}, status="RUNNING")
    outcome = train(world, try_number=2)
    assert outcome.state == "success"
    assert outcome.result["reused"] is False
    assert outcome.result["run_id"] not in (dead.run_id, finished.run_id)
    closed = world.hook.get_run(dead.run_id)
    assert closed.status == "KILLED"
    assert closed.tags[contract.TAG_ERROR] == "superseded by try 2 of the same task"
    assert world.runs("RUNNING") == []


def test_unchanged_inputs_hand_on_a_run_that_nobody_has_judged(world: World) -> None:
    first = train(world)
    again = train(world, dag_run_id="run-2", on_unchanged="reuse")
    assert again.state == "success"
    assert (again.result["run_id"], again.result["reused"]) == (first.result["run_id"], True)
    assert len(world.runs()) == 1


@pytest.mark.parametrize("verdict", ["failed", "inconclusive"])
def test_unchanged_inputs_that_a_gate_rejected_are_skipped(world: World, verdict: str) -> None:
    run_id = train(world).result["run_id"]
    world.hook.set_tag(run_id, contract.TAG_GATE_VERDICT, verdict)
    again = train(world, dag_run_id="run-2", on_unchanged="reuse")
    assert again.state == "skipped"
    assert len(world.runs()) == 1


def test_unchanged_inputs_that_were_registered_are_skipped(world: World) -> None:
    run_id = train(world).result["run_id"]
    world.hook.set_tag(run_id, contract.TAG_GATE_VERDICT, "passed")
    world.hook.set_tag(run_id, contract.TAG_MODEL_VERSION, f"{world.model_name}/3")
    assert train(world, dag_run_id="run-2", on_unchanged="reuse").state == "skipped"
    assert train(world, dag_run_id="run-2", on_unchanged="train").state == "success"
    assert len(world.runs()) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"depth": 4}},
        {"dataset": {**DATA, "hash": "sha256:01"}},
        {"image": "registry/trainer:2"},
    ],
    ids=["config", "data", "image"],
)
def test_a_changed_input_is_never_reused(world: World, changed: dict[str, Any]) -> None:
    first = train(world)
    again = train(world, dag_run_id="run-2", on_unchanged="reuse", **changed)
    assert again.result["reused"] is False
    assert again.result["inputs"] != first.result["inputs"]
    assert len(world.runs()) == 2


def test_a_run_that_failed_is_never_reused(world: World) -> None:
    run_id = train(world).result["run_id"]
    world.hook.update_run(run_id, "FAILED", None)
    assert train(world, dag_run_id="run-2", on_unchanged="reuse").result["run_id"] != run_id


def test_the_named_model_of_several_is_taken(world: World) -> None:
    outcome = train(world, "scaler", "forest", model_artifact="scaler")
    names = {model_id: world.hook.get_logged_model(model_id).name for model_id in world.runs()[0].model_ids}
    assert names[outcome.result["model_id"]] == "scaler"


def test_the_model_called_model_is_taken_from_several(world: World) -> None:
    outcome = train(world, "scaler", "model")
    assert world.hook.get_logged_model(outcome.result["model_id"]).name == "model"


def test_a_single_model_is_taken_whatever_its_name(world: World) -> None:
    outcome = train(world, "forest")
    assert world.hook.get_logged_model(outcome.result["model_id"]).name == "forest"


@pytest.mark.parametrize(
    ("logged", "options", "message"),
    [
        (("scaler", "forest"), {}, "logged forest, scaler, but no model named 'model'"),
        (("forest",), {"model_artifact": "tree"}, "logged forest, but no model named 'tree'"),
        (("model:UPLOAD_FAILED",), {}, "is UPLOAD_FAILED, not READY"),
        (("model:PENDING",), {}, "is PENDING, not READY"),
    ],
)
def test_a_model_that_is_not_as_promised_fails_the_task_and_the_run(
    world: World, logged: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    outcome = train(world, *logged, **options)
    assert outcome.state == "up_for_retry"
    assert message in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "FAILED"
    assert message in run.tags[contract.TAG_ERROR]
    assert outcome.result is None


def test_a_config_file_reaches_run_and_workload_as_it_is(world: World) -> None:
    config = world.folder / "settings.yml"
    config.write_text("# ours\ndepth:   5\n")
    show = (
        "import os\nprint(open(os.environ['AIRFLOW_MCP_CONFIG_PATH']).read())\n"
        "assert open(os.environ['AIRFLOW_MCP_CONFIG_PATH']).read() == '# ours\\ndepth:   5\\n'\n"
        "assert os.environ['AIRFLOW_MCP_DATA_PATH'] == '/data/v1/train.csv'\n"
        "assert not [name for name in os.environ if name.startswith('AIRFLOW_CONN')]\n"
    )
    outcome = train(world, command=world.command("model", script=show + REST_TRAINING), config=str(config))
    assert outcome.state == "success", outcome.error
    assert world.artifact(outcome.result["run_id"], "config/settings.yml") == b"# ours\ndepth:   5\n"


def test_overrides_are_merged_into_the_config_hashed_and_recorded(world: World) -> None:
    outcome = train(world, config={"depth": 3, "tree": {"leaves": 7}}, config_overrides={"tree.leaves": "{{ 4 + 5 }}"})
    assert outcome.state == "success", outcome.error
    (run,) = world.runs()
    text = world.artifact(run, "config/config.json")
    assert json.loads(text) == {"depth": 3, "tree": {"leaves": 9}}
    assert run.tags[contract.TAG_CONFIG_HASH] == content_hash(text)


def test_an_override_of_an_unknown_key_starts_nothing(world: World) -> None:
    outcome = train(world, config={"depth": 3}, config_overrides={"width": "1"})
    assert outcome.state == "failed"
    assert "the config has no 'width' there (it has depth)" in str(outcome.error)
    assert world.runs() == []
