"""What tests on a real cluster start from: a namespace of their own, and tasks whose work runs in its pods."""

from __future__ import annotations

import asyncio
import base64
import copy
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.fakes.tcp_gate import TcpGate
from tests.support.forked import ForkedTask
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import TaskOutcome, event_of_trigger, run_task

HOST = os.environ.get("AIRFLOW_MCP_TEST_HOST", "172.17.0.1")
"""Where pods find a server that runs beside the tests; the default is Docker's bridge."""
IMAGE = os.environ.get("AIRFLOW_MCP_TEST_IMAGE", "airflow-mcp/runtime:dev")
SMALL: Mapping[str, Any] = {"cpu": "100m", "memory": "128Mi", "poll_interval": 1, "termination_grace_period": 2}
DEADLINE_SECONDS = 180
HOLD = """
import json, os, time, urllib.request

def is_let_go():
    run = "/api/2.0/mlflow/runs/get?run_id=" + os.environ["AIRFLOW_MCP_RUN_ID"]
    with urllib.request.urlopen(os.environ["MLFLOW_TRACKING_URI"] + run, timeout=30) as answer:
        return any(tag["key"] == "go" for tag in json.load(answer)["run"]["data"]["tags"])

while not is_let_go():
    time.sleep(0.5)
"""
"""Code for a pod that goes on when the test says so: see :func:`let_go`."""


