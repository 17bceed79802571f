"""Models that are served from folders of this machine: for trying a model out, and for images that hold one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from airflow_mcp.core.serving.settings import ModelAddress
from airflow_mcp.core.serving.traffic import TrafficPlan
from airflow_mcp.core.serving.versions import ServedVersion, retry_at
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelPool, PoolStartError

FOLDER_VERSION = "local"
"""The version that answers name for a folder, which has no number in a registry."""
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


async def serve_folders(models: ServedModels, addresses: Sequence[ModelAddress]) -> None:
    """Keep the models of folders loaded until cancelled.

    :param models: where they are loaded.
    :param addresses: those with a path; others are left to the follower of the registry.
    """
    await asyncio.gather(*(_serve_folder(models, address) for address in addresses if address.path))


async def _serve_folder(models: ServedModels, address: ModelAddress) -> None:
    key = ServedVersion(address.name, FOLDER_VERSION)
    models.reasons[address.name] = f"{address.name} is being loaded"
    models.assign(address.name, TrafficPlan(champion=key))
    failures = 0
    while True:
        try:
            pool = await models.load(key, Path(address.path))
        except PoolStartError as error:
            failures += 1
            models.reasons[address.name] = f"{address.name} did not load: {error}"
            _log.error("%s did not load: %s", address.name, error)
        else:
            failures = 0
            models.reasons.pop(address.name, None)
            _log.info("%s answers after %.1f s", address.name, pool.report.seconds)
            models.reasons[address.name] = await _until_it_fails(pool)
            await models.retire(key)
            failures += 1
        await asyncio.sleep(retry_at(failures, 0.0))


async def _until_it_fails(pool: ModelPool) -> str:
    while not pool.failure:  # noqa: ASYNC110  (a look once a second is all that this needs)
        await asyncio.sleep(_LOOK_SECONDS)
    return pool.failure
