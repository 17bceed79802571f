"""What a user may say about the pod of a workload, and the manifest that follows: plain data, no Kubernetes client.

The defaults are safe: not root, no privilege escalation, read-only root file system with a writable scratch folder,
no service account token, requests and limits always set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_mcp.core.workload.definition import CHECKOUT_ARGUMENTS, Resources, Workload
from airflow_mcp.exceptions import InvalidArgumentError

CONTAINER = "base"
SCRATCH = "/scratch"
FILES = "/airflow-mcp/files"
SOURCE_CONTAINER = "checkout"
"""Init container that fetches code and data of a workload."""
SOURCE = "/airflow-mcp/source"
_SOURCE_VOLUME = "airflow-mcp-source"
USER_ID = 10001
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "airflow-mcp"
LABEL_IDENTITY = "airflow-mcp.io/identity"
LABEL_MODEL = "airflow-mcp.io/model"
ANNOTATION_PREFIX = "airflow-mcp.io/"
ANNOTATION_RUN = "airflow-mcp.io/mlflow-run-id"
ANNOTATION_OWNS_RUN = "airflow-mcp.io/owns-run"
"""Whether the MLflow run ends with the pod, ``true`` or ``false``: the sweeper must know."""
LABEL_GROUP = "airflow-mcp.io/group"
"""Name of rank 0's pod, on every pod of a training on several."""
LABEL_RANK = "airflow-mcp.io/rank"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"

OnFinish = Literal["delete", "keep_failed", "keep"]


