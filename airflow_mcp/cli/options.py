"""Options that several commands have: which MLflow and which cluster they ask."""

from __future__ import annotations

import argparse
import os

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.mlflow_client.settings import MlflowSettings


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Add what says which cluster and namespace, for ``diagnosis.cluster.connect``."""
    command.add_argument("--namespace", default="", help="default: that of the context, or of this pod")
    command.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")


def add_tracking_uri(command: argparse.ArgumentParser) -> None:
    """Add what says which MLflow, for ``mlflow_settings``."""
    command.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")


def mlflow_settings(tracking_uri: str) -> MlflowSettings:
    """Read address and credentials the way MLflow's own tools do.

    :param tracking_uri: value of ``--tracking-uri``; empty takes ``MLFLOW_TRACKING_URI``.
    :raises InvalidArgumentError: when that is no HTTP address.
    """
    url = (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"--tracking-uri is {url!r}; allowed: the http:// or https:// address of an MLflow server, here or in "
            "MLFLOW_TRACKING_URI"
        )
    return MlflowSettings(
        "command line",
        url,
        url,
        retries=1,
        username=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
        or os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() != "true",
    )
