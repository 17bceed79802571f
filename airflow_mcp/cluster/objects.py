"""Objects of any kind in one namespace, as JSON: server-side apply, and reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.cluster.client import Cluster
from airflow_mcp.core.manifests.diff import identity_of
from airflow_mcp.core.manifests.revisions import FIELD_MANAGER
from airflow_mcp.exceptions import ClusterUnreachableError, ManifestRefusedError

_TIMEOUT_SECONDS = 30
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_GONE, _CONFLICT = 404, 409
_REFUSED = (400, 422)
_LOG_LINES = 20


class ClusterObjects(Cluster):
    """The objects of one namespace."""

    def apply(
        self, manifest: Mapping[str, Any], *, force: bool, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        """Create an object, or change it to what its manifest says; a second time changes nothing.

        :param manifest: the object.
        :param force: take fields over that somebody else has set to something else.
        :param dry_run: only let Kubernetes check it.
        :param manager: owner of the fields.
        :raises ManifestRefusedError: when it is not valid, or has fields that belong to somebody else.
        :raises ClusterUnreachableError: when Kubernetes does not answer, or refuses the right to.
        """
        query = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        what = identity_of(manifest)
        try:
            return self._call("PATCH", self._path_of(manifest), f"apply {what}", query, manifest)
        except ClusterUnreachableError as error:
            status = getattr(error.__cause__, "status", None)
            if status == _CONFLICT:
                raise ManifestRefusedError(
                    f"{what} in namespace {self.namespace!r} was changed by somebody else: {_message(error)}. "
                    "It was not changed. Settle who owns these fields, or take them over with force"
                ) from error
            if status in _REFUSED:
                raise ManifestRefusedError(
                    f"Kubernetes refuses {what}: {_message(error)}. It was not changed"
                ) from error
            raise

    def merge(
        self, api_version: str, kind: str, name: str, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> dict[str, Any]:
        """Change fields of an object by a JSON merge patch.

        :param api_version: its API, such as ``apps/v1``.
        :param kind: its kind.
        :param name: its name.
        :param patch: the fields; with ``metadata.resourceVersion``, only if nobody has changed the object since.
        :param subresource: ``status``, or empty.
        :raises ManifestRefusedError: when somebody has changed it, or the change is not valid.
        :raises ClusterUnreachableError: when Kubernetes does not answer, or refuses the right to.
        """
        manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
        path = f"{self._path_of(manifest)}{f'/{subresource}' if subresource else ''}"
        try:
            return self._call("PATCH", path, f"change {identity_of(manifest)}", None, patch, content_type=_MERGE)
        except ClusterUnreachableError as error:
            if getattr(error.__cause__, "status", None) not in (_CONFLICT, *_REFUSED):
                raise
            raise ManifestRefusedError(
                f"{identity_of(manifest)} in namespace {self.namespace!r} was not changed: {_message(error)}"
            ) from error

    def find(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object; None when there is none.

        :param api_version: its API, such as ``apps/v1``.
        :param kind: its kind.
        :param name: its name.
        """
        path = self._path_of({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
        try:
            return self._call("GET", path, f"read {kind} {name}")
        except ClusterUnreachableError as error:
            if getattr(error.__cause__, "status", None) == _GONE:
                return None
            raise

    def listed(self, api_version: str, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the objects of a kind that have all of some labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        path = _collection(api_version, kind, self.namespace)
        return list(self._call("GET", path, f"list {kind}", {"labelSelector": selector})["items"])

    def missing_apis(self, manifests: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return what of some objects the cluster does not know: ``HorizontalPodAutoscaler (autoscaling/v2)``."""
        known = {api: self._kinds_of(api) for api in {each["apiVersion"] for each in manifests}}
        missing = [api_of(each) for each in manifests if each["kind"] not in known[each["apiVersion"]]]
        return list(dict.fromkeys(missing))

    def last_lines(self, pod: str) -> list[str]:
        """Return the last lines of a pod's log; none when these credentials may not read it, or there is no log."""
        try:
            with self._translated(f"read the log of pod {pod}"):
                answer = self._core.read_namespaced_pod_log(
                    *(pod, self.namespace),
                    tail_lines=_LOG_LINES,
                    _preload_content=False,
                    _request_timeout=_TIMEOUT_SECONDS,
                )
                return str(answer.data.decode(errors="replace")).splitlines()
        except ClusterUnreachableError:
            return []

    def _kinds_of(self, api_version: str) -> set[str]:
        prefix = "/api" if "/" not in api_version else "/apis"
        try:
            found = self._call("GET", f"{prefix}/{api_version}", f"read what {api_version} has")
        except ClusterUnreachableError as error:
            if getattr(error.__cause__, "status", None) == _GONE:
                return set()
            raise
        return {item["kind"] for item in found["resources"]}

    def _path_of(self, manifest: Mapping[str, Any]) -> str:
        collection = _collection(manifest["apiVersion"], manifest["kind"], self.namespace)
        return f"{collection}/{manifest['metadata']['name']}"

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _APPLY,
    ) -> dict[str, Any]:
        with self._translated(what):
            answer = self._api_client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", **({"Content-Type": content_type} if body else {})},
                body=dict(body) if body else None,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=_TIMEOUT_SECONDS,
            )
            return dict(json.loads(answer.data))


def api_of(manifest: Mapping[str, Any]) -> str:
    """Return kind and API of an object: ``HorizontalPodAutoscaler (autoscaling/v2)``."""
    return f"{manifest['kind']} ({manifest['apiVersion']})"


def _collection(api_version: str, kind: str, namespace: str) -> str:
    """Return the path of the objects of a kind: Kubernetes names it by the kind's plural."""
    name = kind.lower()
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    prefix = "/api" if "/" not in api_version else "/apis"
    return f"{prefix}/{api_version}/namespaces/{namespace}/{plural}"


def _message(error: ClusterUnreachableError) -> str:
    """Return what Kubernetes says about a request that it refuses, without the values of fields that it repeats."""
    try:
        return str(json.loads(getattr(error.__cause__, "body", "") or "{}").get("message") or error)
    except ValueError:
        return str(error)
