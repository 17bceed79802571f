"""The manifest of a workload's pod, as plain data, without a Kubernetes client.

Its defaults are safe: not root, no privilege escalation, read-only root file system with a writable scratch folder,
no service account token, requests and limits always set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from airflow_mcp.core.workload.definition import CHECKOUT_ARGUMENTS, Resources, Workload
from airflow_mcp.core.workload.pod_options import PodOptions, VolumeOption
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
"""Whether the MLflow run ends with the pod, ``true`` or ``false``; the sweeper asks."""
LABEL_GROUP = "airflow-mcp.io/group"
"""Name of rank 0's pod, on every pod of a training with several."""
LABEL_RANK = "airflow-mcp.io/rank"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"


def pod_name(workload_name: str, identity: str, try_number: int) -> str:
    """Return the name of a pod; the same for the same try, so that Kubernetes refuses to create it twice.

    :param workload_name: task id; characters that Kubernetes does not allow become dashes.
    :param identity: fingerprint of the work.
    :param try_number: which try creates the pod.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", workload_name.lower()).strip("-")[:40].strip("-") or "workload"
    return f"{slug}-{identity[:12]}-{try_number}"


def label_value(text: str) -> str:
    """Return a text as a label value: at most 63 of the characters that Kubernetes allows."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def resource_requirements(resources: Resources, options: PodOptions) -> dict[str, dict[str, str]]:
    """Return requests and limits, which are always set.

    :param resources: resources that the operator asked for.
    :param options: defaults for the others.
    """
    amounts = {"cpu": resources.cpu or options.cpu, "memory": resources.memory or options.memory}
    if resources.gpu:
        amounts[options.gpu_resource] = str(resources.gpu)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def pod_labels(workload: Workload, options: PodOptions) -> dict[str, str]:
    """Return the labels by which people and retries find pods."""
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
    """Return the annotations, which hold names that are too long for labels."""
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


def pod_manifest(workload: Workload, options: PodOptions, *, name: str, run_id: str, companion: str) -> dict[str, Any]:
    """Return the manifest of a workload's pod.

    Files come from a ConfigMap and credentials from a Secret, both named ``companion`` and owned by the pod; the
    manifest contains no secret.

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
            "no image for the pod: nothing was started. Give the operator an image or set kubernetes.image; "
            "'make image' builds the default one"
        )
    if workload.folder:
        raise InvalidArgumentError(
            f"folder {workload.folder!r} is on the Airflow worker, where no pod sees it: nothing was started. Take the "
            "code from Git"
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
    """Return the init container that fetches code and data; only it gets the logins of their repositories."""
    source = workload.source
    if source is None:
        return []
    image = options.source_image or options.image
    if not image:
        raise InvalidArgumentError(
            "no image to fetch code or data with: nothing was started. Set kubernetes.source_image or kubernetes.image "
            "to an image with airflow-mcp and git; 'make image' builds one"
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
    """Return what the containers of a workload share: everything except command and credentials."""
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
