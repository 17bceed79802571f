"""From the name of a runtime to its backend."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from airflow_mcp.core.workload.definition import Workload
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.dispatch import RUNTIMES, backend_for
from airflow_mcp.workloads.kubernetes import KubernetesBackend
from airflow_mcp.workloads.local import LocalBackend


def backend(runtime: str, **limits: Any) -> WorkloadBackend:
    given = {"log_limit_bytes": 10**6, "kill_grace_seconds": 1, "pod": PodOptions(), **limits}
    return backend_for(runtime, mlflow_conn_id="mlflow_default", **given)


def test_every_listed_runtime_has_its_backend() -> None:
    assert {runtime: type(backend(runtime)) for runtime in RUNTIMES} == {
        "local": LocalBackend,
        "kubernetes": KubernetesBackend,
    }


def test_each_try_gets_a_backend_of_its_own() -> None:
    assert backend("kubernetes") is not backend("kubernetes")


class Lines(list[str]):
    """A log that keeps what it is given."""

    def info(self, msg: str, /, *args: object) -> None:
        self.append(msg % args)

    warning = info


@pytest.mark.parametrize(("is_replicable", "rank"), [(True, "0 of 1"), (False, "None of None")])
def test_the_local_runtime_runs_one_replica_and_says_so(is_replicable: bool, rank: str) -> None:
    code = "import os; print('rank', os.environ.get('RANK'), 'of', os.environ.get('WORLD_SIZE'))"
    workload = Workload("train", (sys.executable, "-c", code), is_replicable=is_replicable)
    log = Lines()
    backend("local", pod=PodOptions(replicas=4)).run(workload, log=log)
    assert f"rank {rank}" in log
    assert any("runs alone, as rank 0 of 1" in line for line in log) is is_replicable


def test_an_unknown_runtime_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidArgumentError, match="runtime must be one of local, kubernetes; got 'docker'"):
        backend("docker")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_limit_that_is_no_usable_number_is_refused(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="kill_grace_seconds must be a number that is 0 or more; got"):
        backend("local", kill_grace_seconds=value)
    with pytest.raises(InvalidArgumentError, match="log_limit_bytes must be a number that is 0 or more; got"):
        backend("local", log_limit_bytes=value)
