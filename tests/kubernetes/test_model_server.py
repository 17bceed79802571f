"""The model server on a real cluster: deployed, scaled, drained, changed, undone and taken back while it is asked."""

from __future__ import annotations

import asyncio
import errno
import http.client
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import open_log
from airflow_mcp.exceptions import AuditUnavailableError
from airflow_mcp.operators.model_server import DeployModelServerOperator, RollbackModelServerOperator
from tests.kubernetes.cluster import PodWorld, kubeconfig_of_account, wait_for
from tests.support.audit_log import Logs, sqlite_logs
from tests.support.forked import ForkedTask
from tests.support.logged_models import log_tree
from tests.support.paths import DOCS
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome, event_of_trigger

pytestmark = pytest.mark.filterwarnings("ignore")
SERVING_IMAGE = os.environ.get("AIRFLOW_MCP_TEST_SERVING_IMAGE", "airflow-mcp/serving:dev")
BODY = json.dumps({"dataframe_records": [{"x1": 1.0, "x2": 0.0}]}).encode()
SERVER = {
    "name": "scores",
    "replicas": 1,
    "resources": {"cpu": "100m", "cpu_limit": None, "memory": "600Mi"},
    "drain_seconds": 8,
    "cache_gib": 1,
    "settings": {"PAIRING": "warn"},
    "image_pull_policy": "Never",
}


def documented_rules() -> list[Any]:
    """Read the rights that the page tells readers to give to Airflow."""
    page = (DOCS / "serving" / "kubernetes.md").read_text(encoding="utf-8")
    block = page.split("<!-- rbac: start -->")[1].split("<!-- rbac: end -->")[0].strip()
    return list(yaml.safe_load(block.removeprefix("```yaml").removesuffix("```"))["rules"])


class Servers:
    """Model servers of one test, changed with the documented rights alone, and the versions that they serve.

    :param world: the model, and the namespace.
    """

    def __init__(self, world: PodWorld) -> None:
        self.world, self.namespace = world, world.cluster.namespace
        self.config_file = kubeconfig_of_account(world.cluster, "airflow", documented_rules(), world.folder)
        self.apps, self.number = client.AppsV1Api(world.cluster.api.api_client), 0

    def run(self, operator: type[Any], **arguments: Any) -> TaskOutcome:
        self.number += 1
        given = {"timeout": timedelta(seconds=90), "poll_interval": 1, "namespace": self.namespace}
        cluster = {"kubernetes_conn_id": None, "config_file": self.config_file}
        where = {"kubernetes": cluster, "dag_run_id": f"run-{self.number}"}
        return self.world.run(operator, **{**given, **where, **arguments})

    def deploy(self, version: str, *, image: str = SERVING_IMAGE, server: Any = None, **arguments: Any) -> TaskOutcome:
        named = {"model_name": self.world.model_name, "image": image, "version": version}
        given = {"skip_missing_apis": True, "server": {**SERVER, **(server or {})}}
        return self.run(DeployModelServerOperator, **named, **{**given, **arguments})

    def callers(self, name: str) -> Callers:
        """Return callers of a Service that was made just now, when every node knows it."""
        address = str(self.world.cluster.api.read_namespaced_service(name, self.namespace).spec.cluster_ip)
        wait_for(lambda: _answers(address), f"an answer of {address}")
        return Callers(address)

    def revision(self, name: str = "scores") -> int:
        found = self.apps.read_namespaced_deployment(name, self.namespace)
        return int(found.metadata.annotations["deployment.kubernetes.io/revision"])

    def pods(self) -> list[str]:
        """Name the pods of the server ``scores`` that are not ending."""
        return [pod.metadata.name for pod in self._listed() if pod.metadata.deletion_timestamp is None]

    def running(self) -> list[str]:
        """Name the pods whose server runs, also those that drain; such a pod may take much longer to vanish."""
        return [
            pod.metadata.name
            for pod in self._listed()
            if any(each.state.running is not None for each in pod.status.container_statuses or ())
        ]

    def _listed(self) -> list[Any]:
        selector = "app.kubernetes.io/name=scores"
        return list(self.world.cluster.api.list_namespaced_pod(self.namespace, label_selector=selector).items)


_PORTS = itertools.count(20_000)
"""Ports of callers, each used once: the kernel remembers for two minutes which pod a port of a caller was sent to, and
sends a connection from the same port there again, also when the pod is gone."""


