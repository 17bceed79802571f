"""The files of a version: from MLflow's artifact proxy into the cache."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import MlflowError, RefusedError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.mlflow_client.version_files import FileStream, version_files
from airflow_mcp.serving.cache import Cached, ModelCache
from airflow_mcp.serving.looks import key_of
from airflow_mcp.serving.private_folder import size_of

_log = logging.getLogger(__name__)


class DownloadError(Exception):
    """A version's files are not here; the text says why and holds nothing secret."""


async def fetch(
    mlflow: MlflowOperations, version: ModelVersion, cache: ModelCache, keep: Collection[ServedVersion]
) -> Cached:
    """Return a version in the cache, after fetching what is missing.

    :param mlflow: the MLflow server.
    :param version: the version.
    :param cache: the cache.
    :param keep: versions in the cache that must stay.
    :raises DownloadError: when a file is missing or the disk is full. What has arrived of a large file is kept for the
        next try if only the connection broke off.
    """
    key = key_of(version)
    cached = await asyncio.to_thread(cache.find, key)
    if cached is not None:
        return cached
    try:
        await _download(mlflow, version, cache, key, keep)
        return await asyncio.to_thread(cache.complete, key)
    except (MlflowError, RefusedError) as error:
        raise DownloadError(f"files: {error}") from None
    except OSError as error:
        await asyncio.to_thread(cache.drop_part, key)
        raise DownloadError(f"files: they cannot be written to {cache.folder}: {error.strerror or error}") from None


async def _download(
    mlflow: MlflowOperations,
    version: ModelVersion,
    cache: ModelCache,
    key: ServedVersion,
    keep: Collection[ServedVersion],
) -> None:
    files = await mlflow.aperform(version_files(version))
    if "MLmodel" not in files.sizes:
        raise DownloadError("files: there is no MLmodel file among them")
    part = await asyncio.to_thread(cache.part, key)
    arrived = await asyncio.to_thread(size_of, part)
    await asyncio.to_thread(cache.make_room, max(0, files.size - arrived), {*keep, key})
    stream = FileStream(mlflow.settings)
    try:
        for path in files.sizes:
            target = part / path
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            await stream.save(files, path, target)
    finally:
        await stream.close()
    _log.info("fetched %s: %d files, %d bytes", key, len(files.sizes), files.size)
