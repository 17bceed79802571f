"""Retraining in a real Airflow: decide, pause, resume, reject until it stops, kill the training, delete its Dag run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.stores import open_log
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import ADMIN, AirflowStack
from tests.support.audit_log import Logs, sqlite_logs
from tests.support.object_store import xcom_settings
from tests.support.processes import wait_until
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

MODEL = "churn"
DEADLINE_SECONDS = 120
DAGS = '''
"""A watch that is told what it sees, and a training that only says how it was judged."""
import time

from airflow.sdk import DAG, Asset, Param, get_current_context, task

from airflow_mcp.core import contract
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.operators.retrain import RetrainOutcomeOperator, RetrainTriggerOperator

with DAG(
    "watch",
    schedule=None,
    max_active_runs=1,
    params={"verdict": "drifted", "version": "v1", "gate": "failed", "seconds": "0"},
):
    RetrainTriggerOperator(
        task_id="retrain",
        trigger_dag_id="train",
        model_name="churn",
        experiment_name="churn",
        dataset={"uri": "/data/train.csv", "version": "{{ params.version }}", "hash": "sha256:{{ params.version }}"},
        drift_verdict="{{ params.verdict }}",
        window_id="{{ run_id }}",
        cooldown="PT0S",
        daily_budget=None,
        max_rejections=2,
        conf={"gate": "{{ params.gate }}", "seconds": "{{ params.seconds }}"},
    )

with DAG("watch_mapped", schedule=None, max_active_runs=1):
    RetrainTriggerOperator.partial(
        task_id="retrain",
        trigger_dag_id="idle",
        experiment_name="mapped",
        drift_verdict="not_drifted",
        retries=0,
        inlets=[Asset("retrain/mapped_a"), Asset("retrain/mapped_b")],
    ).expand_kwargs(
        [
            {"model_name": name, "dataset": {"uri": "/data/train.csv", "version": "v1", "hash": "sha256:1"}}
            for name in ("mapped_a", "mapped_b", "mapped_c")
        ]
    )

with DAG("idle", schedule=None):
    task(lambda: None, task_id="nothing")()

with DAG("train", schedule=None, max_active_runs=1, params={"gate": "failed", "seconds": "0", "data_version": "v0"}):

    @task
    def train():
        conf = get_current_context()["params"]
        time.sleep(float(conf["seconds"]))
        hook = MlflowHook("mlflow_default")
        tags = {
            contract.TAG_KIND: contract.KIND_TRAINING,
            contract.TAG_MODEL_NAME: "churn",
            contract.TAG_DATA_HASH: "sha256:" + conf["data_version"],
        }
        run = hook.create_run(hook.get_or_create_experiment("churn"), "training", tags, int(time.time() * 1000))
        hook.update_run(run.run_id, "FINISHED", int(time.time() * 1000))
        return run.run_id

    @task
    def gate(mlflow_run):
        verdict = get_current_context()["params"]["gate"]
        MlflowHook("mlflow_default").set_tag(mlflow_run, contract.TAG_GATE_VERDICT, verdict)
        if verdict != "passed":
            raise ValueError(f"the gate says {verdict}")

    gate(train()) >> RetrainOutcomeOperator(
        task_id="outcome", model_name="churn", run_id="{{ ti.xcom_pull(task_ids='train') or '' }}"
    )

with DAG("release", schedule=None, params={"promote": True}):

    @task
    def register():
        hook = MlflowHook("mlflow_default")
        tags = {contract.TAG_GATE_VERDICT: "passed", contract.TAG_MODEL_VERSION: "release/1"}
        return hook.create_run(hook.get_or_create_experiment("release"), "training", tags, 1).run_id

    @task.branch
    def choose():
        return "promote" if get_current_context()["params"]["promote"] else None

    @task(pool="nobody_made_it")
    def promote():
        raise ValueError("this pool does not exist, so nothing runs in it")

    outcome = RetrainOutcomeOperator(
        task_id="outcome", model_name="release", run_id="{{ ti.xcom_pull(task_ids='register') }}"
    )
    register() >> choose() >> promote() >> outcome
'''


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    return sqlite_logs(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer, logs: Logs) -> Iterator[AirflowStack]:
    folder = tmp_path_factory.mktemp("retrain")
    (folder / "dags").mkdir()
    (folder / "dags" / "dags.py").write_text(DAGS)
    (folder / "home").mkdir(mode=0o700)
    passwords = {ADMIN: "a-secret", "vera": "another-secret"}
    (folder / "home" / "simple_auth_manager_passwords.json").write_text(json.dumps(passwords))
    env = {
        "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps(
            {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
        ),
        "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin,vera:viewer",
        **xcom_settings(f"file://{folder / 'xcom'}"),
    }
    with AirflowStack(folder / "home", folder / "dags", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def api(stack: AirflowStack) -> Iterator[AirflowClient]:
    with stack.api() as client:
        for dag_id in ("watch", "train", "release"):
            client.wait_for_dag(dag_id)
        yield client


class CommandLine:
    """``airflow-mcp retrain`` as a person calls it.

    :param url: address of Airflow.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"AIRFLOW_MCP_AIRFLOW_USER": ADMIN, "AIRFLOW_MCP_AIRFLOW_PASSWORD": "a-secret", **env}
        return self.command("retrain", *arguments, "--airflow-url", self.url, **given)

    def command(self, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow_mcp.cli", *arguments]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return subprocess.run(
            command, env={**kept, **given}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self("status", MODEL, "--format", "json")))


