"""The [airflow_mcp] options: defaults, values, refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp import settings
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.get_provider_info import get_provider_info


def test_defaults_are_those_of_the_provider_metadata() -> None:
    options = get_provider_info()["config"]["airflow_mcp"]["options"]
    assert {name: option["default"] for name, option in options.items()} == {
        "runtime": settings.default_runtime(),
        "environment": settings.environment(),
        "python": settings.workload_python(),
        "mlflow_conn_id": settings.default_mlflow_conn_id(),
        "audit_conn_id": settings.audit_conn_id(),
        "airflow_api_conn_id": settings.airflow_api_conn_id(),
        "signing_conn_id": settings.signing_conn_id(),
        "git_conn_id": settings.git_conn_id(),
        "governance": settings.governance_off() or "enforce",
        "rollback_without_audit": str(settings.rollback_without_audit()).lower(),
        "workload_log_limit_mib": str(settings.workload_log_limit_bytes() // 1024**2),
        "publisher_max_upload_mib": str(settings.publisher_max_upload_bytes() // 1024**2),
        "kill_grace_seconds": str(settings.kill_grace_seconds()),
        "kubernetes_defaults": "",
        "metrics_token": settings.metrics_token(),
        **{f"{action}_dag": dag for action, dag in settings.action_dags().items()},
        "untagged_models": settings.untagged_models(),
    }


def test_values_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__RUNTIME", "kubernetes")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ENVIRONMENT", "prod")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__MLFLOW_CONN_ID", "other")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__WORKLOAD_LOG_LIMIT_MIB", "2")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KILL_GRACE_SECONDS", "0")
    assert settings.default_runtime() == "kubernetes"
    assert settings.environment() == "prod"
    assert settings.default_mlflow_conn_id() == "other"
    assert settings.workload_log_limit_bytes() == 2 * 1024**2
    assert settings.kill_grace_seconds() == 0


def test_the_interpreter_of_workloads_is_an_absolute_path_of_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__PYTHON", sys.executable)
    assert settings.workload_python() == sys.executable
    for wrong in ("python", "/no/such/python", str(tmp_path)):
        monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__PYTHON", wrong)
        with pytest.raises(InvalidArgumentError, match=r"\[airflow_mcp\] python must be the absolute path .*; got"):
            settings.workload_python()


def test_without_a_file_there_are_no_defaults_of_pods() -> None:
    assert settings.kubernetes_defaults() == {}


def test_the_defaults_of_pods_are_read_from_the_file_that_the_option_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pods.yaml"
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KUBERNETES_DEFAULTS", str(file))
    file.write_text("namespace: ml\nnode_selector: {disk: fast}\n")
    assert settings.kubernetes_defaults() == {"namespace": "ml", "node_selector": {"disk": "fast"}}


@pytest.mark.parametrize("content", [None, "- a\n- b\n", "", "a: [", "\x80"])
def test_a_file_that_holds_no_options_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "pods.yaml"
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KUBERNETES_DEFAULTS", str(file))
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        InvalidArgumentError, match=r"\[airflow_mcp\] kubernetes_defaults must be .*; got '.*pods\.yaml'"
    ):
        settings.kubernetes_defaults()


@pytest.mark.parametrize(
    ("option", "value", "read"),
    [
        ("runtime", "docker", settings.default_runtime),
        ("environment", "staging", settings.environment),
        ("workload_log_limit_mib", "0", settings.workload_log_limit_bytes),
        ("workload_log_limit_mib", "much", settings.workload_log_limit_bytes),
        ("publisher_max_upload_mib", "0", settings.publisher_max_upload_bytes),
        ("publisher_max_upload_mib", "2 GiB", settings.publisher_max_upload_bytes),
        ("kill_grace_seconds", "-1", settings.kill_grace_seconds),
        ("kill_grace_seconds", "1.5", settings.kill_grace_seconds),
    ],
)
def test_a_bad_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, read: Callable[[], object]
) -> None:
    monkeypatch.setenv(f"AIRFLOW__AIRFLOW_MCP__{option.upper()}", value)
    with pytest.raises(InvalidArgumentError, match=rf"\[airflow_mcp\] {option} must be .*; got '{value}'"):
        read()
