"""The calls to a Kubernetes cluster that the doctor and the sweeper need, with JSON as values."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_mcp.core.workload.pod import LABEL_MANAGED_BY, MANAGED_BY
from airflow_mcp.core.workload.pod_ending import has_ended
from airflow_mcp.core.workload.targets import TARGETS
from airflow_mcp.exceptions import ClusterUnreachableError, InvalidArgumentError

_TIMEOUT_SECONDS = 20
_GONE = 404
_DENIED = (401, 403)
_HOME_FILE = Path("~/.kube/config").expanduser()
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """One namespace of a cluster; creating an object imports the Kubernetes client.

    :param api_client: a client of the library ``kubernetes``.
    :param namespace: namespace of all calls.
    """

    def __init__(self, api_client: Any, namespace: str) -> None:
        from kubernetes import client

        self.namespace = namespace
        self._api_client = api_client
        self._core = client.CoreV1Api(api_client)

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._api_client.configuration.host)

    def version(self) -> str:
        """Return the server's version, for example ``v1.33.1``.

        :raises ClusterUnreachableError: when it does not answer.
        """
        from kubernetes import client

        with self._translated("ask for the version"):
            answer = client.VersionApi(self._api_client).get_code(_request_timeout=_TIMEOUT_SECONDS)
            return str(answer.git_version)

    def namespace_exists(self) -> bool | None:
        """Return whether the namespace exists; None when these credentials may not read it."""
        try:
            with self._translated("read the namespace"):
                self._core.read_namespace(self.namespace, _request_timeout=_TIMEOUT_SECONDS)
        except ClusterUnreachableError as error:
            status = getattr(error.__cause__, "status", None)
            if status == _GONE:
                return False
            if status in _DENIED:
                return None
            raise
        return True

    def may(self, verb: str, resource: str) -> bool:
        """Return whether these credentials have a right in the namespace.

        :param verb: for example ``create``.
        :param resource: for example ``pods`` or ``pods/log``.
        """
        from kubernetes import client

        kind, _, subresource = resource.partition("/")
        wanted = {"namespace": self.namespace, "verb": verb, "resource": kind, "subresource": subresource}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        with self._translated(f"ask for the right to {verb} {resource}"):
            api = client.AuthorizationV1Api(self._api_client)
            answer = api.create_self_subject_access_review(body, _request_timeout=_TIMEOUT_SECONDS)
            return bool(answer.status.allowed)

    def workload_pods(self) -> list[dict[str, Any]]:
        """Return all pods of the namespace that this package created, as JSON."""
        with self._translated("list pods"):
            answer = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}", _request_timeout=_TIMEOUT_SECONDS
            )
        return [self._plain(pod) for pod in answer.items]

    def create_pod(self, manifest: Mapping[str, Any]) -> None:
        """Create a pod."""
        with self._translated(f"create pod {manifest['metadata']['name']}"):
            self._core.create_namespaced_pod(self.namespace, manifest, _request_timeout=_TIMEOUT_SECONDS)

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod as JSON."""
        with self._translated(f"read pod {name}"):
            return self._plain(self._core.read_namespaced_pod(name, self.namespace, _request_timeout=_TIMEOUT_SECONDS))

    def log(self, name: str) -> str:
        """Return the log of a pod."""
        with self._translated(f"read the log of pod {name}"):
            answer = self._core.read_namespaced_pod_log(
                name,
                self.namespace,
                _preload_content=False,  # the client would return the repr of the bytes
                _request_timeout=_TIMEOUT_SECONDS,
            )
            return str(answer.data.decode(errors="replace"))

    def delete_pod(self, name: str, uid: str | None = None) -> bool:
        """Delete a pod.

        :param name: its name.
        :param uid: delete it only if it has this UID.
        :return: whether it existed.
        """
        body = {"preconditions": {"uid": uid}} if uid else {}
        try:
            with self._translated(f"delete pod {name}"):
                self._core.delete_namespaced_pod(name, self.namespace, body=body, _request_timeout=_TIMEOUT_SECONDS)
        except ClusterUnreachableError as error:
            if getattr(error.__cause__, "status", None) in (_GONE, 409):
                return False
            raise
        return True

    def delete_object(self, target: str, name: str) -> None:
        """Delete the object that a training runs as; Kubernetes deletes its pods.

        :param target: its ``kubernetes.target``; an unknown one deletes nothing.
        :param name: its name.
        """
        from kubernetes import client

        if (kind := TARGETS.get(target)) is None:
            return
        place = (kind.group, kind.version, self.namespace, kind.plural, name)
        try:
            with self._translated(f"delete {kind.kind} {name}"):
                client.CustomObjectsApi(self._api_client).delete_namespaced_custom_object(
                    *place, propagation_policy="Background", _request_timeout=_TIMEOUT_SECONDS
                )
        except ClusterUnreachableError as error:
            if getattr(error.__cause__, "status", None) != _GONE:
                raise

    def wait_for_end(self, name: str, timeout: float, settled: frozenset[str]) -> dict[str, Any]:
        """Wait until a pod has ended, or its container waits for a reason that does not pass.

        :param name: its name.
        :param timeout: seconds to wait at most.
        :param settled: such reasons, for example ``ErrImageNeverPull``.
        :return: the pod as it was last seen.
        """
        deadline = time.monotonic() + timeout
        while True:
            pod = self.pod(name)
            status = pod.get("status") or {}
            states = [item.get("state") or {} for item in status.get("containerStatuses") or []]
            reasons = {(state.get("waiting") or {}).get("reason") for state in states}
            if has_ended(pod) or reasons & settled or time.monotonic() > deadline:
                return pod
            time.sleep(0.5)

    def _plain(self, value: Any) -> dict[str, Any]:
        return dict(self._api_client.sanitize_for_serialization(value))

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            yield
        except ApiException as error:
            raise ClusterUnreachableError(
                f"{self.server} refuses to {what} in namespace {self.namespace!r}: {error.status} {error.reason}"
            ) from error
        except (HTTPError, OSError) as error:
            raise ClusterUnreachableError(
                f"{self.server} does not answer ({type(error).__name__}): cannot {what}"
            ) from error


def connect(namespace: str = "", context: str = "") -> Cluster:
    """Connect as ``kubectl`` would: by ``KUBECONFIG``, ``~/.kube/config``, or the service account of this pod.

    :param namespace: empty takes that of the context or of this pod, or ``default``.
    :param context: context of the kubeconfig; empty takes the current one.
    :raises InvalidArgumentError: when the client is not installed, or no configuration is found.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise InvalidArgumentError(
            "the Kubernetes client is not installed here: pip install 'airflow-mcp[airflow]' or 'kubernetes'"
        ) from None
    settings = client.Configuration()
    file = os.environ.get("KUBECONFIG") or None  # the library reads it only once, when it is imported
    try:
        if file is None and not context and not _HOME_FILE.exists() and _POD_NAMESPACE.exists():
            config.load_incluster_config(client_configuration=settings)
            found = _POD_NAMESPACE.read_text(encoding="utf-8").strip()
        else:
            config.load_kube_config(config_file=file, context=context or None, client_configuration=settings)
            contexts, current = config.list_kube_config_contexts(config_file=file)
            chosen = next((item for item in contexts if item["name"] == context), current)
            found = chosen["context"].get("namespace") or "default"
    except (config.ConfigException, OSError) as error:
        raise InvalidArgumentError(
            f"no usable Kubernetes configuration: {error}; set KUBECONFIG, or run inside the cluster"
        ) from None
    settings.retries = 1
    return Cluster(client.ApiClient(settings), namespace or found)
