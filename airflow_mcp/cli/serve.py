"""``airflow-mcp serve``: serves a model over HTTP."""

from __future__ import annotations

import argparse
import os

from airflow_mcp.core.serving.settings import read_settings
from airflow_mcp.exceptions import InvalidArgumentError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the models and the settings that are most often given by hand."""
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="models:/NAME, models:/NAME@champion, models:/NAME/NUMBER, or the path of a folder; default: MODEL_URI",
    )
    command.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")
    command.add_argument("--host", help="address to listen on; default: 0.0.0.0")
    command.add_argument("--port", type=int, help="port; default: 8000, and 0 takes any free one")
    command.add_argument("--processes", type=int, help="model processes per version; default: 1")


def run(parsed: argparse.Namespace) -> int:
    """Serve until a signal ends the process.

    :raises InvalidArgumentError: when a setting is wrong, or the extra ``serving`` is not installed.
    """
    if parsed.tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = parsed.tracking_uri
    settings = read_settings(
        os.environ,
        models=",".join(parsed.models) or None,
        host=parsed.host,
        port=parsed.port,
        processes=parsed.processes,
    )
    try:
        from airflow_mcp.serving.__main__ import run as serve  # noqa: PLC0415  (only here, for the extra)
        from airflow_mcp.serving.json_log import log_as_json  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(
            f"the model server needs {error.name}, which is not installed: pip install 'airflow-mcp[serving]'"
        ) from None
    log_as_json()
    serve(settings)
    return 0
