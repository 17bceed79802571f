"""A Kubernetes API server that keeps objects of any kind, with resource versions, and runs no controller.

For the routers whose controllers cannot be had in tests: Gateway API, Argo Rollouts, KServe. It is a real HTTP server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.support.fakes.faulty_server import FaultyServer, Seen

Answer = tuple[int, Mapping[str, str], bytes]


class KubeObjects(FaultyServer):
    """The server; use it as a context manager.

    Paths are those of namespaced objects: ``/apis/GROUP/VERSION/namespaces/NS/PLURAL/NAME``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, dict[str, Any]] = {}
        self.patches: list[tuple[str, dict[str, Any]]] = []
        """Path and body of every change that was accepted."""

    def put(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Put an object there, as a user or a controller does; its resource version grows."""
        before = self.objects.get(path, {"metadata": {"resourceVersion": "0"}})
        version = str(int(before["metadata"]["resourceVersion"]) + 1)
        metadata = {**manifest.get("metadata", {}), "resourceVersion": version}
        self.objects[path] = {**manifest, "metadata": metadata}

    def _pass_on(self, request: Seen) -> Answer:
        path, is_status = urlsplit(request.path).path, False
        if path.endswith("/status"):
            path, is_status = path.removesuffix("/status"), True
        found = self.objects.get(path)
        if found is None:
            return _status(404, "NotFound")
        if request.method != "PATCH":
            return _json(200, found)
        if request.headers.get("content-type") != "application/merge-patch+json":
            return _status(415, "UnsupportedMediaType")
        patch = json.loads(request.body)
        if patch["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return _status(409, "Conflict")
        self.patches.append((urlsplit(request.path).path, patch))
        fields = {"status"} if is_status else patch.keys() - {"status", "metadata"}
        self.put(path, {**found, **{name: _merged(found.get(name), patch[name]) for name in fields if name in patch}})
        return _json(200, self.objects[path])


def _merged(value: Any, patch: Any) -> Any:
    """Merge as RFC 7396 says: null removes a field, lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), change)
    return merged


def _json(status: int, body: Mapping[str, Any]) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(body).encode()


def _status(code: int, reason: str) -> Answer:
    return _json(code, {"kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code})
