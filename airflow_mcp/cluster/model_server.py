"""Changes the Deployment of a model server, follows its pods, and takes the change back; without Airflow.

The state is in the cluster: annotations of the Deployment name the task that changed it last, and the ReplicaSet before
that. So a retry after a kill goes on where the task was, and never takes back what somebody else has done since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.manifests.diff import identity_of, manifest_diff
from airflow_mcp.core.manifests.parts import CONTAINER, Manifest
from airflow_mcp.core.manifests.progress import LABEL_HASH, Progress, describe_pods, progress_of
from airflow_mcp.core.manifests.revisions import (
    ANNOTATION_IDENTITY,
    ANNOTATION_PREVIOUS,
    FIELD_MANAGER,
    annotations_of,
    back_to,
    current,
    owned_by,
    owns_replicas,
    revision_of,
    to_revision,
    way_back,
)
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.workload.pod_ending import image_digest
from airflow_mcp.exceptions import InvalidArgumentError, ManifestRefusedError, ModelServerFailedError

_APPS = ("apps/v1", "Deployment")
_SCALE_MANAGER = f"{FIELD_MANAGER}-replicas"
"""Owns the number of replicas from when it is no longer applied until the autoscaler changes it."""
_ATTEMPTS = 5
"""How often a change is tried again that came between reading a Deployment and writing it."""
_UNDONE = "undone-"


class Deployed(NamedTuple):
    """What runs after a change."""

    revision: int
    replica_set: str
    replicas: int
    image: str
    image_digest: str


class ServerDeployment:
    """One Deployment of a model server.

    :param cluster: its namespace.
    :param name: its name.
    :param identity: identity of the task that changes it.
    :param log: where to write what happens.
    """

    def __init__(self, cluster: ClusterObjects, name: str, identity: str, *, log: TaskLog) -> None:
        self.cluster, self.name, self.identity = cluster, name, identity
        self._log = log

    # --- changes --------------------------------------------------------------------------------------------------

    def check(self, manifests: Sequence[Manifest], *, force: bool) -> None:
        """Let Kubernetes check every object, and log what would change. Nothing is changed.

        :raises ManifestRefusedError: when one is refused.
        """
        live = [self.cluster.find(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in manifests]
        for manifest in manifests:
            self.cluster.apply(manifest, force=force, dry_run=True)
        for line in manifest_diff([each for each in live if each], manifests, is_live=True) or ("no difference",):
            self._log.info("%s", line)

    def change(self, manifests: Sequence[Manifest], *, force: bool) -> None:
        """Apply the objects, the Deployment last. Applying them again, after a kill, changes nothing.

        :param manifests: the Deployment, and what must be there before its pods.
        :param force: take fields over that somebody else has set.
        :raises ManifestRefusedError: when one is refused; then none was applied.
        """
        live = self._read()
        self.check(manifests, force=force)
        ordered = sorted(manifests, key=lambda each: each["kind"] == "Deployment")
        for manifest in ordered:
            applied = self._with_record(manifest, live) if manifest["kind"] == "Deployment" else manifest
            self.cluster.apply(applied, force=force)
            self._log.info("Applied %s", identity_of(manifest))

    def go_back(self, revision: int, *, dry_run: bool = False) -> int:
        """Change the Deployment back to an earlier revision, unless this task has done so.

        :param revision: the revision; 0 takes the one before the present one.
        :param dry_run: only let Kubernetes check it.
        :return: the present revision, before the change; 0 when an earlier try has made it.
        :raises InvalidArgumentError: when there is no such Deployment or revision.
        """
        self._require()

        def choose(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
            if self._is_ours(live):
                return None
            return to_revision(live, self._replica_sets(live), revision)

        before = self._move(choose, self.identity, dry_run=dry_run)
        return revision_of(before) if before is not None else 0

    def undo(self) -> bool:
        """Take back this task's change, unless somebody else has changed the Deployment since.

        :return: whether it was taken back; not when there was nothing before it.
        """

        def choose(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
            wanted = annotations_of(live).get(ANNOTATION_PREVIOUS) if self._is_ours(live) else None
            return next((each for each in self._replica_sets(live) if each["metadata"]["name"] == wanted), None)

        return self._move(choose, f"{_UNDONE}{self.identity}") is not None

    def send_requests(self, service: Manifest, *, force: bool) -> None:
        """Apply the Service for requests, which may move them to this Deployment."""
        self.cluster.apply(service, force=force)
        self._log.info("Applied %s", identity_of(service))

    # --- reads ----------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Return how the change stands.

        :raises ModelServerFailedError: when the Deployment is gone, or somebody else has changed it since.
        """
        live = self._read()
        if live is None:
            raise ModelServerFailedError(f"the Deployment {self.name} is gone: somebody has deleted it")
        by = annotations_of(live).get(ANNOTATION_IDENTITY, "")
        if by != self.identity:
            raise ModelServerFailedError(
                f"the Deployment {self.name} was changed meanwhile by somebody else ({by or 'not recorded'}). "
                "Nothing was undone"
            )
        return progress_of(live)

    def evidence(self) -> list[str]:
        """Return what the pods of the present revision that are not ready say, with the end of one's log."""
        live = self._require()
        pods = self._pods(live)
        lines = describe_pods(pods)
        if lines:
            name = lines[0].removeprefix("pod ").partition(":")[0]
            lines += [f"  {line}" for line in self.cluster.last_lines(name)]
        return lines

    def deployed(self) -> Deployed:
        """Return what runs."""
        live = self._require()
        found = current(live, self._replica_sets(live))
        containers = live["spec"]["template"]["spec"]["containers"]
        served = next((each for each in containers if each["name"] == CONTAINER), containers[0])
        digests = [image_digest(pod.get("status") or {}, served["name"]) for pod in self._pods(live)]
        return Deployed(
            revision_of(live),
            found["metadata"]["name"] if found else "",
            (live.get("status") or {}).get("availableReplicas", 0),
            served["image"],
            next(filter(None, digests), ""),
        )

    def _read(self) -> dict[str, Any] | None:
        return self.cluster.find(*_APPS, self.name)

    def _require(self) -> dict[str, Any]:
        live = self._read()
        if live is None:
            raise InvalidArgumentError(
                f"there is no Deployment {self.name!r} in namespace {self.cluster.namespace!r}. Nothing was changed"
            )
        return live

    def _replica_sets(self, live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        labels = live["spec"]["selector"]["matchLabels"]
        return owned_by(live, self.cluster.listed("apps/v1", "ReplicaSet", labels))

    def _pods(self, live: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the pods of the present revision."""
        found = current(live, self._replica_sets(live))
        if found is None:
            return []
        labels = live["spec"]["selector"]["matchLabels"]
        return self.cluster.listed("v1", "Pod", {**labels, LABEL_HASH: found["metadata"]["labels"][LABEL_HASH]})

    def _is_ours(self, live: Mapping[str, Any]) -> bool:
        return annotations_of(live).get(ANNOTATION_IDENTITY) == self.identity

    def _with_record(self, manifest: Manifest, live: Mapping[str, Any] | None) -> Manifest:
        """Return the Deployment with the annotations that a retry and an undo go by."""
        record = {ANNOTATION_IDENTITY: self.identity}
        if live is not None and self._is_ours(live):
            record[ANNOTATION_PREVIOUS] = annotations_of(live).get(ANNOTATION_PREVIOUS, "")
        elif live is not None:
            record[ANNOTATION_PREVIOUS] = way_back(live, self._replica_sets(live))
        if live is not None and "replicas" not in manifest["spec"] and owns_replicas(live):
            self._hand_over_replicas(live)
        about = manifest["metadata"]
        return {**manifest, "metadata": {**about, "annotations": {**about.get("annotations", {}), **record}}}

    def _hand_over_replicas(self, live: Mapping[str, Any]) -> None:
        """Keep the number of replicas when it is no longer applied; otherwise Kubernetes would make it 1."""
        kept = {"replicas": live["spec"]["replicas"]}
        manifest = {"apiVersion": _APPS[0], "kind": _APPS[1], "metadata": {"name": self.name}, "spec": kept}
        self.cluster.apply(manifest, force=True, manager=_SCALE_MANAGER)

    def _move(
        self,
        choose: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
        identity: str,
        *,
        dry_run: bool = False,
    ) -> Mapping[str, Any] | None:
        """Change the Deployment to the template of a ReplicaSet.

        Kubernetes refuses the change when the Deployment was written since it was read, be it only its status; then
        everything is read and decided anew.

        :param choose: returns the ReplicaSet for the Deployment as it is; None leaves it as it is.
        :param identity: written to the Deployment as the author of the change.
        :return: the Deployment as it was before; None when it was left as it is.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            live = self._read()
            chosen = choose(live) if live is not None else None
            if live is None or chosen is None:
                return None
            now = current(live, self._replica_sets(live))
            record = {ANNOTATION_IDENTITY: identity, ANNOTATION_PREVIOUS: now["metadata"]["name"] if now else ""}
            try:
                self.cluster.apply(back_to(live, chosen, record), force=True, dry_run=dry_run)
            except ManifestRefusedError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                self._log.info("Deployment %s goes back to ReplicaSet %s", self.name, chosen["metadata"]["name"])
                return live
        return None
