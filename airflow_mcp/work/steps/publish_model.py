"""Step ``publish-model``: make an uploaded file a logged model, without loading it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.registry.copies import manifest_digest
from airflow_mcp.core.registry.publishing import PublishRequest, PublishResult
from airflow_mcp.exceptions import EvidenceError, RefusedError
from airflow_mcp.work.models.archive import unpack_model
from airflow_mcp.work.models.onnx_model import wrap_onnx
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog, mlflow_errors
from airflow_mcp.work.steps.copy_model import manifest

_log = logging.getLogger(__name__)
_MAX_REASON = 2000
"""Characters of a reason that the run keeps for whoever uploaded the file."""


def publish_model(environ: Mapping[str, str]) -> PublishResult:
    """Download the upload, compare it with its digest, and log it as a model of the run.

    The result is stored last, before the run is ended. Nothing is registered here. Why an upload was refused is kept
    as a tag of the run, for whoever may not read the log.

    :param environ: environment variables with the path of a ``PublishRequest``.
    :return: the result as it was stored.
    :raises RefusedError: when the upload is not what was announced, or not a model.
    :raises FailedError: when MLflow does not answer.
    """
    request = read_request(environ, PublishRequest)
    run = RunLog(request.run_id)
    run.require_active()
    try:
        with TemporaryDirectory(prefix="airflow-mcp-publish-", dir=".") as folder:
            model = _model(request, _download(request, Path(folder)), Path(folder))
            digest = manifest_digest(manifest(model))
            model_id = run.log_model_folder("model", model)
    except RefusedError as error:
        run.set_tags({contract.TAG_REFUSED: str(error)[:_MAX_REASON]})
        raise
    result = PublishResult(identity=request.identity, run_id=request.run_id, model_id=model_id, digest=digest)
    run.set_tags({contract.TAG_MODEL_DIGEST: digest})
    run.log_text(dump_document(result), contract.ARTIFACT_PUBLISH)
    run.end("FINISHED")
    _log.info("the upload is models:/%s, %s", model_id, digest)
    return result


def _download(request: PublishRequest, folder: Path) -> Path:
    """Download the bytes and check that they are the announced ones."""
    from mlflow import MlflowClient  # noqa: PLC0415

    upload = request.upload
    with mlflow_errors(f"download {upload.artifact} of run {request.upload_run_id}"):
        file = Path(MlflowClient().download_artifacts(request.upload_run_id, upload.artifact, str(folder)))
    with file.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    if (file.stat().st_size, digest) != (upload.size, upload.sha256):
        raise EvidenceError(
            f"the upload has {file.stat().st_size} bytes and {digest}, and {upload.size} bytes and {upload.sha256} "
            "were announced. Nothing was registered. Upload the model again"
        )
    return file


def _model(request: PublishRequest, file: Path, folder: Path) -> Path:
    """Return the folder of the model in MLflow's format."""
    target = folder / "model"
    if request.upload.format == "onnx":
        wrap_onnx(file, target, request.input_example)
        return target
    target.mkdir()
    return unpack_model(file, target, request.max_bytes)
