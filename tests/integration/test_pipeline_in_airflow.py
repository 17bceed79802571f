"""The pipeline file of the documentation, run by a real Airflow: by hand, by a commit, from a later stage, edited."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.trace import trace_id_of
from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import write_stubs
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.metrics.catalogue import METRICS, prometheus_name
from tests.support import processes, warm
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import AirflowStack
from tests.support.collector import collector
from tests.support.followed_server import FollowingServer
from tests.support.git_server import Repository
from tests.support.paths import PIPELINES
from tests.support.promql import labels_of
from tests.support.services import MlflowServer
from tests.support.statsd import Wire, exposition, open_wire

pytestmark = pytest.mark.integration

wait_until = functools.partial(processes.wait_until, seconds=180)
DAG = "fraud-detection-pipeline"
FILE = PIPELINES / "fraud_detection.yaml"
ADDRESS = "https://github.com/team/ml-fraud-v3"
TOKEN = "a-token-of-prometheus"
SCRIPT = """\
import os

import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

ACCURACY = {accuracy}
features, labels = make_classification(200, 4, random_state=7)
model = LogisticRegression().fit(features, labels)
mlflow.log_metric("accuracy", ACCURACY)
mlflow.set_tag("traceparent", os.environ["TRACEPARENT"])
mlflow.sklearn.log_model(
    model, name="model", input_example=features[:5], serialization_format="cloudpickle", pip_requirements=[]
)
"""
RUN_SECONDS = 600
EVENTS = ("tasks", "workload.duration", "gate.verdicts", "versions.registered", "versions.checked", "versions.load")
EVENTS += ("champion.moves", "retrain.outcomes")
"""Metrics that the tasks of one run report."""


class Deployment:
    """A repository with the code, and a folder of Dags with the file and its stub."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "ml-fraud-v3")
        self.commit(0.95)
        self.dags, self.home = folder / "dags", folder / "airflow"
        self.airflow = ""
        """Address of the API server, once it has started."""
        self.file = self.dags / "pipelines" / FILE.name
        self.file.parent.mkdir(parents=True)
        given = FILE.read_text()
        assert ADDRESS in given
        # The file as it is documented, but for an address that can be reached here and a shorter wait.
        text = given.replace(ADDRESS, self.repository.url)
        self.file.write_text(text.replace("onCommit: true", "onCommit: {poll: 2s}"))
        write_stubs(load_pipeline_folder(self.file.parent), self.file.parent, self.dags)

    def commit(self, accuracy: float) -> str:
        """Commit a script that trains a model of such an accuracy."""
        return self.repository.commit(SCRIPT.format(accuracy=accuracy))

    def trace_of(self, run_id: str) -> str:
        """Return the ID of the trace that Airflow keeps for a Dag run."""
        with sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True) as database:
            (kept,) = database.execute("SELECT context_carrier FROM dag_run WHERE run_id = ?", (run_id,)).fetchone()
        return trace_id_of(json.loads(kept)["__var"]["traceparent"])  # in the form of Airflow's own serialization


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def hook(mlflow_server: MlflowServer) -> Iterator[MlflowHook]:
    connection = json.dumps({"conn_type": "mlflow", "host": mlflow_server.url})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_PIPELINE", connection)
        hook = MlflowHook("mlflow_pipeline")
        yield hook
        hook.close()


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """What Airflow and its tasks send by StatsD."""
    with open_wire() as opened:
        yield opened


@pytest.fixture(scope="module")
def api(deployment: Deployment, mlflow_server: MlflowServer, warm_server: str, wire: Wire) -> Iterator[AirflowClient]:
    settings = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "airflow_mcp",  # Airflow's own would fill the buffer of the socket
        "AIRFLOW__AIRFLOW_MCP__METRICS_TOKEN": TOKEN,
        **wire.variables(),
    }
    settings |= warm.in_airflow(deployment.home, warm_server)
    with AirflowStack(deployment.home, deployment.dags, env=settings) as stack, stack.api() as client:
        deployment.airflow = stack.url
        client.wait_for_dag(DAG)
        client.unpause(DAG)
        yield client


