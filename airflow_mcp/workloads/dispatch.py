"""Backends by the name of their runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mcp.core.workload.replicas import group_of_one
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.kubernetes import KubernetesBackend
from airflow_mcp.workloads.kubernetes_target import TargetBackend
from airflow_mcp.workloads.local import LocalBackend

if TYPE_CHECKING:
    from airflow_mcp.core.workload.pod_options import PodOptions
    from airflow_mcp.workloads.base import WorkloadBackend

RUNTIMES: tuple[str, ...] = ("local", "kubernetes")
"""Every value of ``runtime``."""


def backend_for(
    runtime: str,
    *,
    log_limit_bytes: int,
    kill_grace_seconds: float,
    pod: PodOptions,
    mlflow_conn_id: str,
    python: str = "",
) -> WorkloadBackend:
    """Return a new backend for one task try.

    :param runtime: one of :data:`RUNTIMES`.
    :param log_limit_bytes: most bytes of a local workload's output that are copied to the log.
    :param kill_grace_seconds: seconds between asking a local workload to end and killing it.
    :param pod: options of pods.
    :param mlflow_conn_id: connection to close the run of a pod with, when a person ends its task.
    :param python: interpreter of local workloads; empty takes that of this process.
    :raises InvalidArgumentError: when the runtime is unknown, or a limit is negative or not a number.
    """
    if runtime == "local":
        return LocalBackend(
            log_limit_bytes=log_limit_bytes,
            kill_grace_seconds=kill_grace_seconds,
            python=python,
            alone=group_of_one(pod),
        )
    if runtime == "kubernetes" and pod.target != "pods":
        return TargetBackend(pod, mlflow_conn_id=mlflow_conn_id)
    if runtime == "kubernetes":
        return KubernetesBackend(pod, mlflow_conn_id=mlflow_conn_id)
    raise InvalidArgumentError(f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}. Nothing was started")
