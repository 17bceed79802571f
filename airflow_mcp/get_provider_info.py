"""Metadata of this package for Airflow's provider manager."""

from __future__ import annotations

from typing import Any

_OPERATORS = (
    "pipeline",
    "dataset",
    "training",
    "evaluation",
    "replay",
    "select",
    "gate",
    "gate_approval",
    "approval",
    "load_check",
    "passport",
    "registry",
    "rehearsal",
    "rollout",
    "steer_rollout",
    "model_server",
    "stages",
    "copy",
    "publish",
    "drift",
    "quality",
    "features",
    "retrain",
    "step",
    "maintenance",
    "audit",
)
_SENSORS = ("registry", "dataset", "drift", "release", "serving")
_TRIGGERS = (
    "git",
    "data",
    "registry",
    "drift",
    "model",
    "model_server",
    "pod",
    "release",
    "replicas",
    "rollout",
    "serving",
    "target",
)
_HOOKS = ("mlflow", "git", "audit", "signing", "airflow_people", "serving", "prometheus")


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider.yaml.schema.json``."""
    integration = "Model Control Plane"
    return {
        "package-name": "airflow-mcp",
        "name": "Model Control Plane",
        "description": "Train, judge, register, promote, watch and retrain models, with MLflow as the record.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": [f"airflow_mcp.operators.{name}" for name in _OPERATORS],
            }
        ],
        "sensors": [
            {
                "integration-name": integration,
                "python-modules": [f"airflow_mcp.sensors.{name}" for name in _SENSORS],
            }
        ],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": [f"airflow_mcp.hooks.{name}" for name in _HOOKS],
            }
        ],
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": [f"airflow_mcp.triggers.{name}" for name in _TRIGGERS],
            }
        ],
        "notifications": ["airflow_mcp.notifications.webhook.WebhookNotifier"],
        "connection-types": [connection() for connection in _CONNECTIONS],
        "extra-links": [
            "airflow_mcp.links.mlflow.MlflowRunLink",
            "airflow_mcp.links.mlflow.MlflowModelVersionLink",
            "airflow_mcp.links.mlflow.GateReportLink",
        ],
        "config": {"airflow_mcp": _config_section()},
    }


def _mlflow_connection() -> dict[str, Any]:
    return {
        "connection-type": "mlflow",
        "hook-class-name": "airflow_mcp.hooks.mlflow.MlflowHook",
        "hook-name": "MLflow",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {"host": "Server URL or host", "schema": "Schema (http or https)"},
            "placeholders": {"host": "https://mlflow.example.com", "schema": "http", "port": "5000"},
        },
        "conn-fields": _mlflow_extras(),
    }


def _audit_connection() -> dict[str, Any]:
    return {
        "connection-type": "audit_log",
        "hook-class-name": "airflow_mcp.hooks.audit.AuditLogHook",
        "hook-name": "Audit log",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {"schema": "Database"},
            "placeholders": {"host": "postgresql.example.com", "port": "5432", "login": "mcp_release"},
        },
        "conn-fields": {
            "sslmode": {
                "label": "SSL mode",
                "schema": {"type": ["string", "null"]},
                "description": "As PostgreSQL's client library takes it, for example verify-full.",
            },
            "sslrootcert": {
                "label": "CA certificates",
                "schema": {"type": ["string", "null"]},
                "description": "Path of a PEM file that exists on every worker.",
            },
            "environment": {
                "label": "Environment",
                "schema": {"type": ["string", "null"]},
                "description": "dev, test or prod; empty takes [airflow_mcp] environment.",
            },
            "sqlite_path": {
                "label": "SQLite file",
                "schema": {"type": ["string", "null"]},
                "description": "Absolute path, instead of host and database; refused for prod.",
            },
        },
    }


def _signing_connection() -> dict[str, Any]:
    return {
        "connection-type": "signing_key",
        "hook-class-name": "airflow_mcp.hooks.signing.SigningKeyHook",
        "hook-name": "Signing key",
        "ui-field-behaviour": {
            "hidden-fields": ["extra", "host", "port", "schema", "login"],
            "relabeling": {"password": "Private key (Ed25519, PEM)"},
        },
        "conn-fields": {
            "key_uri": {
                "label": "Key of a KMS",
                "schema": {"type": ["string", "null"]},
                "description": "Such as kms://awskms:alias/models, instead of a private key.",
            },
            "public_key": {
                "label": "Public key of the KMS",
                "schema": {"type": ["string", "null"]},
                "description": "PEM, for a key of a KMS only.",
            },
        },
    }


def _airflow_api_connection() -> dict[str, Any]:
    return {
        "connection-type": "airflow_api",
        "hook-class-name": "airflow_mcp.hooks.airflow_people.AirflowApiHook",
        "hook-name": "Airflow API",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {"host": "URL or host", "schema": "Schema (http or https)", "password": "Password or token"},
            "placeholders": {"host": "https://airflow.example.com", "login": "mcp_reader"},
        },
    }


def _serving_connection() -> dict[str, Any]:
    return {
        "connection-type": "model_server",
        "hook-class-name": "airflow_mcp.hooks.serving.ServingHook",
        "hook-name": "Model server",
        "ui-field-behaviour": {
            "hidden-fields": ["extra", "login", "password"],
            "relabeling": {"host": "Hosts of all replicas", "schema": "Schema (http or https)"},
            "placeholders": {"host": "fraud-headless.ml.svc", "schema": "http", "port": "8000"},
        },
        "conn-fields": {
            "verify": {
                "label": "Verify TLS certificates",
                "schema": {"type": ["boolean", "null"], "default": True},
            },
            "ca_bundle": {
                "label": "CA bundle",
                "schema": {"type": ["string", "null"]},
                "description": "Path of a PEM file that exists on every Airflow component.",
            },
            "timeout": {
                "label": "Timeout of a replica (s)",
                "schema": {"type": ["number", "null"], "default": 5, "minimum": 0.1, "maximum": 60},
            },
        },
    }


def _prometheus_connection() -> dict[str, Any]:
    return {
        "connection-type": "prometheus",
        "hook-class-name": "airflow_mcp.hooks.prometheus.PrometheusHook",
        "hook-name": "Prometheus",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {"host": "URL or host", "schema": "Schema (http or https)"},
            "placeholders": {"host": "http://prometheus.monitoring.svc", "schema": "http", "port": "9090"},
        },
        "conn-fields": {
            "token": {
                "label": "Bearer token",
                "schema": {"type": ["string", "null"], "format": "password"},
                "description": "Used instead of login and password.",
            },
            "verify": {
                "label": "Verify TLS certificates",
                "schema": {"type": ["boolean", "null"], "default": True},
            },
            "ca_bundle": {
                "label": "CA bundle",
                "schema": {"type": ["string", "null"]},
                "description": "Path of a PEM file that exists on every Airflow component.",
            },
            "timeout": {
                "label": "Timeout of a query (s)",
                "schema": {"type": ["number", "null"], "default": 10, "minimum": 0.1, "maximum": 60},
            },
        },
    }


def _mlflow_extras() -> dict[str, Any]:
    return {
        "token": {
            "label": "Bearer token",
            "schema": {"type": ["string", "null"], "format": "password"},
            "description": "Used instead of login and password.",
        },
        "verify": {
            "label": "Verify TLS certificates",
            "schema": {"type": ["boolean", "null"], "default": True},
        },
        "ca_bundle": {
            "label": "CA bundle",
            "schema": {"type": ["string", "null"]},
            "description": "Path of a PEM file that exists on every Airflow component and in workloads.",
        },
        "timeout": {
            "label": "Timeout (s)",
            "schema": {"type": ["number", "null"], "default": 30, "minimum": 0.1, "maximum": 3600},
        },
        "retries": {
            "label": "Retries of one request",
            "schema": {"type": ["integer", "null"], "default": 5, "minimum": 0, "maximum": 20},
        },
        "ui_url": {
            "label": "URL for links",
            "schema": {"type": ["string", "null"], "format": "url"},
            "description": "Address of MLflow for browsers, if it differs from the server URL.",
        },
        "workload_url": {
            "label": "URL for workloads",
            "schema": {"type": ["string", "null"], "format": "url"},
            "description": "Address of MLflow for pods, if it differs from the server URL.",
        },
        "environment": {
            "label": "Environment",
            "schema": {"type": ["string", "null"], "enum": ["dev", "test", "prod", None]},
            "description": "Strictest environment of its models; empty takes [airflow_mcp] environment.",
        },
        "workspace": {
            "label": "Workspace",
            "schema": {"type": ["string", "null"]},
            "description": "Workspace of a server that has them; empty is the server's default.",
        },
    }


_CONNECTIONS = (
    _mlflow_connection,
    _audit_connection,
    _signing_connection,
    _airflow_api_connection,
    _serving_connection,
    _prometheus_connection,
)


def _config_section() -> dict[str, Any]:
    return {
        "description": "Defaults of the Model Control Plane.",
        "options": {
            "runtime": _option(
                "string", "local", "Where workloads of operators without the argument runtime run: local or kubernetes."
            ),
            "environment": _option(
                "string", "dev", "Environment that ModelPipeline files are rendered for: dev, test or prod."
            ),
            "python": _option(
                "string", "", "Interpreter of local workloads without the argument python; empty takes that of Airflow."
            ),
            "mlflow_conn_id": _option(
                "string", "mlflow_default", "Connection to MLflow for operators without the argument mlflow_conn_id."
            ),
            "audit_conn_id": _option(
                "string", "", "Connection of type audit_log that moves are recorded in; empty: not governed."
            ),
            "signing_conn_id": _option(
                "string", "", "Connection of type signing_key that signs passports; empty: none are issued."
            ),
            "git_conn_id": _option("string", "", "Connection for the Git repositories whose release tags prod checks."),
            "airflow_api_conn_id": _option("string", "", "Connection of type airflow_api: who asked, who answered."),
            "governance": _option(
                "string", "enforce", "enforce: the policy in the audit log decides; off: <reason> switches that off."
            ),
            "rollback_without_audit": _option(
                "boolean", "true", "Whether a rollback goes on while the audit log is down; it is recorded later."
            ),
            **_api_server_options(),
            "workload_log_limit_mib": _option(
                "integer", "16", "Output of a workload beyond this many MiB is not copied to the task log."
            ),
            "kubernetes_defaults": _option(
                "string", "", "Path of a YAML file with the default options of pods; see docs/kubernetes.md."
            ),
            "kill_grace_seconds": _option(
                "integer", "10", "Seconds that a local workload has to end after SIGTERM, before SIGKILL."
            ),
        },
    }


def _api_server_options() -> dict[str, Any]:
    """Return the options of the page, the publisher API and the metrics."""
    return {
        "untagged_models": _option(
            "string", "authenticated", "Who sees models that name no Dag on the page: authenticated or nobody."
        ),
        "rollback_dag": _option("string", "rollback_model", "Dag with which the page rolls back."),
        "promote_dag": _option("string", "promote_model", "Dag with which the page promotes."),
        "stage_dag": _option("string", "set_model_stage", "Dag with which the publisher API sets stages."),
        "publish_dag": _option("string", "publish_model", "Dag with which the publisher API registers models."),
        "publisher_max_upload_mib": _option("integer", "2048", "Largest model that can be uploaded; MiB."),
        "rollout_dag": _option("string", "steer_rollout", "Dag with which the page steers rollouts."),
        "metrics_token": {
            **_option("string", "", "Bearer token of GET /mcp/metrics; empty: there are no metrics."),
            "sensitive": True,
        },
    }


def _option(kind: str, default: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
    }
