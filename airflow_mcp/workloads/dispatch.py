"""From the name of a runtime to its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.local import LocalBackend

if TYPE_CHECKING:
    from airflow_mcp.workloads.base import WorkloadBackend

RUNTIMES: tuple[str, ...] = ("local",)
"""Every value of ``runtime`` that this version can run."""


def backend_for(runtime: str, *, log_limit_bytes: int, kill_grace_seconds: float) -> WorkloadBackend:
    """Return a new backend for one task try.

    :param runtime: one of :data:`RUNTIMES`.
    :param log_limit_bytes: bytes of a workload's output that are copied into the log, at most.
    :param kill_grace_seconds: seconds between asking a workload to end and killing it.
    :raises InvalidArgumentError: when the runtime is unknown or not available, or a limit is not usable.
    """
    if runtime == "local":
        return LocalBackend(log_limit_bytes=log_limit_bytes, kill_grace_seconds=kill_grace_seconds)
    if runtime == "kubernetes":
        raise InvalidArgumentError(
            "runtime='kubernetes' is not available in this version; use runtime='local'. Nothing was started."
        )
    allowed = ", ".join(repr(name) for name in RUNTIMES)
    raise InvalidArgumentError(f"runtime={runtime!r} is unknown; allowed: {allowed}. Nothing was started.")
