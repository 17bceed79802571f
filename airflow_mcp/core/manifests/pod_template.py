"""The pods of a model server: safe defaults, or those of the profile ``seed``."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.manifests.parts import (
    CONTAINER,
    PORT,
    Manifest,
    headless_name,
    pod_labels,
    scrape_annotations,
    selector,
)
from airflow_mcp.core.manifests.policy_files import POLICY_FOLDER, policy_files, policy_name
from airflow_mcp.core.manifests.spec import ModelServerSpec, Resources
from airflow_mcp.core.serving.settings import PREFIX
from airflow_mcp.core.workload.pod import CONTAINER_SECURITY, POD_SECURITY

_GIBIBYTE = 1024**3
_SPARE_GIB = 3
"""Disk besides the cache: the prediction log (1 GiB), and what models write."""
_STARTUP_PERIOD, _STARTUP_SECONDS = 2, 60
"""The front is live in 2 s; on a node that is busy with other pods it takes longer. Loading a model is not part of
this: a pod that waits for MLflow or for its model is live, is not ready, and is not restarted for it."""
_END_SECONDS = 10
"""Time to close connections and end model processes, after the last answer."""
_SEED_RESOURCES = Resources(cpu="1000m", cpu_limit="2000m", memory="2Gi", memory_limit="4Gi")
_SEED_ACCOUNT = "mlflow-client"


def pod_template(spec: ModelServerSpec) -> Manifest:
    """Return the pod template of the Deployment."""
    if spec.profile == "seed":
        return _seed_template(spec)
    return {
        "metadata": {
            "labels": {**spec.labels, **pod_labels(spec)},
            "annotations": {**scrape_annotations(), **spec.annotations},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": dict(POD_SECURITY),
            "terminationGracePeriodSeconds": grace_seconds(spec),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(spec)},
                }
            ],
            "containers": [_container(spec)],
            "volumes": _volumes(spec),
            **_placement(spec),
        },
    }


def grace_seconds(spec: ModelServerSpec) -> int:
    """Return how long a pod may take to end: it drains, then requests that are in flight get their answers."""
    request_timeout = float(spec.settings.get("REQUEST_TIMEOUT", "30"))
    return round(spec.drain_seconds + request_timeout) + _END_SECONDS


def _container(spec: ModelServerSpec) -> Manifest:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  (of the container)
    if policy_files(spec):
        mounts.append({"name": "policies", "mountPath": POLICY_FOLDER, "readOnly": True})
    return {
        "name": CONTAINER,
        "image": spec.image_reference,
        "imagePullPolicy": spec.image_pull_policy,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(spec),
        "resources": _requirements(spec.resources or Resources()),
        "securityContext": dict(CONTAINER_SECURITY),
        "startupProbe": {
            **_probe("/healthz", period=_STARTUP_PERIOD, timeout=2),
            "failureThreshold": _STARTUP_SECONDS // _STARTUP_PERIOD,
        },
        "livenessProbe": {**_probe("/healthz", period=10, timeout=5), "failureThreshold": 6},
        "readinessProbe": {**_probe("/readyz", period=2, timeout=2), "failureThreshold": 3},
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(path: str, *, period: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
    }


def _environment(spec: ModelServerSpec) -> list[dict[str, Any]]:
    settings = {
        "CACHE_BYTES": str(spec.cache_gib * _GIBIBYTE),
        "DRAIN_SECONDS": f"{spec.drain_seconds:g}",
        "LOAD_TIMEOUT": str(spec.load_timeout),
        "SERVICE": headless_name(spec),
        **{name.upper(): value for name, value in spec.settings.items()},
    }
    if files := policy_files(spec):
        settings["POLICIES"] = ",".join(f"{POLICY_FOLDER}/{name}" for name in sorted(files))
    if "@sha256:" in spec.image:
        settings["IMAGE_DIGEST"] = spec.image.partition("@")[2]
    return _variables(spec, {**{PREFIX + name: value for name, value in settings.items()}, **spec.env})


def _variables(spec: ModelServerSpec, values: dict[str, str]) -> list[dict[str, Any]]:
    plain = {"MODEL_URI": spec.model_uri, "MLFLOW_TRACKING_URI": spec.tracking_uri, **dict(sorted(values.items()))}
    return [{"name": name, "value": value} for name, value in plain.items()] + [
        {"name": each.env, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
        for each in spec.secrets
    ]


def _requirements(resources: Resources) -> dict[str, dict[str, str]]:
    limits = {"memory": resources.memory_limit or resources.memory}
    if resources.cpu_limit:
        limits["cpu"] = resources.cpu_limit
    return {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits}


def _volumes(spec: ModelServerSpec) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{spec.cache_gib + _SPARE_GIB}Gi"}}]
    if policy_files(spec):
        volumes.append({"name": "policies", "configMap": {"name": policy_name(spec)}})
    return volumes


def _placement(spec: ModelServerSpec) -> dict[str, Any]:
    placement = {
        "serviceAccountName": spec.service_account,
        "imagePullSecrets": [{"name": secret} for secret in spec.image_pull_secrets],
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [each.model_dump(by_alias=True, exclude_none=True) for each in spec.tolerations],
    }
    return {name: value for name, value in placement.items() if value}


def _seed_template(spec: ModelServerSpec) -> Manifest:
    """Return the template with the values of the source documents, also where the safe ones differ on purpose."""
    settings = {PREFIX + name.upper(): value for name, value in spec.settings.items()}
    return {
        "metadata": {
            "labels": {**spec.labels, **pod_labels(spec)},
            "annotations": {**scrape_annotations(), **spec.annotations},
        },
        "spec": {
            **_placement(spec),
            "serviceAccountName": spec.service_account or _SEED_ACCOUNT,
            "containers": [
                {
                    "name": CONTAINER,
                    "image": spec.image_reference,
                    "imagePullPolicy": spec.image_pull_policy,
                    "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                    "env": _variables(spec, {**settings, **spec.env}),
                    "resources": _requirements(spec.resources or _SEED_RESOURCES),
                    "securityContext": {"capabilities": {"add": ["SYS_NICE"]}},
                    "livenessProbe": {**_probe("/healthz", period=30, timeout=1), "initialDelaySeconds": 60},
                    "readinessProbe": {**_probe("/readyz", period=15, timeout=1), "initialDelaySeconds": 45},
                    "lifecycle": {
                        "preStop": {
                            "exec": {"command": ["/bin/sh", "-c", f"curl -f localhost:{PORT}/healthz || exit 0"]}
                        }
                    },
                }
            ],
        },
    }
