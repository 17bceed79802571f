"""``python -m airflow_mcp.serving``: serve the models that the environment names; see ``airflow-mcp serve``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import uvloop

from airflow_mcp.core.serving.settings import ServingSettings, read_settings
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.serving.access_log import AccessLog
from airflow_mcp.serving.app import create_app
from airflow_mcp.serving.folders import serve_folders
from airflow_mcp.serving.json_log import log_as_json
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelPool
from airflow_mcp.serving.process_pool import ProcessPool
from airflow_mcp.serving.server import create_server

TAG_BATCH = "airflow_mcp.batch"
"""On a version: ``always`` or ``never`` share batches, whatever the server finds out."""
_log = logging.getLogger("airflow_mcp.serving")


def main() -> int:
    """Serve until a signal ends the process.

    :return: the exit code: 0 after SIGTERM, 2 when a setting is wrong.
    """
    log_as_json()
    try:
        settings = read_settings(os.environ)
        run(settings)
    except InvalidArgumentError as error:
        _log.error("%s", error)
        return 2
    return 0


def run(settings: ServingSettings) -> None:
    """Serve until a signal ends the process.

    :raises InvalidArgumentError: when no model is named.
    """
    if not settings.models:
        raise InvalidArgumentError(
            "there is no model to serve: set MODEL_URI, for example to models:/fraud@champion. Nothing was started"
        )
    uvloop.run(_serve(settings))


async def _serve(settings: ServingSettings) -> None:
    def make_pool(key: ServedVersion, path: Path, tags: Mapping[str, str]) -> ModelPool:
        pool = ProcessPool(str(key), path, settings, tags.get(TAG_BATCH, ""))
        pool.on_batch = metrics.batch_observer(key)
        return pool

    models = ServedModels(make_pool)
    metrics = Metrics(models)
    access_log = AccessLog() if settings.access_log else None
    app = create_app(settings, models, metrics, observers=[] if access_log is None else [access_log.record])
    server = create_server(settings, app)
    folders = asyncio.create_task(serve_folders(models, settings.models))
    gc.collect()
    gc.freeze()  # what was imported stays, so no collection needs to look at it again
    try:
        await server.serve()
    finally:
        folders.cancel()
        await models.stop()
        if access_log is not None:
            access_log.close()


if __name__ == "__main__":
    sys.exit(main())
