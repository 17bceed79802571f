"""From the name of a runtime to its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mcp.core.workload.replicas import group_of_one
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.kubernetes import KubernetesBackend
from airflow_mcp.workloads.local import LocalBackend

if TYPE_CHECKING:
    from airflow_mcp.core.workload.pod_options import PodOptions
    from airflow_mcp.workloads.base import WorkloadBackend

RUNTIMES: tuple[str, ...] = ("local", "kubernetes")
"""Every value of ``runtime``."""


def backend_for(
    runtime: str, *, log_limit_bytes: int, kill_grace_seconds: float, pod: PodOptions, mlflow_conn_id: str
) -> WorkloadBackend:
    """Return a new backend for one task try.

    :param runtime: one of :data:`RUNTIMES`.
    :param log_limit_bytes: bytes of a local workload's output that are copied into the log, at most.
    :param kill_grace_seconds: seconds between asking a local workload to end and killing it.
    :param pod: how pods look and where they run.
    :param mlflow_conn_id: connection that closes the run of a pod whose task a person ends.
    :raises InvalidArgumentError: when the runtime is unknown, or a limit is not usable.
    """
    if runtime == "local":
        return LocalBackend(
            log_limit_bytes=log_limit_bytes, kill_grace_seconds=kill_grace_seconds, alone=group_of_one(pod)
        )
    if runtime == "kubernetes":
        return KubernetesBackend(pod, mlflow_conn_id=mlflow_conn_id)
    allowed = ", ".join(repr(name) for name in RUNTIMES)
    raise InvalidArgumentError(f"runtime={runtime!r} is unknown; allowed: {allowed}. Nothing was started.")
