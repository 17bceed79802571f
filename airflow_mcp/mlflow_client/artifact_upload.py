"""One artifact of a run, streamed to MLflow's artifact proxy: it may be larger than memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import httpx

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, MlflowUnreachableError
from airflow_mcp.mlflow_client.api import ARTIFACT_PROXY, artifact_path
from airflow_mcp.mlflow_client.artifact_place import proxy_root
from airflow_mcp.mlflow_client.outcome import Judge, NoAnswer, Received
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import MAX_ERROR_BYTES, client_options, no_answer
from airflow_mcp.mlflow_client.wire import MlflowRequest


async def stream_artifact(
    settings: MlflowSettings,
    run: Run,
    path: str,
    chunks: AsyncIterator[bytes],
    size: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Store an artifact from a stream, replacing an existing one; a stream can be sent once, so nothing is repeated.

    :param settings: address and credentials of the server.
    :param run: the run.
    :param path: file relative to the run's artifact root.
    :param chunks: its content; an exception in it ends the request, and is raised here.
    :param size: bytes of the content.
    :param transport: replaces the network, for tests.
    :raises InvalidArgumentError: when the run's artifacts are not behind the artifact proxy.
    :raises MlflowError: when the server does not store it.
    """
    place = f"{ARTIFACT_PROXY}/{quote(proxy_root(run, path))}/{quote(artifact_path(path))}"
    request = MlflowRequest(f"upload artifact {path!r} of run {run.run_id!r}", "PUT", place, expects="bytes")
    judge = Judge(request, replace(settings, retries=0))
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    async with httpx.AsyncClient(transport=transport, **client_options(settings)) as client:
        url = f"{settings.base_url}/{place}"
        result: Received | NoAnswer
        try:
            answer = await client.put(url, content=chunks, headers=headers)
            result = Received(answer.status_code, dict(answer.headers.items()), answer.content[:MAX_ERROR_BYTES])
        except httpx.RequestError as error:
            result = no_answer(error, settings)
    after = judge.judge(result, now=datetime.now(UTC), jitter=0)
    if isinstance(after, MlflowError | InvalidArgumentError):
        raise after
    if isinstance(after, float):
        raise MlflowUnreachableError(judge.describe(result))
