"""The contract between the two planes: environment variables in, an MLflow run out, and nothing else.

The names here are public. They appear in users' training scripts, in MLflow and in pods, so none is ever renamed.
"""

from __future__ import annotations

# --- environment of a workload -------------------------------------------------------------------------------
ENV_TRACKING_URI = "MLFLOW_TRACKING_URI"
"""URL of the MLflow server; MLflow reads it by itself."""
ENV_MLFLOW_RUN_ID = "MLFLOW_RUN_ID"
"""The MLflow run to log into; ``mlflow.start_run()`` and autologging continue it by themselves."""
ENV_MLFLOW_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
"""The experiment of that run."""
ENV_RUN_ID = "AIRFLOW_MCP_RUN_ID"
"""The same run id, for scripts that use ``MlflowClient`` or another language."""
ENV_IDENTITY = "AIRFLOW_MCP_IDENTITY"
"""Name of this piece of work, the same on every retry of the same task with the same inputs."""
ENV_CONFIG_PATH = "AIRFLOW_MCP_CONFIG_PATH"
"""Path of the config file (YAML or JSON, as it was given)."""
ENV_SCRIPT_PATH = "AIRFLOW_MCP_SCRIPT_PATH"
"""Path of the training script, when it travels with the workload."""
ENV_DATA_PATH = "AIRFLOW_MCP_DATA_PATH"
"""Path or URI of the pinned dataset."""
ENV_DATA_VERSION = "AIRFLOW_MCP_DATA_VERSION"
"""Version label of the pinned dataset."""
ENV_DATA_HASH = "AIRFLOW_MCP_DATA_HASH"
"""Hash of the pinned dataset, ``sha256:<hex>``; absent when it was not known before the work started."""
ENV_CHECKPOINT_URI = "AIRFLOW_MCP_CHECKPOINT_URI"
"""Where a training keeps its checkpoints: the same place on every retry of the same work, empty before the first."""
ENV_REQUEST_PATH = "AIRFLOW_MCP_REQUEST_PATH"
"""Path of the JSON request of the built-in steps (evaluate, drift)."""

# --- exit codes of a built-in step ----------------------------------------------------------------------------
EXIT_REFUSED = 2
"""``evaluate`` or ``drift`` refused its input and would refuse it again; ``train`` passes on its script's own code."""

# --- tags on MLflow runs and model versions -------------------------------------------------------------------
TAG_PREFIX = "airflow_mcp."
TAG_KIND = "airflow_mcp.kind"
TAG_IDENTITY = "airflow_mcp.identity"
TAG_INPUTS = "airflow_mcp.inputs"
TAG_MODEL_NAME = "airflow_mcp.model_name"
TAG_DAG_ID = "airflow_mcp.dag_id"
TAG_DAG_RUN_ID = "airflow_mcp.dag_run_id"
TAG_TASK_ID = "airflow_mcp.task_id"
TAG_TRY_NUMBER = "airflow_mcp.try_number"
TAG_CODE_COMMIT = "airflow_mcp.code_commit"
TAG_CODE_HASH = "airflow_mcp.code_hash"
TAG_CONFIG_HASH = "airflow_mcp.config_hash"
TAG_DATA_URI = "airflow_mcp.data_uri"
TAG_DATA_VERSION = "airflow_mcp.data_version"
TAG_DATA_HASH = "airflow_mcp.data_hash"
TAG_IMAGE = "airflow_mcp.image"
TAG_REASON = "airflow_mcp.reason"
TAG_ERROR = "airflow_mcp.error"
TAG_SUPERSEDED_BY = "airflow_mcp.superseded_by"
TAG_GATE_VERDICT = "airflow_mcp.gate_verdict"
TAG_DRIFT_VERDICT = "airflow_mcp.drift_verdict"
TAG_MODEL_VERSION = "airflow_mcp.model_version"
TAG_ROLLED_BACK = "airflow_mcp.rolled_back"
TAG_LAST_MOVE = "airflow_mcp.last_move"
TAG_MOVE_PREFIX = "airflow_mcp.move."
TAG_CLAIM_PREFIX = "airflow_mcp.claim."

KIND_TRAINING = "training"
KIND_DRIFT_CHECK = "drift_check"

# --- artifacts of an MLflow run -------------------------------------------------------------------------------
ARTIFACT_CONFIG_DIR = "config"
ARTIFACT_EVIDENCE = "evaluation/evidence.json"
ARTIFACT_PREDICTIONS = "evaluation/predictions.parquet"
ARTIFACT_SLICES = "evaluation/slices.json"
ARTIFACT_GATE_REPORT_JSON = "gate/report.json"
ARTIFACT_GATE_REPORT_HTML = "gate/report.html"
ARTIFACT_DRIFT_SUMMARY = "drift/summary.json"
ARTIFACT_DRIFT_REPORT_JSON = "drift/report.json"
ARTIFACT_DRIFT_REPORT_HTML = "drift/report.html"

# --- aliases of a registered model ----------------------------------------------------------------------------
ALIAS_CHAMPION = "champion"
ALIAS_PREVIOUS_CHAMPION = "previous_champion"