class Cluster:
    """The cluster of the current ``KUBECONFIG``, in a namespace that exists for these tests alone."""

    def __init__(self) -> None:
        config.load_kube_config()
        self.api = client.CoreV1Api(client.ApiClient())
        self.namespace = f"airflow-mcp-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        """Create the namespace; pods can be created once its service account is there."""
        self.api.create_namespace({"metadata": {"name": self.namespace}})
        wait_for(lambda: bool(self.api.list_namespaced_service_account(self.namespace).items), "a service account")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the namespace with everything in it; that goes on in the background."""
        self.api.delete_namespace(self.namespace)

    def pods(self, dag_id: str) -> list[Any]:
        """Find the pods of a Dag that are not being deleted."""
        found = self.api.list_namespaced_pod(self.namespace, label_selector=f"dag_id={dag_id}").items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def started(self, identity: str) -> set[str]:
        """Name the pods that ever ran for a piece of work, also those that are gone."""
        events = self.api.list_namespaced_event(self.namespace, field_selector="reason=Started").items
        return {event.involved_object.name for event in events if f"-{identity[:12]}-" in event.involved_object.name}

    def phase(self, name: str) -> str:
        """Give the phase of a pod; ``gone`` when there is none."""
        try:
            return str(self.api.read_namespaced_pod(name, self.namespace).status.phase)
        except ApiException as error:
            if error.status != 404:
                raise
            return "gone"

    def annotations(self, name: str) -> dict[str, str]:
        """Read the annotations of a pod."""
        return dict(self.api.read_namespaced_pod(name, self.namespace).metadata.annotations)

    def delete(self, name: str, grace_seconds: int = 0) -> None:
        """Delete a pod."""
        self.api.delete_namespaced_pod(name, self.namespace, grace_period_seconds=grace_seconds)

    def running(self, dag_id: str) -> list[str]:
        """Name the running pods of a Dag."""
        return [pod.metadata.name for pod in self.pods(dag_id) if pod.status.phase == "Running"]

    def running_pod(self, dag_id: str) -> str:
        """Wait until a Dag has a running pod and give its name."""
        wait_for(lambda: bool(self.running(dag_id)), f"a running pod of {dag_id}")
        return self.running(dag_id)[0]

    @contextmanager
    def gated(self, folder: Path) -> Iterator[tuple[TcpGate, str]]:
        """Put a door in front of the API server; give it with a kubeconfig that goes through it."""
        given = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        context = next(item["context"] for item in given["contexts"] if item["name"] == given["current-context"])
        server = next(item["cluster"] for item in given["clusters"] if item["name"] == context["cluster"])
        address = urlsplit(server["server"])
        with TcpGate(address.hostname or "", address.port or 443) as gate:
            server["server"] = f"https://127.0.0.1:{gate.port}"
            server["tls-server-name"] = address.hostname
            path = folder / "kubeconfig"
            path.write_text(yaml.safe_dump(given))
            yield gate, str(path)

    @contextmanager
    def cordoned(self) -> Iterator[None]:
        """Let no node take new pods for a while, one test at a time; nodes that took none before stay as they are."""
        with (Path(tempfile.gettempdir()) / "airflow-mcp-cordon.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            names = [node.metadata.name for node in self.api.list_node().items if not node.spec.unschedulable]
            try:
                for name in names:
                    self.api.patch_node(name, {"spec": {"unschedulable": True}})
                yield
            finally:
                for name in names:
                    self.api.patch_node(name, {"spec": {"unschedulable": False}})


class PodWorld(World):
    """An experiment, a model and a Dag of one test; their work runs in pods.

    :param cluster: where pods run.
    :param url: address of the MLflow server, here and in pods.
    :param folder: folder for files of the test.
    """

    def __init__(self, cluster: Cluster, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        self.cluster = cluster

    def train(self, command: list[str] | None = None, *, deferrable: bool = False, **options: Any) -> TaskOutcome:
        """Run a training task; without a command and a script it trains a model at once.

        :param options: options of :meth:`World.run`, of the operator, or, below ``kubernetes``, of the pod.
        """
        pod = {**self.pod_options(deferrable=deferrable), **options.pop("kubernetes", {})}
        given: dict[str, Any] = {
            "experiment_name": self.experiment,
            "model_name": self.model_name,
            "runtime": "kubernetes",
            "command": None if "script" in options else command or training(),
            "kubernetes": pod,
            **options,
        }
        return self.run(TrainModelOperator, **given)

    def see_through(self, command: list[str] | None = None, *, deferrable: bool, **options: Any) -> TaskOutcome:
        """Run a training task to its end; a deferred one with its real trigger, in a process of its own."""
        outcome = self.train(command, deferrable=deferrable, **options)
        if not deferrable:
            return outcome
        assert outcome.state == "deferred", outcome.error
        event = ForkedTask(lambda: asyncio.run(event_of_trigger(outcome))).result()
        assert event is not None, "the trigger died"
        return self.resume(outcome, event)

    def evaluate(self, **pods: Any) -> TaskOutcome:
        """Evaluate a model that is logged, with these options of pods."""
        run, model_id = self.judged_model(None)
        return self.run(
            EvaluateModelOperator,
            run_id=run.run_id,
            model_uri=f"models:/{model_id}",
            model_name=self.model_name,
            dataset={"uri": "data.csv", "version": "1", "hash": "sha256:" + "0" * 64},
            target="y",
            model_type="classifier",
            runtime="kubernetes",
            kubernetes=self.pod_options(**pods),
        )

    def resume(self, outcome: TaskOutcome, event: Mapping[str, Any]) -> TaskOutcome:
        """Let a deferred task go on in a fresh process, so to say, with the event of its trigger."""
        return run_task(
            copy.copy(outcome.operator), supervisor=outcome.supervisor, run_id="run-1", resume_with=dict(event)
        )

    def pod_options(self, **changes: Any) -> dict[str, Any]:
        return {**SMALL, "image": IMAGE, "namespace": self.cluster.namespace, "kubernetes_conn_id": None, **changes}

    def require_failure(self, outcome: TaskOutcome, *texts: str, status: str = "FAILED") -> Run:
        """Require a try that failed and cleaned up: the error has the texts, no pod and no live run is left."""
        message = str(outcome.error)
        assert outcome.state == "up_for_retry", message
        for text in (outcome.xcom.get("pod_name", "task-"), *texts):
            assert text in message, f"{text!r} is not in {message!r}"
        (run,) = self.runs()
        assert run.status == status
        assert texts[0] in run.tags[contract.TAG_ERROR]
        assert self.cluster.pods(self.dag_id) == []
        return run

    def require_clean_retry(self, **options: Any) -> None:
        """Require that the next try trains well, that one run is neither dead nor double, and that no pod is left."""
        outcome = self.train(try_number=2, **options)
        assert outcome.state == "success", outcome.error
        assert self.cluster.started(outcome.result["identity"]) != set()
        self.require_one_result(outcome.result["run_id"])

    def require_one_result(self, run_id: str) -> None:
        assert [run.run_id for run in self.runs("RUNNING", "SCHEDULED", "FINISHED")] == [run_id]
        assert self.cluster.pods(self.dag_id) == []


def kubeconfig_of_account(cluster: Cluster, name: str, rules: list[dict[str, Any]], folder: Path) -> str:
    """Make a service account with some rights, and a kubeconfig with its token alone."""
    cluster.api.create_namespaced_service_account(cluster.namespace, {"metadata": {"name": name}})
    rbac = client.RbacAuthorizationV1Api(cluster.api.api_client)
    rbac.create_namespaced_role(cluster.namespace, {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    rbac.create_namespaced_role_binding(
        cluster.namespace, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    )
    secret = {"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": name}}}
    cluster.api.create_namespaced_secret(cluster.namespace, {**secret, "type": "kubernetes.io/service-account-token"})
    wait_for(lambda: bool(cluster.api.read_namespaced_secret(name, cluster.namespace).data), "a token")
    token = base64.b64decode(cluster.api.read_namespaced_secret(name, cluster.namespace).data["token"]).decode()
    given = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    given["users"] = [{"name": user["name"], "user": {"token": token}} for user in given["users"]]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(given))
    return str(path)


def training(before: str = "", after: str = "") -> list[str]:
    """Write the command of a training in a pod.

    :param before: Python code that runs first.
    :param after: Python code that runs when the MLflow run is finished.
    """
    return ["python", "-I", "-S", "-u", "-c", f"{before}\n{REST_TRAINING}\n{after}", "model"]


def let_go(hook: MlflowHook, run: Run) -> None:
    """Let the pod of a run go on from its ``HOLD``."""
    hook.set_tag(run.run_id, "go", "1")


def shell(script: str) -> list[str]:
    """Write the command of a shell script in a pod."""
    return ["sh", "-c", script]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for a condition.

    :raises TimeoutError: when it does not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not appear in {seconds:g} s")
        time.sleep(0.2)
