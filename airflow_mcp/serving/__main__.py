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

from airflow_mcp.core.serving.control_settings import ControlSettings, read_control_settings
from airflow_mcp.core.serving.own_memory import close_to_same_user
from airflow_mcp.core.serving.settings import PREFIX, ServingSettings, read_settings
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.mlflow_client.settings import MlflowSettings, settings_from_environment
from airflow_mcp.serving.access_log import AccessLog
from airflow_mcp.serving.app import create_app
from airflow_mcp.serving.control import Control, Policies, read_policies
from airflow_mcp.serving.folders import serve_folders
from airflow_mcp.serving.json_log import log_as_json
from airflow_mcp.serving.log_store import check_log_uri
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.orphans import keep_reaping
from airflow_mcp.serving.pool import ModelPool
from airflow_mcp.serving.process_pool import ProcessPool
from airflow_mcp.serving.request_spans import make_request_spans
from airflow_mcp.serving.server import create_server
from airflow_mcp.serving.upstream_pool import TAG_UPSTREAM, UpstreamPool

TAG_BATCH = "airflow_mcp.batch"
"""On a version: ``always`` or ``never`` share batches, whatever the server finds out."""
_log = logging.getLogger("airflow_mcp.serving")


def main() -> int:
    """Serve until a signal ends the process.

    :return: the exit code: 0 after SIGTERM, 2 when a setting is wrong.
    """
    log_as_json()
    try:
        run(read_settings(os.environ))
    except InvalidArgumentError as error:
        _log.error("%s", error)
        return 2
    return 0


def run(settings: ServingSettings) -> None:
    """Serve until a signal ends the process.

    :raises InvalidArgumentError: when no model is named, or a setting is wrong.
    """
    if not settings.models:
        raise InvalidArgumentError(
            "there is no model to serve: set MODEL_URI, for example to models:/fraud@champion. Nothing was started"
        )
    control = read_control_settings(os.environ, PREFIX)
    check_log_uri(control.log_uri)
    follows = any(not address.path for address in settings.models)
    registry = settings_from_environment(os.environ) if follows else None
    close_to_same_user()  # before the first model is started
    uvloop.run(_serve(settings, control, read_policies(control.policies), registry))


async def _serve(
    settings: ServingSettings, control: ControlSettings, policies: Policies, registry: MlflowSettings | None
) -> None:
    def make_pool(key: ServedVersion, path: Path, tags: Mapping[str, str]) -> ModelPool:
        if address := tags.get(TAG_UPSTREAM):
            return UpstreamPool(str(key), address, settings)
        pool = ProcessPool(str(key), path, settings, tags.get(TAG_BATCH, ""))
        pool.on_batch = metrics.batch_observer(key)
        return pool

    models = ServedModels(make_pool)
    metrics = Metrics(models)
    access_log, spans = AccessLog() if settings.access_log else None, make_request_spans()
    sinks = [sink for sink in (access_log, spans) if sink is not None]
    parts = Control(settings, control, policies, models, registry)
    app = create_app(
        settings,
        models,
        metrics,
        observers=[*parts.observers, *(sink.record for sink in sinks)],
        admission=parts.access,
        hook=parts.webhook.answer if parts.webhook is not None else None,
    )
    parts.join(app, metrics)
    server = create_server(settings, app)
    work = (serve_folders(models, settings.models), parts.run(), keep_reaping())
    beside = [asyncio.create_task(each) for each in work]
    gc.collect()
    gc.freeze()  # what was imported stays, so no collection needs to look at it again
    try:
        await server.serve()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await models.stop()
        for sink in sinks:
            sink.close()


if __name__ == "__main__":
    sys.exit(main())