class _Option(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretVariable(_Option):
    """An environment variable whose value is a key of a Kubernetes Secret."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    secret: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]


class VolumeOption(_Option):
    """A volume and where it is mounted; exactly one source."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    mount_path: Annotated[str, Field(pattern=r"^/.+")]
    read_only: bool = True
    sub_path: str | None = None
    claim: str | None = None
    """Name of a PersistentVolumeClaim."""
    host_path: str | None = None
    """Folder of the node; for one-node clusters and tests."""
    config_map: str | None = None
    secret: str | None = None
    empty_dir: bool = False

    def source(self) -> dict[str, Any]:
        """Give the volume's source as Kubernetes writes it."""
        sources: list[dict[str, Any]] = []
        if self.claim:
            sources.append({"persistentVolumeClaim": {"claimName": self.claim, "readOnly": self.read_only}})
        if self.host_path:
            sources.append({"hostPath": {"path": self.host_path, "type": "Directory"}})
        if self.config_map:
            sources.append({"configMap": {"name": self.config_map}})
        if self.secret:
            sources.append({"secret": {"secretName": self.secret}})
        if self.empty_dir:
            sources.append({"emptyDir": {}})
        if len(sources) != 1:
            raise InvalidArgumentError(
                f"kubernetes.volumes: {self.name!r} has {len(sources)} sources; allowed: exactly one of claim, "
                "host_path, config_map, secret and empty_dir"
            )
        return sources[0]


class PodOptions(_Option):
    """Options of one pod. Every field may be given by an operator, or as a default in a file."""

    image: str | None = None
    """Container image of built-in steps and scripts; an operator's ``image`` goes first."""
    source_image: str | None = None
    """Container image that fetches code and DVC data before the workload starts; None takes ``image`` above."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    namespace: str | None = None
    """None takes the connection's, then that of the Airflow pod, then ``default``."""
    kubernetes_conn_id: str | None = "kubernetes_default"
    in_cluster: bool | None = None
    config_file: str | None = None
    """Path of a kubeconfig on the Airflow side; None takes the connection's."""
    cluster_context: str | None = None
    deferrable: bool = True
    """Wait without a worker slot."""
    cpu: str = "1"
    memory: str = "2Gi"
    """Request and limit where the operator names none (Kubernetes quantities)."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Pods that train together; each gets its rank by environment."""
    rendezvous_port: Annotated[int, Field(ge=1024, le=65535)] = 29500
    """Port by which the other ranks find rank 0."""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_tolerations: tuple[dict[str, Any], ...] = (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    """Added when the workload asks for GPUs."""
    gpu_node_selector: dict[str, str] = {}
    """Added when the workload asks for GPUs."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    secrets: tuple[SecretVariable, ...] = ()
    env_from_config_maps: tuple[str, ...] = ()
    env_from_secrets: tuple[str, ...] = ()
    volumes: tuple[VolumeOption, ...] = ()
    service_account: str | None = None
    service_account_token: bool = False
    """Mount a token of the service account; off unless asked for."""
    queue: str | None = None
    """Kueue local queue; written as a label."""
    priority_class: str | None = None
    pod_template_file: str | None = None
    """Pod template on the Airflow side; what it adds stays, scalars are overridden."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    startup_timeout: Annotated[int, Field(ge=1)] = 300
    """Seconds until the container must have started after it was scheduled."""
    schedule_timeout: Annotated[int, Field(ge=1)] = 600
    """Seconds until the pod must have been scheduled."""
    poll_interval: Annotated[float, Field(gt=0)] = 5
    """Seconds between two looks at the pod."""
    log_interval: Annotated[int, Field(ge=1)] | None = 30
    """Seconds between two looks at the log of a deferred pod; None copies it when the pod has ended."""
    termination_grace_period: Annotated[int, Field(ge=0)] = 10
    """Seconds between SIGTERM and SIGKILL."""
    on_finish: OnFinish = "delete"
    """What happens to a finished pod. Logs are in the task log, results in MLflow."""
    pod_kwargs: dict[str, Any] = {}
    """Further arguments of ``KubernetesPodOperator``, by its names."""


def pod_options(*layers: Mapping[str, Any] | None) -> PodOptions:
    """Merge layers of options, later ones first in rank, and check them.

    :param layers: mappings of :class:`PodOptions` fields; None is skipped.
    :raises InvalidArgumentError: listing every problem.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer or {})
    try:
        return PodOptions.model_validate(merged)
    except ValidationError as error:
        problems = "; ".join(
            f"kubernetes.{'.'.join(map(str, item['loc']))}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        )
        raise InvalidArgumentError(f"{problems}. Allowed names: {', '.join(PodOptions.model_fields)}") from None


def pod_name(workload_name: str, identity: str, try_number: int) -> str:
    """Name a pod so that creating it twice is refused by Kubernetes.

    :param workload_name: task id; anything Kubernetes does not allow becomes a dash.
    :param identity: name of the piece of work.
    :param try_number: which try creates the pod.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", workload_name.lower()).strip("-")[:40].strip("-") or "workload"
    return f"{slug}-{identity[:12]}-{try_number}"


def label_value(text: str) -> str:
    """Make a label value: at most 63 of the characters that Kubernetes allows."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def resource_requirements(resources: Resources, options: PodOptions) -> dict[str, dict[str, str]]:
    """Give requests and limits, which are always set.

    :param resources: what the operator asked for.
    :param options: defaults for what it did not name.
    """
    amounts = {"cpu": resources.cpu or options.cpu, "memory": resources.memory or options.memory}
    if resources.gpu:
        amounts[options.gpu_resource] = str(resources.gpu)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def pod_labels(workload: Workload, options: PodOptions) -> dict[str, str]:
    """Give the labels by which pods are found, by people and by a retry."""
    labels = {
        **options.labels,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_IDENTITY: workload.labels["identity"],
        LABEL_MODEL: label_value(workload.labels.get("model_name", "")),
    }
    if options.queue:
        labels[LABEL_QUEUE] = options.queue
    return {name: value for name, value in labels.items() if value}


def pod_annotations(workload: Workload, run_id: str, options: PodOptions) -> dict[str, str]:
    """Give the annotations: labels cannot hold every name in full."""
    full = {f"{ANNOTATION_PREFIX}{name.replace('_', '-')}": value for name, value in workload.labels.items()}
    owns_run = str(workload.owns_run).lower()
    return {**options.annotations, **full, ANNOTATION_RUN: run_id, ANNOTATION_OWNS_RUN: owns_run}


POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class PodEnding(BaseModel):
    """How a pod ended, as far as Kubernetes still knows."""

    model_config = ConfigDict(frozen=True)

    name: str
    container: str = CONTAINER
    """The container that decided it: the workload's own, or an init container that did not let it start."""
    node: str = ""
    phase: str = ""
    reason: str = ""
    """Reason of pod or container, for example ``OOMKilled``, ``Evicted``, ``ImagePullBackOff``."""
    message: str = ""
    exit_code: int | None = None
    image: str = ""
    image_digest: str = ""
    """Digest of the image that ran, ``sha256:<hex>``; empty when no container was started."""
    deleted: bool = False
    """Whether somebody deleted it: a person, a drain, or the scheduler for a pod of higher priority."""

    @property
    def is_timeout(self) -> bool:
        """Whether Kubernetes ended it because its time was up."""
        return self.reason == "DeadlineExceeded"

    @property
    def is_lost(self) -> bool:
        """Whether it was deleted while it worked: a container that is stopped ends by a signal, or without a trace."""
        return self.deleted and self.exit_code in (None, 0, *_STOPPED)

    def describe(self) -> str:
        """Say it in one sentence, with what it mostly means."""
        where = f" on node {self.node}" if self.node else ""
        if self.is_lost:
            code = "" if self.exit_code is None else f" (exit code {self.exit_code})"
            return f"pod {self.name}{where} was deleted while it ran{code}: by a person, a drain or a preemption"
        which = "" if self.container == CONTAINER else f" in its init container {self.container!r}"
        how = f"exit code {self.exit_code}" if self.exit_code is not None else f"phase {self.phase or 'unknown'}"
        reason = f", {self.reason}" if self.reason and self.reason != "Error" else ""
        message = f": {self.message.strip()}" if self.message.strip() else ""
        return f"pod {self.name}{where} ended{which} with {how}{reason}{message}{_hint(self)}"


_STOPPED = (137, 143)
"""Exit codes of a container that was ended by SIGKILL and SIGTERM."""

_HINTS: Mapping[str, str] = {
    "OOMKilled": "its memory limit is too small for the work: raise workload_resources memory",
    "Evicted": "the node ran short of a resource; a retry may run elsewhere",
    "DeadlineExceeded": "it ran longer than workload_timeout",
    "Unschedulable": "no node has room for its requests, or none matches its selector and tolerations",
    "CreateContainerConfigError": "a Secret or ConfigMap that it names does not exist",
}


def _hint(ending: PodEnding) -> str:
    if ending.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
        return f" (image {ending.image!r} cannot be pulled: check its name, the registry and image_pull_secrets)"
    hint = _HINTS.get(ending.reason)
    return f" ({hint})" if hint else ""


def read_ending(pod: Mapping[str, Any]) -> PodEnding:
    """Read how a pod ended, or why it did not start, from its manifest.

    :param pod: the pod as the API returns it in JSON.
    """
    status = pod.get("status") or {}
    container, state = _deciding_container(status)
    terminated, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    unscheduled: Mapping[str, Any] = next(
        (
            condition
            for condition in status.get("conditions") or []
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
        ),
        {},
    )
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    image = next((item.get("image", "") for item in containers if item.get("name") == container), "")
    sources = (terminated, {"reason": status.get("reason"), "message": status.get("message")}, waiting, unscheduled)
    own = next((source for source in sources if source.get("reason") and source.get("reason") != "Completed"), {})
    # The pod's own reason (Evicted, DeadlineExceeded) says more than the signal its container died of.
    told = sources[1] if sources[1].get("reason") else own
    return PodEnding(
        name=(pod.get("metadata") or {}).get("name", "unknown"),
        container=container,
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "",
        reason=told.get("reason") or "",
        message=told.get("message") or "",
        exit_code=terminated.get("exitCode"),
        image=image,
        image_digest=_image_digest(status),
        deleted=bool((pod.get("metadata") or {}).get("deletionTimestamp")),
    )


def _deciding_container(status: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Give name and state of the workload's container, or of the init container that keeps it from starting."""
    containers = [item for item in status.get("containerStatuses") or [] if item.get("name") == CONTAINER]
    state = (containers[0].get("state") or {}) if containers else {}
    if not (state.get("terminated") or state.get("running")):
        for item in status.get("initContainerStatuses") or []:
            before = item.get("state") or {}
            has_failed = (before.get("terminated") or {}).get("exitCode")
            if has_failed or (before.get("waiting") or {}).get("reason") not in (None, "PodInitializing"):
                return str(item.get("name")), before
    return CONTAINER, state


def _image_digest(status: Mapping[str, Any]) -> str:
    """Take the digest out of what the runtime calls the workload's image: ``docker-pullable://name@sha256:…``, say."""
    used = [item.get("imageID") or "" for item in status.get("containerStatuses") or [] if item["name"] == CONTAINER]
    found = re.search(r"sha256:[0-9a-f]{64}", "".join(used))
    return found[0] if found else ""


def pod_manifest(workload: Workload, options: PodOptions, *, name: str, run_id: str, companion: str) -> dict[str, Any]:
    """Write the pod of a workload.

    Files come from a ConfigMap and credentials from a Secret, both named ``companion`` and owned by the pod;
    nothing secret is in the manifest.

    :param workload: what runs.
    :param options: how it runs.
    :param name: name of the pod.
    :param run_id: MLflow run it logs to.
    :param companion: name of the ConfigMap and the Secret.
    :return: the manifest as JSON values.
    :raises InvalidArgumentError: when no image is known.
    """
    image = workload.image or options.image
    if not image:
        raise InvalidArgumentError(
            "no image for the pod: give the operator an image, or set kubernetes.image; build the default one with "
            "'make image'"
        )
    if workload.folder:
        raise InvalidArgumentError(
            f"folder {workload.folder!r} is on the machine of the Airflow worker, where no pod sees it; take the code "
            "from Git with source. Nothing was started."
        )
    gpu = bool(workload.resources.gpu)
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": options.service_account_token,
        "serviceAccountName": options.service_account,
        "securityContext": dict(POD_SECURITY),
        "nodeSelector": {**options.node_selector, **(options.gpu_node_selector if gpu else {})},
        "tolerations": [*options.tolerations, *(options.gpu_tolerations if gpu else ())],
        "affinity": options.affinity,
        "priorityClassName": options.priority_class,
        "imagePullSecrets": [{"name": secret} for secret in options.image_pull_secrets],
        "terminationGracePeriodSeconds": options.termination_grace_period,
        "activeDeadlineSeconds": None if workload.timeout is None else max(1, round(workload.timeout)),
        "volumes": _volumes(workload, options, companion),
        "initContainers": _init_containers(workload, options, companion),
        "containers": [_container(workload, options, image, companion)],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": pod_labels(workload, options),
            "annotations": pod_annotations(workload, run_id, options),
        },
        "spec": {key: value for key, value in spec.items() if value not in (None, {}, [])},
    }


def _init_containers(workload: Workload, options: PodOptions, companion: str) -> list[dict[str, Any]]:
    """Write the container that fetches code and data; it alone is given the logins of their repositories."""
    source = workload.source
    if source is None:
        return []
    image = options.source_image or options.image
    if not image:
        raise InvalidArgumentError(
            "no image to fetch code or data with: set kubernetes.source_image, or kubernetes.image, to an image with "
            "airflow-mcp and git; 'make image' builds one. Nothing was started."
        )
    fetch = _container_of(workload, options, image, sorted(workload.env.items()))
    return [
        {
            **fetch,
            "name": SOURCE_CONTAINER,
            "command": ["python", *CHECKOUT_ARGUMENTS],
            "env": fetch["env"] + _secret_variables((key, companion, key) for key in sorted(source.secret_env)),
            "resources": resource_requirements(replace(workload.resources, gpu=0), options),
        }
    ]


def _container(workload: Workload, options: PodOptions, image: str, companion: str) -> dict[str, Any]:
    env = sorted(workload.env.items()) + [(file.env, f"{FILES}/{file.name}") for file in workload.files]
    container = _container_of(workload, options, image, env)
    references = [(variable.env, variable.secret, variable.key) for variable in options.secrets]
    references += [(key, companion, key) for key in sorted(workload.secret_env)]
    files = [{"name": "files", "mountPath": FILES, "readOnly": True}] if workload.files else []
    return {
        **container,
        **({"command": list(workload.command)} if workload.command else {}),
        "workingDir": (workload.source.working_folder(SOURCE) if workload.source else None) or SCRATCH,
        "env": container["env"] + _secret_variables(references),
        "envFrom": container["envFrom"] + [{"secretRef": {"name": item}} for item in options.env_from_secrets],
        "volumeMounts": container["volumeMounts"] + files,
    }


def _container_of(
    workload: Workload, options: PodOptions, image: str, env: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Write what the containers of a workload share: everything but the command and the credentials."""
    about_source = workload.source.environment(SOURCE) if workload.source else {}
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": SCRATCH}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    mounts += [{"name": _SOURCE_VOLUME, "mountPath": SOURCE}] if workload.source else []
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": options.image_pull_policy,
        "workingDir": SCRATCH,
        "env": [{"name": key, "value": value} for key, value in {**dict(env), **about_source}.items()],
        "envFrom": [{"configMapRef": {"name": item}} for item in options.env_from_config_maps],
        "resources": resource_requirements(workload.resources, options),
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": mounts + [_mount(volume) for volume in options.volumes],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _secret_variables(references: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for variable, secret, key in references
    ]


def _volumes(workload: Workload, options: PodOptions, companion: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    if workload.files:
        volumes.append({"name": "files", "configMap": {"name": companion}})
    if workload.source:
        volumes.append({"name": _SOURCE_VOLUME, "emptyDir": {}})
    return volumes + [{"name": volume.name, **volume.source()} for volume in options.volumes]


def _mount(volume: VolumeOption) -> dict[str, Any]:
    mount: dict[str, Any] = {
        "name": volume.name,
        "mountPath": volume.mount_path,
        "readOnly": volume.read_only,
    }
    return {**mount, "subPath": volume.sub_path} if volume.sub_path else mount
