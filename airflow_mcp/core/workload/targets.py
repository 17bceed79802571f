"""A training as one object of Kubernetes whose controller creates the pods: a Job, a TrainJob or a RayJob.

Everything here is plain data. The pods are those of :mod:`airflow_mcp.core.workload.pod`: same image, environment,
credentials by reference, limits and labels. The ConfigMap and the Secret of the work carry the object's name.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_mcp.core.contract import ENV_MLFLOW_RUN_ID
from airflow_mcp.core.workload.definition import Resources, Workload, WorkloadFile
from airflow_mcp.core.workload.pod import (
    CONTAINER,
    FILES,
    LABEL_GROUP,
    LABEL_QUEUE,
    LABEL_RANK,
    SCRATCH,
    SOURCE,
    label_value,
    pod_manifest,
    pod_name,
)
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.replicas import (
    ANNOTATION_REPLICAS,
    ENV_COMPLETION_INDEX,
    ENV_LOCAL_RANK,
    ENV_MASTER_ADDR,
    ENV_MASTER_PORT,
    ENV_RANK,
    ENV_WORLD_SIZE,
    require_group,
)
from airflow_mcp.exceptions import InvalidArgumentError


@dataclass(frozen=True)
class TargetKind:
    """A kind of object that a training can run as."""

    group: str
    version: str
    kind: str
    plural: str
    needs: str
    """What must be installed in the cluster."""
    container: str = CONTAINER
    """Name of the container of the work in its pods."""

    @property
    def api_version(self) -> str:
        """API of the kind, for example ``batch/v1``."""
        return f"{self.group}/{self.version}"


TARGETS: Mapping[str, TargetKind] = {
    "job": TargetKind("batch", "v1", "Job", "jobs", "Kubernetes 1.24 or newer"),
    "train_job": TargetKind(
        *("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs"),
        needs="Kubeflow Trainer 2.2 or newer (github.com/kubeflow/trainer)",
        container="node",
    ),
    "ray_job": TargetKind("ray.io", "v1", "RayJob", "rayjobs", "the KubeRay operator (github.com/ray-project/kuberay)"),
}
"""Every value of ``kubernetes.target`` besides ``pods``."""
_TASK_LABELS = ("dag_id", "task_id", "run_id", "try_number")
"""Labels that KubernetesPodOperator gives to single pods."""
ANNOTATION_TARGET = "airflow-mcp.io/target"
"""The ``kubernetes.target`` of an object, on its pods too."""
_RUN_AS_RANK = f'export {ENV_RANK}="${ENV_COMPLETION_INDEX}"; [ "${ENV_RANK}" = 0 ] || unset {ENV_MLFLOW_RUN_ID}; '
"""Kubernetes numbers the pods of an indexed Job; only rank 0 may end the MLflow run."""
_ENTRYPOINT = "entrypoint.sh"
_SUBMITTER = Resources(cpu="200m", memory="512Mi")
"""``ray job submit`` only sends the entrypoint and copies its output."""
_PATCHABLE = ("serviceAccountName", "imagePullSecrets", "securityContext", "nodeSelector", "affinity", "tolerations")
"""What a TrainJob may change in the pods of its training runtime, besides volumes and containers."""


def object_name(workload_name: str, identity: str, try_number: int) -> str:
    """Return the name of an object; it leaves room for what controllers append, and begins with a letter.

    :param workload_name: task id.
    :param identity: fingerprint of the work.
    :param try_number: which try creates the object.
    """
    name = pod_name(workload_name[:20], identity, try_number)
    return name if name[0].isalpha() else f"t-{name}"


def with_entrypoint(workload: Workload, options: PodOptions) -> Workload:
    """Return the workload with the files that its target needs besides its own.

    :param workload: what runs.
    :param options: options of its pods.
    """
    if options.target != "ray_job":
        return workload
    folder = (workload.source.working_folder(SOURCE) if workload.source else None) or SCRATCH
    script = f"cd {shlex.quote(folder)} && exec {shlex.join(workload.command)}\n"
    # A file, because KubeRay and `ray job submit` each quote the entrypoint once more.
    return replace(workload, files=(*workload.files, WorkloadFile("AIRFLOW_MCP_ENTRYPOINT", _ENTRYPOINT, script)))


def target_manifest(workload: Workload, options: PodOptions, *, name: str, run_id: str) -> dict[str, Any]:
    """Return the object that a training runs as.

    :param workload: what runs, after :func:`with_entrypoint`.
    :param options: its pods; ``target`` is not ``pods``.
    :param name: name of the object, its ConfigMap and its Secret.
    :param run_id: MLflow run that it logs to.
    :raises InvalidArgumentError: when the work cannot run on several pods, or an option is unknown to the target.
    """
    require_group(workload, options)
    _require_known_options(workload, options)
    kind = TARGETS[options.target]
    pod = _pod(workload, options, name, run_id)
    spec = {"job": _job, "train_job": _train_job, "ray_job": _ray_job}[options.target](workload, options, pod)
    if workload.timeout is not None:
        spec["activeDeadlineSeconds"] = max(1, round(workload.timeout))
    labels = dict(pod["metadata"]["labels"])
    if options.queue:
        labels[LABEL_QUEUE] = options.queue
    metadata = {"name": name, "labels": labels, "annotations": dict(pod["metadata"]["annotations"])}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


def rendezvous_service(manifest: Mapping[str, Any], options: PodOptions, *, uid: str) -> dict[str, Any] | None:
    """Return the headless Service by which the pods of a Job find rank 0; None where the target brings its own.

    :param manifest: the object.
    :param options: its options.
    :param uid: UID of the object, the owner.
    """
    if options.target != "job" or options.replicas == 1:
        return None
    name, kind = manifest["metadata"]["name"], TARGETS["job"]
    owner = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": uid}
    port = options.rendezvous_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL_GROUP: name}, "ownerReferences": [owner]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_GROUP: name},
            "ports": [{"name": "rendezvous", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def dropped_fields(wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """Return the fields of a spec that the cluster does not know and would drop silently.

    :param wanted: the object as it was sent.
    :param kept: the object as Kubernetes returned it.
    """
    return sorted(wanted["spec"].keys() - (kept.get("spec") or {}).keys())


def _require_known_options(workload: Workload, options: PodOptions) -> None:
    """Refuse what the target has no place for, rather than run without it."""
    given: dict[str, Any] = {"pod_template_file": options.pod_template_file, "pod_kwargs": options.pod_kwargs}
    if options.target == "train_job":
        given |= {
            "env_from_config_maps": options.env_from_config_maps,
            "env_from_secrets": options.env_from_secrets,
            "priority_class": options.priority_class,
        }
    unknown = sorted(name for name, value in given.items() if value)
    if unknown:
        raise InvalidArgumentError(
            f"kubernetes.target={options.target!r} has no place for {', '.join(unknown)}. Remove them, or use the "
            "target 'pods'. Nothing was started"
        )
    if options.target == "train_job" and workload.source is not None:
        raise InvalidArgumentError(
            f"kubernetes.target='train_job' cannot fetch code or DVC data for {workload.name!r}: a TrainJob may not "
            "add init containers. Put the code into the image, or use another target. Nothing was started"
        )


def _pod(workload: Workload, options: PodOptions, name: str, run_id: str) -> dict[str, Any]:
    """Return the pod that all targets start from: Kueue queues the object and not its pods."""
    pod = pod_manifest(workload, options, name=name, run_id=run_id, companion=name)
    labels, notes = pod["metadata"]["labels"], pod["metadata"]["annotations"]
    labels.pop(LABEL_QUEUE, None)
    labels |= {name: label_value(workload.labels[name]) for name in _TASK_LABELS if workload.labels.get(name)}
    labels[LABEL_GROUP] = name
    notes |= {ANNOTATION_REPLICAS: str(options.replicas), ANNOTATION_TARGET: options.target}
    pod["spec"].pop("activeDeadlineSeconds", None)  # the object has it
    return pod


def _template(pod: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in pod["metadata"].items() if key != "name"}
    return copy.deepcopy({"metadata": metadata, "spec": pod["spec"]})


def _ranks(options: PodOptions, leader: str) -> list[dict[str, str]]:
    """Return the variables of the ranks that are the same in every pod."""
    values = {
        ENV_WORLD_SIZE: str(options.replicas),
        ENV_LOCAL_RANK: "0",
        ENV_MASTER_ADDR: leader,
        ENV_MASTER_PORT: str(options.rendezvous_port),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _job(workload: Workload, options: PodOptions, pod: dict[str, Any]) -> dict[str, Any]:
    template, name = _template(pod), pod["metadata"]["name"]
    container = template["spec"]["containers"][0]
    spec = {"backoffLimit": 0, "parallelism": options.replicas, "completions": options.replicas, "template": template}
    if options.replicas == 1:  # needs no index, so it runs on every version of Kubernetes
        container["env"] += [*_ranks(options, "127.0.0.1"), {"name": ENV_RANK, "value": "0"}]
        return spec
    container["env"] += _ranks(options, f"{name}-0.{name}")
    container["command"] = ["sh", "-c", f'{_RUN_AS_RANK}exec "$@"', "rank", *workload.command]
    template["spec"]["subdomain"] = name
    return {**spec, "completionMode": "Indexed"}


def _train_job(workload: Workload, options: PodOptions, pod: dict[str, Any]) -> dict[str, Any]:
    template, name = _template(pod), pod["metadata"]["name"]
    container, node = template["spec"]["containers"][0], TARGETS["train_job"].container
    patch = {key: value for key, value in template["spec"].items() if key in _PATCHABLE}
    patch["volumes"] = template["spec"]["volumes"]
    patch["containers"] = [
        {
            "name": node,
            "volumeMounts": container["volumeMounts"],
            "securityContext": container["securityContext"],
        }
    ]
    pods = {"metadata": template["metadata"], "spec": patch}
    jobs = [{"name": node, "template": {"spec": {"template": pods}}}]
    start = f'cd {container["workingDir"]} && {_RUN_AS_RANK}exec "$@"'
    return {
        "runtimeRef": {
            "apiGroup": TARGETS["train_job"].group,
            "kind": "ClusterTrainingRuntime",
            "name": options.training_runtime,
        },
        "trainer": {
            "image": container["image"],
            "command": ["sh", "-c", start, "rank", *workload.command],
            # The names that JobSet gives its pods: <object>-<replicated job>-<replica>-<index>.
            "env": [*container["env"], *_ranks(options, f"{name}-{node}-0-0.{name}")],
            "numNodes": options.replicas,
            "resourcesPerNode": container["resources"],
        },
        "runtimePatches": [
            {
                "manager": "airflow-mcp.io/airflow",
                "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}},
            }
        ],
    }


def _ray_job(workload: Workload, options: PodOptions, pod: dict[str, Any]) -> dict[str, Any]:
    head = _ray_pod(pod)
    head["spec"]["containers"][0]["env"].append({"name": ENV_WORLD_SIZE, "value": str(options.replicas)})
    worker = _ray_pod(pod)
    container = worker["spec"]["containers"][0]
    container["env"] = [item for item in container["env"] if item["name"] != ENV_MLFLOW_RUN_ID]
    cluster: dict[str, Any] = {
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": head},  # noqa: S104  (its pod)
    }
    if options.replicas > 1:
        count = options.replicas - 1
        numbers = {"replicas": count, "minReplicas": count, "maxReplicas": count}
        cluster["workerGroupSpecs"] = [
            {"groupName": "workers", **numbers, "rayStartParams": {}, "template": worker},
        ]
    if options.ray_version:
        cluster["rayVersion"] = options.ray_version
    return {
        "entrypoint": f"sh {FILES}/{_ENTRYPOINT}",
        "backoffLimit": 0,  # a retry is Airflow's
        "shutdownAfterJobFinishes": True,
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": _submitter(workload, options, pod),
        "rayClusterSpec": cluster,
    }


def _ray_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template of a pod of the Ray cluster: KubeRay writes the command and restarts the container."""
    template = _template(pod)
    template["spec"].pop("restartPolicy")
    template["spec"]["containers"][0].pop("command", None)
    return template


def _submitter(workload: Workload, options: PodOptions, pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template of the pod that submits the entrypoint and prints its output; it has no credentials."""
    nothing = {"secrets": (), "env_from_config_maps": (), "env_from_secrets": (), "volumes": ()}
    bare = replace(workload, command=(), env={}, secret_env={}, files=(), source=None, resources=_SUBMITTER)
    name = pod["metadata"]["name"]
    template = _template(_pod(bare, options.model_copy(update=nothing), name, ""))
    template["metadata"] = copy.deepcopy({key: pod["metadata"][key] for key in ("labels", "annotations")})
    template["metadata"]["labels"][LABEL_RANK] = "0"
    return template
