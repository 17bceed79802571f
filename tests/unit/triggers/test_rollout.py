"""How long a rollout waits after a failure, while the new version is answering."""

from __future__ import annotations

import pytest

from airflow_mcp.triggers.rollout import longest_wait


@pytest.mark.parametrize(("failures", "poll_seconds", "seconds"), [(1, 15, 15), (3, 15, 45), (9, 15, 60), (2, 600, 60)])
def test_a_failure_is_repeated_soon(failures: int, poll_seconds: float, seconds: float) -> None:
    assert longest_wait(failures, poll_seconds) == seconds
