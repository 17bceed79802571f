"""The options of the ``[airflow_mcp]`` section, read when they are used and never at import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml
from airflow.sdk import conf

from airflow_mcp.exceptions import InvalidArgumentError

SECTION = "airflow_mcp"
Runtime = Literal["local", "kubernetes"]
DEFAULT_RUNTIME: Runtime = "local"
Environment = Literal["dev", "test", "prod"]
DEFAULT_ENVIRONMENT: Environment = "dev"
ENFORCE = "enforce"
UntaggedModels = Literal["authenticated", "nobody"]
DEFAULT_UNTAGGED_MODELS: UntaggedModels = "authenticated"
DEFAULT_ACTION_DAGS = {
    "rollback": "rollback_model",
    "promote": "promote_model",
    "rollout": "steer_rollout",
    "stage": "set_model_stage",
    "publish": "publish_model",
}
DEFAULT_MLFLOW_CONN_ID = "mlflow_default"
DEFAULT_WORKLOAD_LOG_LIMIT_MIB = 16
DEFAULT_KILL_GRACE_SECONDS = 10
DEFAULT_MAX_UPLOAD_MIB = 2048


def default_runtime() -> Runtime:
    """Return the default of the argument ``runtime`` of operators: option ``runtime``.

    :raises InvalidArgumentError: for a value that is neither ``local`` nor ``kubernetes``.
    """
    value = _text("runtime", DEFAULT_RUNTIME)
    if value not in get_args(Runtime):
        raise _invalid("runtime", value, f"one of {', '.join(get_args(Runtime))}")
    return cast(Runtime, value)


def environment() -> Environment:
    """Return the default environment of pipelines: option ``environment``.

    :raises InvalidArgumentError: for a value other than ``dev``, ``test`` and ``prod``.
    """
    value = _text("environment", DEFAULT_ENVIRONMENT)
    if value not in get_args(Environment):
        raise _invalid("environment", value, f"one of {', '.join(get_args(Environment))}")
    return cast(Environment, value)


def default_mlflow_conn_id() -> str:
    """Return the default connection to MLflow: option ``mlflow_conn_id``."""
    return _text("mlflow_conn_id", DEFAULT_MLFLOW_CONN_ID)


def audit_conn_id() -> str:
    """Return the connection to the audit log: option ``audit_conn_id``; empty when moves are not recorded in one."""
    return _text("audit_conn_id", "")


def signing_conn_id() -> str:
    """Return the connection to the key that signs passports: option ``signing_conn_id``; empty: none are issued."""
    return _text("signing_conn_id", "")


def git_conn_id() -> str:
    """Return the connection for the Git repositories of releases: option ``git_conn_id``; empty when they need none."""
    return _text("git_conn_id", "")


def airflow_api_conn_id() -> str:
    """Return the connection to Airflow's own REST API: option ``airflow_api_conn_id``; empty when there is none."""
    return _text("airflow_api_conn_id", "")


def governance_off() -> str:
    """Return why no policy is enforced: option ``governance``, ``off: <reason>``; empty when it is enforced.

    :raises InvalidArgumentError: for a value that is neither ``enforce`` nor ``off`` with a reason.
    """
    value = _text("governance", ENFORCE)
    switch, _, reason = value.partition(":")
    if value != ENFORCE and (switch.strip() != "off" or not reason.strip()):
        raise _invalid("governance", value, f"{ENFORCE} or off: <reason>")
    return reason.strip()


def rollback_without_audit() -> bool:
    """Return whether a rollback goes on while the audit log is down: option ``rollback_without_audit``.

    :raises InvalidArgumentError: for a value that is neither ``true`` nor ``false``.
    """
    value = _text("rollback_without_audit", "true")
    if value.lower() not in ("true", "false"):
        raise _invalid("rollback_without_audit", value, "true or false")
    return value.lower() == "true"


def workload_log_limit_bytes() -> int:
    """Return how much of a workload's output is copied to the task log, in bytes: option ``workload_log_limit_mib``.

    :raises InvalidArgumentError: for anything but a whole number from 1 to 1024.
    """
    return _whole("workload_log_limit_mib", DEFAULT_WORKLOAD_LOG_LIMIT_MIB, 1, 1024) * 1024 * 1024


def kill_grace_seconds() -> int:
    """Return the seconds between SIGTERM and SIGKILL for a local workload: option ``kill_grace_seconds``.

    :raises InvalidArgumentError: for anything but a whole number from 0 to 3600.
    """
    return _whole("kill_grace_seconds", DEFAULT_KILL_GRACE_SECONDS, 0, 3600)


def workload_python() -> str:
    """Return the interpreter of local workloads: option ``python``; empty for that of Airflow.

    :raises InvalidArgumentError: when it is not the absolute path of an executable file.
    """
    path = _text("python", "")
    if path and not (Path(path).is_absolute() and os.access(path, os.X_OK) and Path(path).is_file()):
        raise _invalid("python", path, "the absolute path of an interpreter, for example /opt/models/bin/python")
    return path


def kubernetes_defaults() -> dict[str, Any]:
    """Return the defaults of pod options: the YAML file that option ``kubernetes_defaults`` names, empty without one.

    :raises InvalidArgumentError: when the file cannot be read or is not a mapping.
    """
    path = _text("kubernetes_defaults", "")
    if not path:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _invalid("kubernetes_defaults", path, "the path of a readable YAML file", f". {error}") from None
    if not isinstance(values, dict):
        raise _invalid("kubernetes_defaults", path, "the path of a YAML file that holds a mapping of pod options")
    return values


def untagged_models() -> UntaggedModels:
    """Return who sees models that name no Dag: option ``untagged_models``.

    :raises InvalidArgumentError: for a value other than ``authenticated`` and ``nobody``.
    """
    value = _text("untagged_models", DEFAULT_UNTAGGED_MODELS)
    if value not in get_args(UntaggedModels):
        raise _invalid("untagged_models", value, f"one of {', '.join(get_args(UntaggedModels))}")
    return cast(UntaggedModels, value)


def action_dags() -> dict[str, str]:
    """Return the Dags behind the page's actions: options ``rollback_dag``, ``promote_dag`` and ``rollout_dag``."""
    return {name: _text(f"{name}_dag", default) for name, default in DEFAULT_ACTION_DAGS.items()}


def publisher_max_upload_bytes() -> int:
    """Return the size of the largest model that can be uploaded, in bytes: option ``publisher_max_upload_mib``.

    :raises InvalidArgumentError: for anything but a whole number from 1 to 1048576.
    """
    return _whole("publisher_max_upload_mib", DEFAULT_MAX_UPLOAD_MIB, 1, 1 << 20) * 1024 * 1024


def metrics_token() -> str:
    """Return the bearer token of ``GET /mcp/metrics``: option ``metrics_token``; empty when there are no metrics."""
    return _text("metrics_token", "")


def _text(option: str, default: str) -> str:
    value = conf.get(SECTION, option, fallback=default)
    return str(value).strip() if value is not None and str(value).strip() else default


def _whole(option: str, default: int, low: int, high: int) -> int:
    value = _text(option, str(default))
    allowed = f"a whole number from {low} to {high}"
    try:
        number = int(value)
    except ValueError:
        raise _invalid(option, value, allowed) from None
    if not low <= number <= high:
        raise _invalid(option, value, allowed)
    return number


def _invalid(option: str, value: str, allowed: str, more: str = "") -> InvalidArgumentError:
    return InvalidArgumentError(f"configuration [{SECTION}] {option} must be {allowed}; got {value!r}{more}")