class Callers:
    """Ask a server all the time: one caller over a connection that stays, and one over a new one for each request.

    :param address: IP address of its Service.
    """

    def __init__(self, address: str) -> None:
        self._address, self.phase = address, "quiet"
        self.answers: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self._latest: dict[bool, str] = {}
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(keeps,)) for keeps in (True, False)]

    @contextmanager
    def calling(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def versions(self, phase: str) -> set[str]:
        return {version for name, version in self.answers if name == phase}

    @property
    def latest(self) -> set[str]:
        """The versions that gave the last answer of each caller."""
        return set(self._latest.values())

    def say(self) -> None:
        """Print how many requests were answered and failed in each phase."""
        for phase in dict.fromkeys(name for name, _ in self.answers):
            answered = sum(count for (name, _), count in self.answers.items() if name == phase)
            failed = sum(each.startswith(f"{phase}:") for each in self.failures)
            print(f"{phase}: {answered} requests answered, {failed} failed")

    def _ask(self, keeps: bool) -> None:
        connection = self._new_connection()
        while not self._is_over.is_set():
            phase, began, is_over = self.phase, time.monotonic(), not keeps
            try:
                connection.request("POST", "/invocations", BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                is_over |= answer.will_close
                if answer.status != 200:
                    raise OSError(f"{answer.status} {body[:200]!r}")
                version = self._latest[keeps] = json.loads(body)["model"]["version"]
                self.answers[phase, version] += 1
            except (OSError, http.client.HTTPException) as error:
                is_over = True
                if getattr(error, "errno", 0) != errno.EADDRINUSE:
                    seconds = time.monotonic() - began
                    self.failures.append(f"{phase}: {type(error).__name__}: {error} after {seconds:.1f} s")
            if is_over:
                connection.close()
                connection = self._new_connection()
            time.sleep(0.005 if keeps else 0.02)

    def _new_connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, 80, timeout=30, source_address=("", next(_PORTS)))


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 80, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def servers(lonely_world: PodWorld, pod_mlflow: MlflowServer) -> Servers:
    tree = log_tree(pod_mlflow)
    for _ in range(2):
        tree.register(lonely_world)
    return Servers(lonely_world)


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    """The audit log of the tasks."""
    logs = sqlite_logs(tmp_path)
    audit = {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(audit))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
    return logs


def events(logs: Logs, subject: str) -> list[tuple[str, str]]:
    """Name the events of a Deployment in their order: ``intended``, or the phase in which it ended."""
    with closing(open_log(logs.owner)) as log:
        found = [record.event for record in log.facts(subject, "deployment.")]
    return [(each["action"].removeprefix("deployment."), each["new"].get("phase", "")) for each in found]


@contextmanager
def log_is_down() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AuditUnavailableError("the audit log does not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteAuditLog, "append", refuse)
        yield


def test_no_request_fails_while_a_server_is_scaled_drained_changed_undone_and_taken_back(
    servers: Servers, audited: Logs
) -> None:
    first = servers.deploy("1")
    assert first.state == "success", first.error
    assert first.result["phase"] == "READY"
    assert (first.result["revision"], first.result["replicas"]) == (1, 1)
    assert first.result["skipped"] == ["PodDisruptionBudget (policy/v1)"]
    assert first.result["image_digest"].startswith("sha256:")
    callers = servers.callers("scores")
    with callers.calling():
        callers.phase = "scale out"
        assert servers.deploy("1", server={"replicas": 2}).result["replicas"] == 2

        callers.phase = "drain"
        drained = servers.pods()[0]
        servers.world.cluster.delete(drained, grace_seconds=60)
        wait_for(lambda: drained not in servers.running(), "the end of the pod that drains")

        callers.phase = "scale in"
        assert servers.deploy("1").result["revision"] == 1

        callers.phase = "swap"
        assert servers.deploy("2").result["revision"] == 2
        wait_for(lambda: len(servers.running()) == 1, "the end of the old pod, which answers while it drains")

        callers.phase = "undo"
        failed = servers.deploy("2", image="airflow-mcp/none:1", timeout=timedelta(seconds=6))
        assert failed.state == "failed"
        assert "ErrImageNeverPull" in str(failed.error)
        assert failed.xcom["phase"] == "UNDONE"
        wait_for(lambda: servers.revision() == 4, "the revision of the undo")
        wait_for(lambda: len(servers.pods()) == 1, "the end of the pod without an image")

        callers.phase = "take back"
        with log_is_down():
            back = servers.run(RollbackModelServerOperator, deployment="scores", to_revision=1, dag_run_id="back")
        assert (back.state, servers.revision()) == ("up_for_retry", 5), "it goes back, and is recorded by a retry"
        again = {"deployment": "scores", "to_revision": 1, "dag_run_id": "back", "try_number": 2}
        back = servers.run(RollbackModelServerOperator, **again)
        assert back.result["revision"] == 5, back.error
        wait_for(lambda: len(servers.running()) == 1, "the end of the last pod that drains")
        callers.phase = "after"
        time.sleep(0.5)
    callers.say()
    assert callers.failures == []
    assert callers.versions("drain") == callers.versions("scale in") == {"1"}
    assert callers.versions("undo") == {"2"}
    assert callers.versions("after") == {"1"}
    ends = ["READY", "READY", "READY", "READY", "UNDONE", "READY"]
    expected = [each for phase in ends for each in (("intended", ""), ("ended", phase))]
    assert events(audited, f"deployment:{servers.namespace}/scores") == expected


def test_requests_change_sides_when_the_other_deployment_is_ready_and_only_then(servers: Servers) -> None:
    def sides(version: str, track: str, **arguments: Any) -> TaskOutcome:
        return servers.deploy(version, server={"name": "sides", "track": track}, **arguments)

    assert sides("1", "blue").result["deployment"] == "sides-blue"
    callers = servers.callers("sides")
    with callers.calling():
        callers.phase = "failed side"
        failed = sides("2", "green", image="airflow-mcp/none:1", timeout=timedelta(seconds=4))
        assert failed.xcom["phase"] == "FAILED"
        assert "There is no revision before" in str(failed.error)

        callers.phase = "other side"
        killed = ForkedTask(lambda: sides("2", "green", dag_run_id="run-1"))
        wait_for(lambda: servers.revision("sides-green") == 2, "the change of the task that is killed")
        killed.kill()
        assert killed.result() is None
        waiting = sides("2", "green", deferrable=True, dag_run_id="run-1", try_number=2)
        assert waiting.state == "deferred", waiting.error
        event = ForkedTask(lambda: asyncio.run(event_of_trigger(waiting))).result()
        assert callers.versions("other side") == {"1"}
        outcome = servers.world.resume(waiting, event)
        assert outcome.state == "success", outcome.error
        assert (outcome.result["revision"], outcome.result["phase"]) == (2, "READY")

        callers.phase = "way back"
        assert sides("1", "blue").result["revision"] == 1
        wait_for(lambda: callers.latest == {"1"}, "requests at the first side")
        callers.phase = "after"
        time.sleep(0.5)
    callers.say()
    assert callers.failures == []
    assert callers.versions("failed side") == callers.versions("after") == {"1"}
    assert callers.versions("way back") == {"1", "2"}


def test_a_change_that_is_refused_changes_nothing(servers: Servers, audited: Logs) -> None:
    world = servers.world
    with log_is_down():
        assert servers.deploy("1").state == "up_for_retry"
    refused = servers.deploy("1", skip_missing_apis=False)
    assert "the cluster does not have PodDisruptionBudget (policy/v1). Nothing was applied" in str(refused.error)
    wrong = servers.deploy("1", server={"tolerations": [{"key": "not a key", "operator": "Exists"}]})
    assert "Kubernetes refuses Deployment scores" in str(wrong.error)
    assert servers.deploy("1", dry_run=True).state == "skipped"
    assert servers.apps.list_namespaced_deployment(servers.namespace).items == []
    assert [each.metadata.name for each in world.cluster.api.list_namespaced_service(servers.namespace).items] == []

    assert events(audited, f"deployment:{servers.namespace}/scores") == [("intended", "")], "the one that is refused"
    quick: Any = {"timeout": timedelta(seconds=1), "image": "airflow-mcp/none:1", "on_failure": "keep"}
    assert "The pods stay as they are" in str(servers.deploy("1", **quick).error)
    found = servers.apps.patch_namespaced_deployment(
        "scores", servers.namespace, {"spec": {"replicas": 0}}, field_manager="somebody"
    )
    conflict = servers.deploy("1", **quick)
    assert conflict.state == "failed"
    assert 'conflict with "somebody"' in str(conflict.error)
    assert ".spec.replicas" in str(conflict.error)
    after = servers.apps.read_namespaced_deployment("scores", servers.namespace)
    assert after.metadata.generation == found.metadata.generation
    scaled = servers.deploy("1", server={"autoscaling": {"max_replicas": 3}}, **quick)
    assert scaled.xcom["skipped"] == ["HorizontalPodAutoscaler (autoscaling/v2)", "PodDisruptionBudget (policy/v1)"]
    assert servers.apps.read_namespaced_deployment("scores", servers.namespace).spec.replicas == 0
