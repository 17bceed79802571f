"""Uploads: announced, streamed through this server to MLflow, and never held whole or opened here."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.panel.actions import operation_key
from airflow_mcp.core.registry.publishing import EXPERIMENT_SUFFIX, Upload
from airflow_mcp.exceptions import EvidenceError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.access import Caller
from airflow_mcp.plugins.problems import UNCHANGED, Problem
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher import schemas
from airflow_mcp.publisher.publishing import require_may_publish
from airflow_mcp.publisher.requests import href

log = logging.getLogger(__name__)
Store = Callable[[Run, str, AsyncIterator[bytes], int], Awaitable[None]]
"""Stores an artifact of a run from a stream of so many bytes."""
AT_ONCE = 4
"""Uploads in progress in one process: each holds a connection of the server for as long as its sender wants."""
_SILENCE_SECONDS = 60.0
"""A sender that sends nothing for so long is given up."""


class Uploads:
    """What the routes of uploads do.

    :param services: what the routes work with.
    :param store: stores the bytes.
    :param max_bytes: size of the largest upload.
    """

    def __init__(self, services: Services, store: Store, max_bytes: int) -> None:
        self._services, self._store, self.max_bytes = services, store, max_bytes
        self._active: set[str] = set()

    async def announce(
        self, request: Request, model: str, key: str, body: schemas.UploadRequest
    ) -> tuple[schemas.Upload, bool]:
        """Return the upload of a request, and whether it is new.

        :param request: the request.
        :param model: name of the model, which need not exist.
        :param key: idempotency key.
        :param body: what is announced.
        :raises Problem: when it is too large, or the caller may not publish the model.
        """
        caller: Caller = request.state.caller
        self._services.access.count_write(caller)
        await require_may_publish(self._services, caller, model)
        if body.size > self.max_bytes:
            raise Problem("too-large", f"A model has at most {self.max_bytes} bytes; got {body.size}. {UNCHANGED}")
        upload = Upload(format=body.format, size=body.size, sha256=body.sha256, by=caller.name)
        name = operation_key(caller.name, model, f"upload {key}")
        run, is_new = await self._services.reader.ask(lambda mlflow: _announced(mlflow, model, name, upload))
        if Upload.of(run, model) != upload:
            raise Problem("idempotency-key-reused")
        return self._answer(request, run, model, upload), is_new

    async def read(self, request: Request, model: str, upload_id: str) -> schemas.Upload:
        """Return an upload that the caller has announced."""
        run, upload = await self._find(request, model, upload_id)
        return self._answer(request, run, model, upload)

    async def receive(self, request: Request, model: str, upload_id: str) -> schemas.Upload:
        """Pass the bytes of an upload on to MLflow; sending them again after success changes nothing.

        :param request: the request; its body is the file.
        :param model: name of the model.
        :param upload_id: the upload.
        :raises Problem: when they are not the announced bytes; the upload can be sent again.
        """
        caller: Caller = request.state.caller
        self._services.access.count_write(caller)
        await require_may_publish(self._services, caller, model)
        run, upload = await self._find(request, model, upload_id)
        if run.status == "FINISHED":
            return self._answer(request, run, model, upload)
        if int(request.headers["content-length"]) != upload.size:
            length = request.headers["content-length"]
            said = f"Content-Length must be the announced {upload.size} bytes; got {length}. {UNCHANGED}"
            raise Problem("invalid-request", said)
        with self._at_work(upload_id):
            try:
                await self._store(run, upload.artifact, _checked(request, upload), upload.size)
            except (ClientDisconnect, TimeoutError):
                raise Problem("invalid-request", f"The bytes ended too early. {UNCHANGED} Send them again") from None
            ended = int(time.time() * 1000)
            await self._services.reader.ask(lambda mlflow: mlflow.update_run(run.run_id, "FINISHED", ended))
        log.info("request %s: upload %s of %s is complete", request.state.request_id, upload_id, model)
        done = await self._services.reader.ask(lambda mlflow: mlflow.get_run(run.run_id))
        return self._answer(request, done, model, upload)

    async def _find(self, request: Request, model: str, upload_id: str) -> tuple[Run, Upload]:
        caller: Caller = request.state.caller
        try:
            run = await self._services.reader.ask(lambda mlflow: mlflow.get_run(upload_id))
            upload = Upload.of(run, model)
        except (MlflowNotFoundError, EvidenceError):
            raise Problem("no-such-source") from None
        if upload.by != caller.name or run.tags.get(contract.TAG_KIND) != contract.KIND_UPLOAD:
            raise Problem("no-such-source")
        return run, upload

    @contextmanager
    def _at_work(self, upload_id: str) -> Iterator[None]:
        if upload_id in self._active:
            raise Problem("action-not-available", f"These bytes are being sent by another request. {UNCHANGED}")
        if len(self._active) >= AT_ONCE:
            raise Problem("too-many", f"At most {AT_ONCE} uploads at once. {UNCHANGED}")
        self._active.add(upload_id)
        try:
            yield
        finally:
            self._active.discard(upload_id)

    def _answer(self, request: Request, run: Run, model: str, upload: Upload) -> schemas.Upload:
        return schemas.Upload(
            id=run.run_id,
            source=f"uploads:/{run.run_id}",
            model=model,
            format=upload.format,
            size=upload.size,
            sha256=upload.sha256,
            state="complete" if run.status == "FINISHED" else "waiting",
            content=href(request, "models", model, "uploads", run.run_id, "content"),
        )


def _announced(mlflow: MlflowOperations, model: str, name: str, upload: Upload) -> tuple[Run, bool]:
    """Return the run of an upload, and whether it is new; of two that were made at once, the first."""
    experiment_id = mlflow.get_or_create_experiment(f"{model}{EXPERIMENT_SUFFIX}")

    def find() -> Run | None:
        where = f"tags.`{contract.TAG_IDENTITY}` = '{name}' and tags.`{contract.TAG_KIND}` = '{contract.KIND_UPLOAD}'"
        found = mlflow.search_runs([experiment_id], where)
        return min(found, key=lambda run: (run.start_time or 0, run.run_id), default=None)

    if (known := find()) is not None:
        return known, False
    created = mlflow.create_run(experiment_id, "upload", upload.to_tags(model, name), int(time.time() * 1000))
    first = find() or created
    if first.run_id != created.run_id:
        mlflow.delete_run(created.run_id)
    return first, first.run_id == created.run_id


async def _checked(request: Request, upload: Upload) -> AsyncIterator[bytes]:
    """Yield the body; the last part only when size and digest are the announced ones, so wrong bytes are not stored."""
    digest, left, held = hashlib.sha256(), upload.size, b""
    stream = request.stream()
    while True:
        async with asyncio.timeout(_SILENCE_SECONDS):
            chunk = await anext(stream, None)
        if chunk is None:
            break
        left -= len(chunk)
        if left < 0:
            break
        digest.update(chunk)
        if chunk and held:
            yield held
        held = chunk or held
    if left or f"sha256:{digest.hexdigest()}" != upload.sha256:
        found = f"{upload.size - left} bytes with sha256:{digest.hexdigest()}"
        raise Problem("digest-differs", f"{upload.sha256} was announced; got {found}. {UNCHANGED} Send them again")
    yield held
