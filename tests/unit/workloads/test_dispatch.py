"""From the name of a runtime to its backend."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.pod import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.dispatch import RUNTIMES, backend_for
from airflow_mcp.workloads.kubernetes import KubernetesBackend
from airflow_mcp.workloads.local import LocalBackend


def backend(runtime: str, **limits: Any) -> WorkloadBackend:
    given = {"log_limit_bytes": 1, "kill_grace_seconds": 1, **limits}
    return backend_for(runtime, pod=PodOptions(), mlflow_conn_id="mlflow_default", **given)


def test_every_listed_runtime_has_its_backend() -> None:
    assert {runtime: type(backend(runtime)) for runtime in RUNTIMES} == {
        "local": LocalBackend,
        "kubernetes": KubernetesBackend,
    }


def test_each_try_gets_a_backend_of_its_own() -> None:
    assert backend("kubernetes") is not backend("kubernetes")


def test_an_unknown_runtime_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"runtime='docker' is unknown; allowed: 'local', 'kubernetes'"):
        backend("docker")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_limit_that_is_no_usable_number_is_refused(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="kill_grace_seconds="):
        backend("local", kill_grace_seconds=value)
    with pytest.raises(InvalidArgumentError, match="log_limit_bytes="):
        backend("local", log_limit_bytes=value)
