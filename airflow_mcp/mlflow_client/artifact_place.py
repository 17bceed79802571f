"""Where the artifacts of a run are, for whoever stores one."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import InvalidArgumentError


def proxy_root(run: Run, path: str) -> str:
    """Return the folder of a run's artifacts below the artifact proxy.

    :param run: the run.
    :param path: artifact that is to be stored, for the message.
    :raises InvalidArgumentError: when only a client with storage credentials can write there.
    """
    root = urlsplit(run.artifact_uri)
    if root.scheme != "mlflow-artifacts" or root.netloc:
        raise InvalidArgumentError(
            f"artifact {path!r} of run {run.run_id!r} cannot be uploaded: the run's artifact URI is "
            f"{run.artifact_uri!r}, not 'mlflow-artifacts:/...'. Start the MLflow server with --serve-artifacts and "
            "--artifacts-destination, without --default-artifact-root, and use a new experiment. Nothing was stored"
        )
    return root.path.strip("/")