@pytest.fixture(scope="module")
def cli(stack: AirflowStack) -> CommandLine:
    return CommandLine(stack.url)


def watch(api: AirflowClient, **conf: str) -> dict[str, Any]:
    """Let the watch see something, and give what it decided."""
    run_id = api.trigger("watch", conf)
    assert api.wait_for_run("watch", run_id, DEADLINE_SECONDS) == "success"
    return dict(api.xcom("watch", run_id, "retrain"))


def test_a_month_of_drift_in_an_afternoon(api: AirflowClient, cli: CommandLine, logs: Logs, tmp_path: Path) -> None:
    # Nothing has been decided; a person pauses it first.
    assert "no decision has been made yet" in cli("status", MODEL)
    assert "churn is paused" in cli("pause", MODEL, "--reason", "the labels are broken")
    held = watch(api)
    assert held["verdict"] == "not_now"
    assert f"{ADMIN} paused it at" in held["explanation"]
    assert "the labels are broken" in held["explanation"]
    assert "paused already" in cli("pause", MODEL)

    # Resumed: what was needed while it was paused is done now, without new drift. The gate rejects, twice.
    assert "churn is resumed" in cli("resume", MODEL)
    for version in ("v1", "v2"):
        due = watch(api, verdict="not_drifted" if version == "v1" else "drifted", version=version)
        assert due["retrain"]
        assert api.wait_for_run("train", due["triggered_run_id"], DEADLINE_SECONDS) == "failed"
        tasks = api.task_states("train", due["triggered_run_id"])
        assert tasks == {"train": "success", "gate": "failed", "outcome": "failed"}
        assert cli.status()["trainings"][-1]["outcome"] == "rejected"

    # It stops until a person looks.
    stopped = watch(api, version="v3")
    assert "2 challengers in a row were rejected (limit 2); a person has to resume" in stopped["explanation"]
    assert "stopped    yes, challengers rejected: 2 in a row (limit 2)" in cli("status", MODEL)
    cli("resume", MODEL)
    assert not cli.status()["stopped"]
    assert "neither paused nor stopped; nothing was changed" in cli("resume", MODEL)

    # The training is marked as failed while it runs: its last task reports all the same, and it is needed still.
    killed = watch(api, version="v3", seconds="600")["triggered_run_id"]
    assert wait_until(lambda: api.task_states("train", killed).get("train") == "running", seconds=DEADLINE_SECONDS)
    busy = watch(api, version="v4")
    assert f"training {killed} is running" in busy["explanation"]
    mark(api, killed, "failed")
    assert wait_until(lambda: cli.status()["trainings"][-1]["outcome"] == "failed", seconds=DEADLINE_SECONDS), (
        api.task_states("train", killed)
    )
    assert api.wait_for_run("train", killed, DEADLINE_SECONDS) == "failed"

    # Its successor waits in a paused Dag, and its Dag run is deleted: found, settled, triggered under another name.
    pause_dag(api, is_paused=True)
    gone = watch(api, verdict="not_drifted", version="v3")["triggered_run_id"]
    assert gone == f"{killed}__2"
    assert f"training {gone} is queued" in watch(api, verdict="not_drifted", version="v3")["explanation"]
    mark(api, gone, "delete")
    pause_dag(api, is_paused=False)
    again = watch(api, verdict="not_drifted", version="v3", gate="passed")["triggered_run_id"]
    assert again == f"{killed}__3"
    assert [each["outcome"] for each in cli.status()["trainings"]][-2] == "vanished"
    assert api.wait_for_run("train", again, DEADLINE_SECONDS) == "success"

    # Every one of these decisions can be made again from the ledger.
    assert cli("replay", MODEL) == "churn: 9 decisions replayed, all with the recorded result\n"
    every_decision_in_the_log_is_made_again(cli, logs, tmp_path / "kept")


