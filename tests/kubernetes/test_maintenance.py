"""The sweeper and the doctor on a real cluster, and the rights that the documentation asks for."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.definition import Resources, Workload
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.operators.maintenance import SweepPodsOperator
from tests.kubernetes.cluster import IMAGE, PodWorld, kubeconfig_of_account, training, wait_for
from tests.support.paths import DOCS
from tests.support.task_harness import FakeSupervisor, TaskOutcome

NOW_TAGS = {contract.TAG_TASK_ID: "task", contract.TAG_KIND: contract.KIND_TRAINING}


class KnowsTasks(FakeSupervisor):
    """A supervisor that knows the state of tasks, by Dag run."""

    states: dict[str, dict[str, str]] = {}

    def _on_GetTaskStates(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStatesResult

        return TaskStatesResult(task_states={run: self.states[run] for run in message.run_ids if run in self.states})


def new_run(world: PodWorld, dag_run_id: str) -> Run:
    tags = {**NOW_TAGS, contract.TAG_DAG_ID: world.dag_id, contract.TAG_DAG_RUN_ID: dag_run_id}
    return world.new_run({**tags, contract.TAG_IDENTITY: f"{world.dag_id}-{dag_run_id}".replace("_", "-")}, "RUNNING")


def start_pod(world: PodWorld, run: Run, dag_run_id: str) -> str:
    """Start a pod as a task of a Dag run would have, and wait until it is at work."""
    identity = run.tags[contract.TAG_IDENTITY]
    labels = {"dag_id": world.dag_id, "task_id": "task", "run_id": dag_run_id, "identity": identity}
    workload = Workload("task", ("sleep", "600"), image=IMAGE, resources=Resources("50m", "32Mi"), labels=labels)
    name = f"sweep-{dag_run_id.replace('_', '-')}-{world.dag_id[-6:]}"
    options = PodOptions(termination_grace_period=0, labels={"dag_id": world.dag_id})
    manifest = pod_manifest(workload, options, name=name, run_id=run.run_id, companion=name)
    world.cluster.api.create_namespaced_pod(world.cluster.namespace, manifest)
    wait_for(lambda: world.cluster.phase(name) == "Running", f"pod {name}")
    return name


def sweep(world: PodWorld, states: dict[str, str], **arguments: Any) -> TaskOutcome:
    supervisor = KnowsTasks(connections={"mlflow_default": {"host": world.url}})
    supervisor.states = {dag_run: {"task": state} for dag_run, state in states.items()}
    where = {"namespace": world.cluster.namespace, "kubernetes_conn_id": None}
    given = {"older_than": timedelta(0), "experiments": [world.experiment], "kubernetes": where, **arguments}
    outcome = world.run(SweepPodsOperator, supervisor=supervisor, **given)
    assert outcome.state == "success", outcome.error
    return outcome


def at_work(world: PodWorld) -> set[str]:
    return {pod.metadata.name for pod in world.cluster.pods(world.dag_id)}


def test_the_sweeper_removes_what_nobody_works_on_and_nothing_else(lonely_world: PodWorld) -> None:
    world = lonely_world
    orphaned, busy, alone = (new_run(world, name) for name in ("failed_run", "busy_run", "alone_run"))
    waiting = new_run(world, "waiting_run")
    leftover, kept = start_pod(world, orphaned, "failed_run"), start_pod(world, busy, "busy_run")
    states = {"failed_run": "failed", "busy_run": "deferred", "alone_run": "failed", "waiting_run": "up_for_retry"}

    dry = sweep(world, states).result
    assert (dry["dry_run"], dry["removed"], dry["closed"]) == (True, [leftover], [alone.run_id])
    assert at_work(world) == {leftover, kept}
    assert world.hook.get_run(alone.run_id).status == "RUNNING"

    done = sweep(world, states, dry_run="False").result
    assert (done["dry_run"], done["removed_count"], done["closed_count"]) == (False, 1, 1)
    assert at_work(world) == {kept}
    closed = world.hook.get_run(alone.run_id)
    assert closed.status == "KILLED"
    assert "its task is failed and no pod runs for it" in closed.tags[contract.TAG_ERROR]
    assert world.hook.get_run(busy.run_id).is_live
    assert world.hook.get_run(waiting.run_id).is_live

    wait_for(lambda: leftover not in at_work(world), "the end of the pod")
    wait_for(lambda: world.cluster.phase(leftover) == "gone", "the removal of the pod")
    assert sweep(world, states, dry_run=False).result["closed"] == [orphaned.run_id]


def test_the_command_line_removes_by_what_mlflow_knows_and_only_when_told(
    lonely_world: PodWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = lonely_world
    ended, live = new_run(world, "ended_run"), new_run(world, "live_run")
    leftover, kept = start_pod(world, ended, "ended_run"), start_pod(world, live, "live_run")
    world.hook.update_run(ended.run_id, "KILLED", ended.start_time)
    where = ["--namespace", world.cluster.namespace, "--tracking-uri", world.url, "--older-than", "0s"]

    assert main(["pods", "list", *where]) == 0
    shown = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert shown[leftover].startswith("LEFTOVER ")
    assert "its MLflow run is KILLED" in shown[leftover]
    assert shown[kept].startswith("kept ")

    assert main(["pods", "clean", *where]) == 0
    assert "dry run: 1 would be removed" in capsys.readouterr().out
    assert at_work(world) == {leftover, kept}

    assert main(["pods", "clean", *where, "--yes"]) == 0
    assert f"removed: {leftover}" in capsys.readouterr().out
    assert at_work(world) == {kept}


# --- rights and doctor ----------------------------------------------------------------------------------------


def documented_role() -> dict[str, Any]:
    page = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
    block = page.split("<!-- rbac: start -->")[1].split("<!-- rbac: end -->")[0].strip()
    documents = yaml.safe_load_all(block.removeprefix("```yaml").removesuffix("```"))
    return next(document for document in documents if document["kind"] == "Role")


def findings_of(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_the_documented_role_is_enough_for_the_doctor_and_for_a_training(
    world: PodWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file = kubeconfig_of_account(world.cluster, "documented", documented_role()["rules"], world.folder)
    monkeypatch.setenv("KUBECONFIG", config_file)
    where = ["--namespace", world.cluster.namespace, "--tracking-uri", world.url, "--format", "json"]
    code = main(["doctor", *where, "--image", IMAGE, "--from-pod"])
    findings = findings_of(capsys)
    assert {finding["subject"]: finding for finding in findings.values() if finding["level"] != "ok"} == {}
    assert code == 0
    assert {"MLflow artifacts: write", "right: secrets", "image: mlflow", "MLflow from a pod"} <= findings.keys()

    fields = {"login": "user", "password": "secret"}  # so that a Secret has to be made too
    command = training(before="import os, sys\nif os.environ['RANK'] != '0': sys.exit()")
    options = {"config_file": config_file, "replicas": 2}
    outcome = world.train(command, connection=fields, config={"a": 1}, kubernetes=options)
    assert outcome.state == "success", outcome.error


def test_the_doctor_names_what_is_wrong_and_what_to_do(
    world: PodWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "delete"]}]
    monkeypatch.setenv("KUBECONFIG", kubeconfig_of_account(world.cluster, "poor", rules, world.folder))
    where = ["--namespace", world.cluster.namespace, "--tracking-uri", world.url, "--format", "json"]
    image = ["--image", "registry.invalid/none:1", "--timeout", "60s"]
    assert main(["doctor", *where, *image, "--from-pod", "--pod-tracking-uri", "http://localhost:5000"]) == 1
    findings = findings_of(capsys)
    assert findings["right: pods"]["says"] == f"may not patch in namespace {world.cluster.namespace!r}"
    assert '["get"] on pods/log' in findings["right: pods/log"]["advice"]
    assert "would be the pod itself" in findings["MLflow address"]["says"]
    assert "image 'registry.invalid/none:1' cannot be pulled" in findings["image"]["says"]
    left = world.cluster.api.list_namespaced_pod(world.cluster.namespace).items
    assert [pod for pod in left if "doctor" in pod.metadata.name and not pod.metadata.deletion_timestamp] == []


def test_the_doctor_says_when_no_cluster_answers(
    world: PodWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for item in given["clusters"]:
        item["cluster"]["server"] = "https://127.0.0.1:1"
    path = world.folder / "nobody.yaml"
    path.write_text(yaml.safe_dump(given))
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert main(["doctor", "--tracking-uri", world.url, "--format", "json"]) == 1
    finding = findings_of(capsys)["cluster"]
    assert finding["level"] == "problem"
    assert "https://127.0.0.1:1 does not answer" in finding["says"]
