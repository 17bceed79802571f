"""The oldest MLflow server that this package supports, beside the environment's own MLflow.

``make`` installs its three packages without their dependencies into a folder of the environment. It runs with the
libraries of the environment, and with the MLflow of that folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mcp.core.mlflow_versions import OLDEST_MLFLOW

VERSION = ".".join(map(str, (*OLDEST_MLFLOW, 0)))
FOLDER = Path(sys.prefix) / f"mlflow-{VERSION}"
"""Where ``make`` installs it."""


def on_oldest() -> Mapping[str, Any]:
    """Return the arguments of :class:`~tests.support.services.MlflowServer` that start the oldest MLflow."""
    return {"env": {"PYTHONPATH": str(FOLDER)}}