def finished(api: AirflowClient, conf: dict[str, Any]) -> tuple[str, dict[str, str | None]]:
    """Press "Trigger", wait for the end, and give the run's id and the states of its tasks."""
    run_id = api.trigger(DAG, conf)
    api.wait_for_run(DAG, run_id, RUN_SECONDS)
    return run_id, api.task_states(DAG, run_id)


def champion(hook: MlflowHook) -> str:
    return hook.get_registered_model(DAG).aliases.get(contract.ALIAS_CHAMPION, "")


def runs_by_event(api: AirflowClient) -> list[dict[str, Any]]:
    return [run for run in api.list_runs(DAG) if run["run_type"] == "asset_triggered"]


def settle(api: AirflowClient) -> None:
    """Wait for what unpausing a Dag with a time table has started: a run for the last night."""
    assert wait_until(lambda: all(run["state"] in ("success", "failed") for run in api.list_runs(DAG)))


def test_a_pipeline_file_trains_judges_registers_and_promotes_what_a_commit_brought(
    api: AirflowClient,
    deployment: Deployment,
    hook: MlflowHook,
    wire: Wire,
    mlflow_server: MlflowServer,
    tmp_path: Path,
) -> None:
    settle(api)
    wire.lines()
    run_id, states = finished(api, {"reason": "the first model", "force": True})
    assert states == dict.fromkeys(
        ("begin", "build", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome"), "success"
    )
    begun = api.xcom(DAG, run_id, "begin")
    head = deployment.repository.git("rev-parse", "HEAD")
    assert begun["commit"] == head
    version = hook.get_model_version(DAG, champion(hook))
    assert version.tags[contract.TAG_CODE_COMMIT] == head
    assert version.tags[contract.TAG_GATE_VERDICT] == "passed"
    assert "the first model" in version.tags[contract.TAG_REASON]
    what_the_tasks_did_is_in_the_metrics(wire.lines())
    the_state_and_the_ledger_of_the_model_can_be_scraped(deployment.airflow, version.version)
    one_trace_leads_from_the_dag_run_to_its_requests(
        deployment.trace_of(run_id), hook, version, mlflow_server, tmp_path
    )

    better = deployment.commit(0.97)
    before = len(runs_by_event(api))
    assert wait_until(lambda: len(runs_by_event(api)) > before)
    by_commit = runs_by_event(api)[-1]["dag_run_id"]
    assert api.wait_for_run(DAG, by_commit, RUN_SECONDS) == "success"
    assert api.xcom(DAG, by_commit, "begin")["commit"] == better
    second = hook.get_model_version(DAG, champion(hook))
    assert second.tags[contract.TAG_CODE_COMMIT] == better
    assert second.version != version.version


def what_the_tasks_did_is_in_the_metrics(lines: list[str]) -> None:
    """Events of every kind of task have arrived, with the tags that the catalogue names and nothing else."""
    printed = labels_of([exposition(lines)])
    for name in EVENTS:
        metric = METRICS[name]
        ending = "_count" if metric.kind == "timer" else ""
        assert printed[prometheus_name(name) + ending] == {"model", *metric.tags}
    trained = f"airflow.airflow_mcp.tasks,model={DAG},operator=TrainModelOperator,outcome=succeeded:1|c"
    assert lines.count(trained) == 1
    assert lines.count(f"airflow.airflow_mcp.gate.verdicts,model={DAG},verdict=passed,decision=passed:1|c") == 1


def the_state_and_the_ledger_of_the_model_can_be_scraped(airflow: str, version: str) -> None:
    """The route of metrics in Airflow's own API server reads MLflow, and the ledger in Airflow."""

    def scraped() -> dict[tuple[str, str], float]:
        answer = httpx.get(f"{airflow}/mcp/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
        return {(each.name, each.labels.get("model", "")): each.value for each in samples}

    assert httpx.get(f"{airflow}/mcp/metrics", timeout=60).status_code == 401
    assert wait_until(lambda: scraped().get(("airflow_mcp_champion_version", DAG)) == float(version))
    found = scraped()
    assert found["airflow_mcp_up", ""] == 1
    assert found["airflow_mcp_retrain_stopped", DAG] == 0


def one_trace_leads_from_the_dag_run_to_its_requests(
    trace: str, hook: MlflowHook, version: ModelVersion, mlflow_server: MlflowServer, folder: Path
) -> None:
    """Airflow's trace of the Dag run is in the workload, its run, the version, the server's log and a span."""
    assert version.tags[contract.TAG_TRACE_ID] == trace
    training = hook.get_run(version.run_id)
    assert training.tags[contract.TAG_TRACE_ID] == trace
    assert trace_id_of(training.tags["traceparent"]) == trace, "what the script saw"
    with collector() as found:
        send = {"OTEL_EXPORTER_OTLP_ENDPOINT": found.url, "OTEL_TRACES_EXPORTER": "otlp_proto_http"}
        # The script makes its data by itself, so no hash of them is recorded: the server only warns of that.
        options = {"IMAGE_DIGEST": "", "PAIRING": "warn"}
        with FollowingServer(folder, f"models:/{DAG}@champion", mlflow_server.url, send, **options) as server:
            server.wait_for(lambda: server.ask("/readyz", None).status == 200)
            assert f"the champion of {DAG} is version {version.version}, made in trace {trace}" in server.log
            body = json.dumps({"inputs": [[0.0, 0.0, 0.0, 0.0]]}).encode()
            caller = f"{training.tags['traceparent'][:-2]}01"  # sampled, whatever Airflow does
            assert server.ask("/invocations", body, {"traceparent": caller}).version == version.version
            server.wait_for(lambda: f'"trace_id":"{trace}"' in server.log)
    spans = [span for span in found.spans if span.trace_id.hex() == trace]
    assert [span.name for span in spans] == ["POST /invocations"]


def test_a_model_below_its_threshold_is_not_registered_and_the_log_says_why(
    api: AirflowClient, deployment: Deployment, hook: MlflowHook
) -> None:
    settle(api)
    before = champion(hook)
    known = len(runs_by_event(api))
    deployment.commit(0.9199)
    assert wait_until(lambda: len(runs_by_event(api)) > known)
    run_id = runs_by_event(api)[-1]["dag_run_id"]
    assert api.wait_for_run(DAG, run_id, RUN_SECONDS) == "failed"
    states = api.task_states(DAG, run_id)
    assert (states["evaluate"], states["gate"], states["register"]) == ("success", "failed", "upstream_failed")
    assert "0.9199 is not >= 0.92" in api.task_log(DAG, run_id, "gate")
    assert champion(hook) == before


def test_a_run_that_starts_at_the_gate_judges_the_same_training_again(
    api: AirflowClient, deployment: Deployment, hook: MlflowHook
) -> None:
    settle(api)
    good = hook.get_model_version(DAG, champion(hook)).run_id
    run_id, states = finished(api, {"start_at": "gate", "from_run": good})
    assert set(states.values()) == {"success"}, states
    assert api.xcom(DAG, run_id, "train")["run_id"] == good
    assert api.xcom(DAG, run_id, "train")["reused"] is True
    assert len(hook.search_model_versions(f"name = '{DAG}' and run_id = '{good}'")) == 1


def test_a_run_refuses_to_go_on_after_its_file_has_changed(api: AirflowClient, deployment: Deployment) -> None:
    settle(api)
    run_id, states = finished(api, {"start_at": "gate"})
    text = deployment.file.read_text()
    deployed = api.dag_versions(DAG)
    deployment.file.write_text(text.replace("accuracy: 0.92", "accuracy: 0.5"))
    assert wait_until(lambda: api.dag_versions(DAG) > deployed)
    api.clear_task(DAG, run_id, "gate")
    assert wait_until(lambda: api.task_states(DAG, run_id)["gate"] == "failed"), states
    assert "changed since this run began" in api.task_log(DAG, run_id, "gate", try_number=2)
