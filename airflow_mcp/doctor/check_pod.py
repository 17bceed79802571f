"""The doctor's check of an image: starts a pod with it, and runs the probe inside."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_mcp import __version__
from airflow_mcp.cluster.client import Cluster
from airflow_mcp.core.contract import ENV_TRACKING_URI
from airflow_mcp.core.doctor.diagnosis import Diagnosis
from airflow_mcp.core.doctor.mlflow_server import judge_address
from airflow_mcp.core.doctor.workload_image import judge_ending, judge_probe, read_probe
from airflow_mcp.core.workload.definition import Resources, Workload
from airflow_mcp.core.workload.pod import LABEL_MANAGED_BY, pod_manifest
from airflow_mcp.core.workload.pod_ending import ended_well, read_ending
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.doctor import pod_probe
from airflow_mcp.exceptions import ClusterUnreachableError

_LOST_CAUSES = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "CreateContainerConfigError"})
"""Reasons for waiting after which the probe pod is given up."""


@dataclass(frozen=True)
class PodCheck:
    """What to check in a pod."""

    image: str
    mlflow_url: str
    """Address of MLflow for the pod; empty to leave it out."""
    timeout: float
    """Seconds within which the pod must report."""
    service_account: str | None = None
    pull_secrets: tuple[str, ...] = ()


def check_pod(cluster: Cluster, check: PodCheck, version: str) -> Iterator[Diagnosis]:
    """Start a pod as workloads do, and judge the findings of the probe in it.

    :param cluster: the cluster.
    :param check: what to check.
    :param version: version of the MLflow server, read from this machine; may be empty.
    """
    if check.mlflow_url and (finding := judge_address(check.mlflow_url)):
        yield finding
    name = f"airflow-mcp-doctor-{uuid.uuid4().hex[:8]}"
    try:
        cluster.create_pod(_manifest(name, check))
        try:
            pod = cluster.wait_for_end(name, check.timeout, _LOST_CAUSES)
            report = read_probe(_log(cluster, name)) if ended_well(pod) else None
        finally:
            cluster.delete_pod(name)
    except ClusterUnreachableError as error:
        yield Diagnosis("image", "problem", str(error), "the pod could not be started or read: see the rights above")
        return
    if report is None:
        yield judge_ending(read_ending(pod))
        return
    yield from judge_probe(
        report,
        image=check.image,
        own_python=platform.python_version(),
        own_version=__version__,
        server_version=version,
        asked_mlflow=bool(check.mlflow_url),
    )


def _log(cluster: Cluster, name: str) -> str:
    """Return the log, which may be late after the end of the pod."""
    for _ in range(5):
        text = cluster.log(name)
        if text.strip():
            return text
        time.sleep(0.5)
    return ""


def _manifest(name: str, check: PodCheck) -> dict[str, object]:
    """Return the manifest with the defaults of every workload, except for its small size."""
    options = PodOptions(
        image=check.image, service_account=check.service_account, image_pull_secrets=check.pull_secrets
    )
    workload = Workload(
        name,
        ("python", "-c", Path(pod_probe.__file__).read_text(encoding="utf-8")),
        env={ENV_TRACKING_URI: check.mlflow_url} if check.mlflow_url else {},
        resources=Resources(cpu="100m", memory="128Mi"),
        timeout=check.timeout,
        labels={"identity": name},
    )
    manifest = pod_manifest(workload, options, name=name, run_id="", companion=name)
    manifest["metadata"]["labels"][LABEL_MANAGED_BY] = "airflow-mcp-doctor"  # so that the sweeper leaves it alone
    return manifest
