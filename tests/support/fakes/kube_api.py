"""A Kubernetes API server of our own: a real HTTP server that keeps pods in a dictionary and runs none of them.

::

    with KubeApi() as kube:
        kube.add_pod("train-1", phase="Failed", annotations={...})
        monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig(tmp_path)))
        ...
        assert kube.deleted == ["train-1"]

It is a :class:`FaultyServer`, so every request can be made to go wrong.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.fakes.faulty_server import FaultyServer, Seen

Answer = tuple[int, Mapping[str, str], bytes]
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubeApi(FaultyServer):
    """The server; use it as a context manager.

    :param namespace: the only namespace that exists.
    :param tls: server-side TLS context, to serve HTTPS.
    """

    def __init__(self, namespace: str = "default", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.namespace = namespace
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.denied: set[tuple[str, str]] = set()
        """Rights that nobody has: verb and resource."""
        self.fate: dict[str, Any] = {"phase": "Succeeded"}
        """Status of pods that are created."""
        self.fate_log = ""
        """Log of pods that are created."""

    def add_pod(
        self, name: str, *, phase: str = "Running", age: timedelta = timedelta(hours=3), **metadata: Any
    ) -> None:
        """Add a pod as if somebody had created it.

        :param age: time since its creation.
        :param metadata: further metadata, for example ``labels``.
        """
        created = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
        fixed = {"name": name, "namespace": self.namespace, "uid": f"uid-of-{name}", "creationTimestamp": created}
        state = {"running": {"startedAt": created}} if phase == "Running" else {}
        container = {"name": "base", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        self.pods[name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**fixed, **metadata},
            "spec": {"containers": [{"name": "base", "image": "i"}]},
            "status": {"phase": phase, "containerStatuses": [container]},
        }

    def write_kubeconfig(self, folder: Path, ca_file: Path | None = None) -> Path:
        """Write a kubeconfig that leads here, with two contexts: ``here``, the current one, and ``nowhere``."""
        cluster = {"server": self.url, **({"certificate-authority": str(ca_file)} if ca_file else {})}
        contexts = {"here": {"namespace": self.namespace}, "nowhere": {"namespace": "not-there"}}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "fake", "cluster": cluster}],
            "users": [{"name": "tester", "user": {"token": "none"}}],
            "contexts": [
                {"name": name, "context": {"cluster": "fake", "user": "tester", **where}}
                for name, where in contexts.items()
            ],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def _pass_on(self, request: Seen) -> Answer:
        path = urlsplit(request.path).path
        if path == "/version/":
            return _json(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.1", **_BUILD})
        if path == _REVIEWS:
            return _json(201, self._review(json.loads(request.body)))
        parts = path.removeprefix("/api/v1/namespaces/").split("/")
        if parts[0] != self.namespace:
            return _not_found(parts[0])
        if len(parts) == 1:
            return _json(200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": parts[0]}})
        return self._pods(request, *parts[1:])

    def _pods(self, request: Seen, kind: str, name: str = "", subresource: str = "") -> Answer:
        if kind != "pods":
            return _json(200, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []})
        if request.method == "POST":
            return self._create(json.loads(request.body))
        if not name:
            items = [pod for pod in self.pods.values() if self._is_selected(pod, request)]
            return _json(200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
        if name not in self.pods:
            return _not_found(name)
        if subresource == "log":
            return 200, {"content-type": "text/plain"}, self.logs.get(name, "").encode()
        if request.method == "DELETE":
            return self._delete(name, json.loads(request.body or b"{}"))
        if request.method == "PATCH":
            notes = self.pods[name]["metadata"].setdefault("annotations", {})
            notes.update(json.loads(request.body)["metadata"]["annotations"])
        return _json(200, self.pods[name])

    @staticmethod
    def _is_selected(pod: Mapping[str, Any], request: Seen) -> bool:
        selector = parse_qs(urlsplit(request.path).query).get("labelSelector", [""])[0]
        label, _, value = selector.partition("=")
        return not selector or (pod["metadata"].get("labels") or {}).get(label) == value

    def _create(self, pod: dict[str, Any]) -> Answer:
        self.created.append(pod)
        name = pod["metadata"]["name"]
        self.pods[name] = {**pod, "status": self.fate}
        self.logs[name] = self.fate_log
        return _json(201, self.pods[name])

    def _delete(self, name: str, options: Mapping[str, Any]) -> Answer:
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != self.pods[name]["metadata"].get("uid"):
            return _json(409, {"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409})
        self.deleted.append(name)
        return _json(200, self.pods.pop(name))

    def _review(self, review: dict[str, Any]) -> dict[str, Any]:
        wanted = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (wanted["resource"], wanted["subresource"]) if part)
        return {**review, "status": {"allowed": (wanted["verb"], resource) not in self.denied}}


_BUILD = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "")


def _json(status: int, body: Mapping[str, Any]) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(body).encode()


def _not_found(name: str) -> Answer:
    message = f"{name} not found"
    return _json(404, {"kind": "Status", "status": "Failure", "message": message, "reason": "NotFound", "code": 404})
