"""The [airflow_mcp] options: defaults, values, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_mcp import settings
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.get_provider_info import get_provider_info


def test_defaults_are_those_of_the_provider_metadata() -> None:
    options = get_provider_info()["config"]["airflow_mcp"]["options"]
    assert {name: option["default"] for name, option in options.items()} == {
        "runtime": settings.default_runtime(),
        "mlflow_conn_id": settings.default_mlflow_conn_id(),
        "workload_log_limit_mib": str(settings.workload_log_limit_bytes() // 1024**2),
        "kill_grace_seconds": str(settings.kill_grace_seconds()),
    }


def test_values_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__RUNTIME", "kubernetes")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__MLFLOW_CONN_ID", "other")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__WORKLOAD_LOG_LIMIT_MIB", "2")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KILL_GRACE_SECONDS", "0")
    assert settings.default_runtime() == "kubernetes"
    assert settings.default_mlflow_conn_id() == "other"
    assert settings.workload_log_limit_bytes() == 2 * 1024**2
    assert settings.kill_grace_seconds() == 0


@pytest.mark.parametrize(
    ("option", "value", "read"),
    [
        ("runtime", "docker", settings.default_runtime),
        ("workload_log_limit_mib", "0", settings.workload_log_limit_bytes),
        ("workload_log_limit_mib", "much", settings.workload_log_limit_bytes),
        ("kill_grace_seconds", "-1", settings.kill_grace_seconds),
        ("kill_grace_seconds", "1.5", settings.kill_grace_seconds),
    ],
)
def test_a_bad_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, read: Callable[[], object]
) -> None:
    monkeypatch.setenv(f"AIRFLOW__AIRFLOW_MCP__{option.upper()}", value)
    with pytest.raises(InvalidArgumentError, match=rf"\[airflow_mcp\] {option} is '{value}'; allowed is"):
        read()
