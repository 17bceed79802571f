"""From the name of a runtime to its backend."""

from __future__ import annotations

import pytest

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.dispatch import RUNTIMES, backend_for
from airflow_mcp.workloads.local import LocalBackend


def test_every_listed_runtime_has_a_backend() -> None:
    for runtime in RUNTIMES:
        assert backend_for(runtime, log_limit_bytes=1, kill_grace_seconds=1)


def test_local_is_the_backend_that_runs_child_processes() -> None:
    assert isinstance(backend_for("local", log_limit_bytes=1, kill_grace_seconds=1), LocalBackend)


def test_an_unknown_runtime_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"runtime='docker' is unknown; allowed: 'local'"):
        backend_for("docker", log_limit_bytes=1, kill_grace_seconds=1)


def test_kubernetes_is_refused_and_the_message_says_what_to_use() -> None:
    with pytest.raises(InvalidArgumentError, match=r"not available in this version; use runtime='local'"):
        backend_for("kubernetes", log_limit_bytes=1, kill_grace_seconds=1)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_limit_that_is_no_usable_number_is_refused(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="kill_grace_seconds="):
        backend_for("local", log_limit_bytes=1, kill_grace_seconds=value)
    with pytest.raises(InvalidArgumentError, match="log_limit_bytes="):
        backend_for("local", log_limit_bytes=value, kill_grace_seconds=1)  # type: ignore[arg-type]
