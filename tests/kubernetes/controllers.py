"""Stand-ins for Kubeflow Trainer and KubeRay, which cannot be installed where these tests run.

Nothing here is the projects' own. :class:`Front` is an API server that keeps objects of their two kinds and passes
every other request on to the real cluster; it checks and prunes objects by schemas that are written from the types in
the projects' sources, as far as this project writes those fields. :class:`Controller` creates the pods that a spec asks
for on the real cluster, and sets the status as the projects document it. That tests composing, watching, cancelling and
logs.

Real definitions of custom resources would do instead of the front, but a Kubernetes 1.20 that is compiled with Go 1.18
or newer crashes as soon as it decodes a custom resource, and Debian's sources give just that.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import Draft202012Validator
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from airflow_mcp.core.workload.targets import TARGETS
from tests.kubernetes.cluster import Cluster
from tests.support.crds import RAY_JOB, TRAIN_JOB

SPECS: Mapping[str, Mapping[str, Any]] = {"train_job": TRAIN_JOB, "ray_job": RAY_JOB}
_CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


def pruned(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a value without the fields that its schema does not know, as Kubernetes keeps it."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: pruned(item, known[name]) for name, item in value.items() if name in known}
    if isinstance(value, list) and "items" in schema:
        return [pruned(item, schema["items"]) for item in value]
    return value


class Front(ThreadingHTTPServer):
    """An API server with the kinds of some targets, in front of the real one.

    :param kubeconfig: how to reach the real cluster.
    :param folder: folder for the kubeconfig that leads here.
    :param specs: fields of the spec of each target that is installed.
    """

    daemon_threads = True

    def __init__(self, kubeconfig: str, folder: Path, specs: Mapping[str, Mapping[str, Any]] = SPECS) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.specs = specs
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        """Objects by plural, namespace and name."""
        self.lock = threading.Lock()
        given = yaml.safe_load(Path(kubeconfig).read_text())
        # The default configuration of the library is that of the last connection, which may lead here.
        self.real = config.new_client_from_config(kubeconfig)
        given["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.server_port}"}
        self.kubeconfig = folder / "front-kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(given))

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, name="front", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def of(self, target: str) -> list[dict[str, Any]]:
        """Return copies of the objects of a target."""
        with self.lock:
            kept = [item for key, item in self.objects.items() if key[0] == TARGETS[target].plural]
            return copy.deepcopy(kept)

    def set_status(self, found: Mapping[str, Any], target: str, status: Mapping[str, Any]) -> None:
        """Set fields of an object's status, if it still exists."""
        metadata = found["metadata"]
        with self.lock:
            kept = self.objects.get((TARGETS[target].plural, metadata["namespace"], metadata["name"]))
            if kept is not None:
                kept["status"] = {**kept.get("status", {}), **status}


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  (the base class's names)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        for target, kind in TARGETS.items():
            root = f"/apis/{kind.api_version}"
            if target != "job" and (url.path == root or url.path.startswith(f"{root}/")):
                place = re.fullmatch(rf"/namespaces/([^/]+)/{kind.plural}(?:/([^/]+))?", url.path.removeprefix(root))
                self._of_kind(target, place, parse_qs(url.query))
                return
        self._pass_on()

    def _of_kind(self, target: str, place: re.Match[str] | None, query: dict[str, list[str]]) -> None:
        kind = TARGETS[target]
        if target not in self.server.specs:
            self._refuse(404, "the server could not find the requested resource")
        elif place is None:
            resource = {
                "name": kind.plural,
                "singularName": "",
                "namespaced": True,
                "kind": kind.kind,
                "verbs": ["get"],
            }
            self._send(200, {"groupVersion": kind.api_version, "resources": [resource]})
        elif self.command == "POST":
            self._create(target, place[1], is_kept="dryRun" not in query)
        elif place[2] is None:
            wanted = dict(part.split("=") for part in query["labelSelector"][0].split(","))
            every = [item for item in self.server.of(target) if item["metadata"]["namespace"] == place[1]]
            items = [item for item in every if wanted.items() <= item["metadata"]["labels"].items()]
            self._send(200, {"items": items})
        else:
            key = (kind.plural, place[1], place[2])
            with self.server.lock:
                found = self.server.objects.get(key)
                if self.command == "DELETE":
                    self.server.objects.pop(key, None)
            self._send(200, found) if found else self._refuse(404, f"{kind.plural} {place[2]} not found")

    def _create(self, target: str, namespace: str, *, is_kept: bool) -> None:
        given, schema = json.loads(self.body), self.server.specs[target]
        given["spec"] = pruned(given["spec"], schema)
        problems = [error.message for error in Draft202012Validator(schema).iter_errors(given["spec"])]
        if problems:
            self._refuse(422, "; ".join(problems))
            return
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": moment}
        key = (TARGETS[target].plural, namespace, given["metadata"]["name"])
        with self.server.lock:
            is_double = key in self.server.objects
            if is_kept and not is_double:
                self.server.objects[key] = given
        self._refuse(409, "already exists") if is_double else self._send(201, given)

    def _pass_on(self) -> None:
        """Pass a request on to the real API server, and its answer back."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        body = self.body if self.command in _CHANGES else None
        real = self.server.real.rest_client.pool_manager
        answer = real.request(self.command, self.server.real.configuration.host + self.path, body=body, headers=headers)
        self._write(answer.status, answer.headers.get("Content-Type", "application/json"), answer.data)

    def _refuse(self, code: int, message: str) -> None:
        self._send(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})

    def _send(self, code: int, value: Any) -> None:
        self._write(code, "application/json", json.dumps(value).encode())

    def _write(self, code: int, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Controller:
    """Plays the controller of one kind in one namespace, in a thread.

    :param cluster: the namespace.
    :param front: where the objects are.
    :param target: ``train_job`` or ``ray_job``.
    """

    def __init__(self, cluster: Cluster, front: Front, target: str) -> None:
        self.cluster, self.front, self.kind, self.target = cluster, front, TARGETS[target], target
        self.is_admitting = True
        """Whether objects with a queue are admitted; Kueue suspends them until there is room."""
        self._core = client.CoreV1Api(front.real)
        self._owned: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{target} controller", daemon=True)
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def objects(self) -> list[dict[str, Any]]:
        """Return the objects that exist."""
        return self.front.of(self.target)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            present = self.objects()
            self._collect(present)
            for found in present:
                try:
                    self._reconcile(found)
                except ApiException as error:
                    if error.status not in (404, 409):  # deleted or changed below us: look again
                        self.errors.append(error)

    def _reconcile(self, found: dict[str, Any]) -> None:
        if _has_ended(found):
            return
        queue = found["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
        if queue and not self.is_admitting:
            self._say_suspended(found, "True", f"no quota in {queue}")
            return
        if (found.get("status") or {}).get("conditions") or (found.get("status") or {}).get("jobDeploymentStatus"):
            self._say_suspended(found, "False", "")
        if self.target == "train_job":
            self._train(found)
        else:
            self._ray(found)

    def _collect(self, present: list[dict[str, Any]]) -> None:
        """Delete what belongs to objects that are gone, as the garbage collector does for real kinds."""
        self._owned |= {item["metadata"]["uid"]: item["metadata"]["name"] for item in present}
        for uid in self._owned.keys() - {item["metadata"]["uid"] for item in present}:
            name, namespace = self._owned.pop(uid), self.cluster.namespace
            for pod in self._pods(name):
                self._core.delete_namespaced_pod(pod.metadata.name, namespace)
            for kind in ("service", "config_map", "secret"):
                for item in getattr(self._core, f"list_namespaced_{kind}")(namespace).items:
                    if uid in [owner.uid for owner in item.metadata.owner_references or []]:
                        getattr(self._core, f"delete_namespaced_{kind}")(item.metadata.name, namespace)

    def _train(self, found: dict[str, Any]) -> None:
        """Create the Service and the pods of a TrainJob, as JobSet would; conclude when they have ended."""
        name, spec = found["metadata"]["name"], found["spec"]
        trainer, node = spec["trainer"], self.kind.container
        patch = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
        assert patch["name"] == node
        template = patch["template"]["spec"]["template"]
        pods = self._pods(name)
        if not pods:
            self._service(found)
            for index in range(trainer["numNodes"]):
                pod = copy.deepcopy(template)
                (container,) = pod["spec"]["containers"]
                container |= {"image": trainer["image"], "command": trainer["command"], "imagePullPolicy": "Never"}
                container["env"] = [*trainer["env"], {"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
                container["resources"] = trainer["resourcesPerNode"]
                pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = str(index)
                pod["spec"] |= {"hostname": f"{name}-{node}-0-{index}", "subdomain": name, "restartPolicy": "Never"}
                self._create(found, pod, f"{name}-{node}-0-{index}-x1y2z")
            return
        phases = [pod.status.phase for pod in pods]
        if "Failed" in phases:
            self._stop_running(pods)
            message = "jobset failed due to one or more job failures"
            self._conclude(found, "Failed", "JobSetFailed", message)
        elif phases == ["Succeeded"] * trainer["numNodes"]:
            self._conclude(found, "Complete", "AllJobsCompleted", "jobset completed successfully")

    def _ray(self, found: dict[str, Any]) -> None:
        """Create the cluster of a RayJob; its head runs the entrypoint, as Ray's driver does, and is asked to end.

        The submitter then prints what the driver printed, and ends with its exit code.
        """
        name, spec = found["metadata"]["name"], found["spec"]
        pods = {pod.metadata.name: pod for pod in self._pods(name)}
        head, submitter = f"{name}-head", f"{name}-submit"
        if head not in pods:
            cluster = spec["rayClusterSpec"]
            self._ray_pod(found, cluster["headGroupSpec"]["template"], head, ["sh", "-c", spec["entrypoint"]])
            for group in cluster.get("workerGroupSpecs", ()):
                for index in range(group["replicas"]):
                    self._ray_pod(found, group["template"], f"{name}-worker-{index}", ["sleep", "600"])
            self._patch_status(found, {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
        elif pods[head].status.phase in ("Succeeded", "Failed") and submitter not in pods:
            ended = pods[head].status.container_statuses[0].state.terminated.exit_code
            said = self._core.read_namespaced_pod_log(head, self.cluster.namespace)
            command = ["sh", "-c", f'printf "%s\\n" "$0"; exit {min(ended, 1)}', said]
            self._ray_pod(found, spec["submitterPodTemplate"], submitter, command)
        elif submitter in pods and pods[submitter].status.phase in ("Succeeded", "Failed"):
            self._stop_running(list(pods.values()))
            well = pods[submitter].status.phase == "Succeeded"
            status = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            if not well:
                told = {"reason": "AppFailed", "message": "Job entrypoint command failed with exit code 7"}
                status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", **told}
            self._patch_status(found, status)

    def _ray_pod(self, found: dict[str, Any], template: dict[str, Any], name: str, command: list[str]) -> None:
        pod = copy.deepcopy(template)
        pod["spec"]["containers"][0] |= {"command": command, "imagePullPolicy": "Never"}
        pod["spec"]["restartPolicy"] = "Never"
        self._create(found, pod, name)

    def _create(self, found: dict[str, Any], pod: dict[str, Any], name: str) -> None:
        pod["metadata"] |= {"name": name, "ownerReferences": [self._owner(found)]}
        self._core.create_namespaced_pod(self.cluster.namespace, pod)

    def _service(self, found: dict[str, Any]) -> None:
        name = found["metadata"]["name"]
        selector = {"airflow-mcp.io/group": name}
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
        metadata = {"name": name, "ownerReferences": [self._owner(found)]}
        self._core.create_namespaced_service(self.cluster.namespace, {"metadata": metadata, "spec": spec})

    def _owner(self, found: dict[str, Any]) -> dict[str, Any]:
        metadata = found["metadata"]
        named = {"kind": self.kind.kind, "name": metadata["name"], "uid": metadata["uid"]}
        return {"apiVersion": self.kind.api_version, **named}

    def _pods(self, name: str) -> list[Any]:
        selector = f"airflow-mcp.io/group={name}"
        return list(self._core.list_namespaced_pod(self.cluster.namespace, label_selector=selector).items)

    def _stop_running(self, pods: list[Any]) -> None:
        for pod in pods:
            if pod.status.phase in ("Pending", "Running"):
                self._core.delete_namespaced_pod(pod.metadata.name, self.cluster.namespace)

    def _say_suspended(self, found: dict[str, Any], status: str, message: str) -> None:
        if self.target == "ray_job":
            if status == "True":
                self._patch_status(found, {"jobDeploymentStatus": "Suspended", "message": message})
            return
        reason = "Suspended" if status == "True" else "Resumed"
        self._patch_status(found, {"conditions": [self._condition("Suspended", status, reason, message)]})

    def _conclude(self, found: dict[str, Any], kind: str, reason: str, message: str) -> None:
        self._patch_status(found, {"conditions": [self._condition(kind, "True", reason, message)]})

    @staticmethod
    def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}

    def _patch_status(self, found: dict[str, Any], status: dict[str, Any]) -> None:
        self.front.set_status(found, self.target, status)


def _has_ended(found: dict[str, Any]) -> bool:
    status = found.get("status") or {}
    held = {item["type"] for item in status.get("conditions") or [] if item["status"] == "True"}
    return bool(held & {"Complete", "Failed"}) or status.get("jobDeploymentStatus") in ("Complete", "Failed")