def every_decision_in_the_log_is_made_again(cli: CommandLine, logs: Logs, folder: Path) -> None:
    """Replay from log and ledger, and then from a folder in which a fact was changed."""
    with closing(open_log(logs.owner)) as log:
        records = [one for one in log.facts(f"model:{MODEL}") if one.event["new"]["entry"] == "decision"]
    assert [one.event["new"]["number"] for one in records] == list(range(1, 10))
    airflow = {"AIRFLOW_MCP_AIRFLOW_USER": ADMIN, "AIRFLOW_MCP_AIRFLOW_PASSWORD": "a-secret"}
    for number, name in ((2, ("--seq", str(records[1].seq))), (9, (records[8].event["id"], "--save", str(folder)))):
        replay = ("audit", "replay", *name, "--model", MODEL, "--airflow-url", cli.url)
        done = cli.command(*replay, AIRFLOW_MCP_AUDIT_LOG=logs.url(""), **airflow)
        said = f"identical: retraining of model:{MODEL}, seq {records[number - 1].seq}\n"
        assert (done.returncode, done.stdout) == (0, said), done.stderr

    again = ("audit", "replay", records[8].event["id"], "--offline", str(folder))
    assert cli.command(*again).returncode == 0
    place = folder / "ledger.json"
    stored = json.loads(place.read_text())
    stored["entries"][8]["observation"]["data_hash"] = "sha256:another"
    place.write_text(json.dumps(stored))
    done = cli.command(*again)
    assert (done.returncode, done.stdout.splitlines()[0].partition(":")[0]) == (1, "different")
    assert "  facts: sha256:" in done.stdout


def test_a_mapped_task_writes_to_the_ledgers_among_its_inlets_and_to_no_other(
    api: AirflowClient, cli: CommandLine
) -> None:
    api.wait_for_dag("watch_mapped")
    run_id = api.trigger("watch_mapped", {})
    assert api.wait_for_run("watch_mapped", run_id, DEADLINE_SECONDS) == "failed"
    for model in ("mapped_a", "mapped_b"):
        status = json.loads(cli("status", model, "--format", "json"))
        # The one that decides second may find the training of the first: the Dag is the same.
        assert status["decisions"] == 1
        assert "there is no champion" in status["last_decision"]["explanation"]
    assert cli.run("status", "mapped_c").returncode == 1


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_a_person_ends_between_two_tasks_has_not_released_its_version(
    api: AirflowClient, state: str
) -> None:
    run_id = api.trigger("release", {})
    assert wait_until(lambda: api.task_states("release", run_id).get("choose") == "success", seconds=DEADLINE_SECONDS)
    mark(api, run_id, state, "release")
    assert api.wait_for_run("release", run_id, DEADLINE_SECONDS) == "failed"
    assert api.task_states("release", run_id)["promote"] == "skipped"
    assert api.xcom("release", run_id, "outcome", "outcome") == "failed"
    assert "version 1 was registered and not promoted: the Dag run did not end well" in api.xcom(
        "release", run_id, "outcome", "detail"
    )


def test_a_run_that_leaves_the_promotion_to_a_person_has_registered_its_version(api: AirflowClient) -> None:
    run_id = api.trigger("release", {"promote": False})
    assert api.wait_for_run("release", run_id, DEADLINE_SECONDS) == "success"
    assert api.task_states("release", run_id)["promote"] == "skipped"
    assert api.xcom("release", run_id, "outcome", "outcome") == "registered"


def mark(api: AirflowClient, run_id: str, state: str, dag_id: str = "train") -> None:
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
    answer = api._client.delete(path) if state == "delete" else api._client.patch(path, json={"state": state})
    assert answer.is_success, answer.text


def pause_dag(api: AirflowClient, *, is_paused: bool) -> None:
    assert api._client.patch("/api/v2/dags/train", json={"is_paused": is_paused}).is_success


@pytest.mark.parametrize(
    ("arguments", "env", "code", "message"),
    [
        (
            ["status", MODEL],
            {"AIRFLOW_MCP_AIRFLOW_PASSWORD": "wrong"},
            1,
            "answered POST /auth/token with 401: the cred",
        ),
        (
            ["status", MODEL],
            {"AIRFLOW_MCP_AIRFLOW_TOKEN": "no-token"},
            1,
            "with 403: the user may not do this (role Op",
        ),
        (
            ["pause", MODEL],
            {"AIRFLOW_MCP_AIRFLOW_USER": "vera", "AIRFLOW_MCP_AIRFLOW_PASSWORD": "another-secret"},
            1,
            "PUT /api/v2/assets/",
        ),
        (["status", "fraud"], {}, 1, "has no asset 'retrain/fraud'"),
        (["status", "fraud"], {}, 1, "Ledgers there are: retrain/churn"),
        (["status", MODEL], {"AIRFLOW_MCP_AIRFLOW_PASSWORD": ""}, 2, "no password for admin: set"),
        (["status", MODEL], {"AIRFLOW_MCP_AIRFLOW_USER": ""}, 2, "no credentials: set AIRFLOW_MCP_AIRFLOW_TOKEN"),
    ],
    ids=["password", "token", "role", "model", "ledgers", "no-password", "no-user"],
)
def test_what_airflow_refuses_is_told_with_what_to_do(
    cli: CommandLine, api: AirflowClient, arguments: list[str], env: dict[str, str], code: int, message: str
) -> None:
    done = cli.run(*arguments, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(secret in done.stderr for secret in ("wrong'", "a-secret", "another-secret", "no-token"))


def test_a_viewer_may_look(cli: CommandLine, api: AirflowClient) -> None:
    env = {"AIRFLOW_MCP_AIRFLOW_USER": "vera", "AIRFLOW_MCP_AIRFLOW_PASSWORD": "another-secret"}
    assert cli.run("status", MODEL, **env).returncode == 0
