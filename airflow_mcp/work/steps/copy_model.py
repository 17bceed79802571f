"""Step ``copy-model``: copy the files of a registered version from one MLflow server to another, byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow_mcp.core import contract
from airflow_mcp.core.registry.copies import (
    NOT_OF_THE_MODEL,
    CopiedFile,
    CopyRequest,
    CopyResult,
    manifest_digest,
    require_same_copy,
    require_same_model,
)
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.work.run.environment import read_request, require
from airflow_mcp.work.run.mlflow_run import RunLog, mlflow_errors

_log = logging.getLogger(__name__)
_CLIENT_VARIABLES = (
    contract.ENV_TRACKING_URI,
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)
_LOGGED_MODEL = re.compile(r"models:/(m-[^/@]+)")


def copy_model(environ: Mapping[str, str]) -> CopyResult:
    """Download the version, upload it as a logged model of the run, download that again and compare.

    The result is stored last, before the run is ended. Nothing is registered here.

    :param environ: environment variables with the path of a ``CopyRequest`` and the addresses of both servers.
    :return: the result as it was stored.
    :raises RefusedError: when the source is not the requested model or differs from its record, or the copy differs.
    :raises FailedError: when a server does not answer.
    """
    request = read_request(environ, CopyRequest)
    require(environ, (contract.ENV_SOURCE_MLFLOW_PREFIX + contract.ENV_TRACKING_URI,))
    run = RunLog(request.run_id)
    run.require_active()
    with TemporaryDirectory(prefix="airflow-mcp-copy-", dir=".") as folder:
        with _server(source_server(environ)):
            name, path = _download_source(request, Path(folder) / "source")
        sent = manifest(path)
        _log.info("%d files, %d bytes, %s", len(sent), sum(file.size for file in sent), manifest_digest(sent))
        require_same_model(request, sent)
        for left_over in NOT_OF_THE_MODEL:
            (path / left_over).unlink(missing_ok=True)
        model_id = run.log_model_folder(name, path)
        require_same_copy(sent, _downloaded_again(model_id, Path(folder) / "copy"))
    result = CopyResult(
        identity=request.identity,
        run_id=request.run_id,
        model_id=model_id,
        digest=manifest_digest(sent),
        files=sent,
    )
    run.log_text(result.model_dump_json(by_alias=True, indent=2), contract.ARTIFACT_COPY)
    run.end("FINISHED")
    _log.info("copied to models:/%s; every file is identical", model_id)
    return result


def source_server(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of MLflow's client for the server to copy from.

    :param environ: environment variables.
    """
    given = {name: environ.get(contract.ENV_SOURCE_MLFLOW_PREFIX + name, "") for name in _CLIENT_VARIABLES}
    return {name: value for name, value in given.items() if value}


def manifest(folder: Path) -> tuple[CopiedFile, ...]:
    """Hash every file of a model.

    :param folder: the model's folder.
    :return: the files, by path.
    :raises EvidenceError: when there is no file MLmodel.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(_file(path, folder) for path in found if str(path.relative_to(folder)) not in NOT_OF_THE_MODEL)
    if not any(file.path == "MLmodel" for file in files):
        raise EvidenceError("the version has no file MLmodel, so it is not an MLflow model. Nothing was copied")
    return files


def _file(path: Path, folder: Path) -> CopiedFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return CopiedFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=digest.hexdigest())


def _download_source(request: CopyRequest, folder: Path) -> tuple[str, Path]:
    """Download the version; return the name of its logged model and the folder."""
    from mlflow import MlflowClient  # noqa: PLC0415
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415

    uri = f"models:/{request.model_name}/{request.version}"
    with mlflow_errors(f"read {uri}"):
        client = MlflowClient()
        version = client.get_model_version(request.model_name, request.version)
        model_id = _LOGGED_MODEL.fullmatch(version.source or "")
        name = client.get_logged_model(model_id[1]).name if model_id else ""
    if (version.run_id or "") != request.source_run_id:
        raise InvalidArgumentError(
            f"{uri} belongs to MLflow run {version.run_id or 'none'}, not to {request.source_run_id or 'none'}: the "
            "workload reaches another MLflow server than Airflow does. Nothing was copied"
        )
    folder.mkdir()
    _log.info("download %s", uri)
    with mlflow_errors(f"download {uri}"):
        return name or "model", Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def _downloaded_again(model_id: str, folder: Path) -> tuple[CopiedFile, ...]:
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415

    folder.mkdir()
    with mlflow_errors(f"download models:/{model_id}"):
        return manifest(Path(download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=str(folder))))


@contextlib.contextmanager
def _server(variables: Mapping[str, str]) -> Iterator[None]:
    """Point MLflow's client to another server for a while; it reads address and credentials at every request."""
    import mlflow  # noqa: PLC0415

    before = {name: os.environ.get(name) for name in _CLIENT_VARIABLES}
    try:
        _set({name: variables.get(name) for name in _CLIENT_VARIABLES})
        mlflow.set_tracking_uri(variables[contract.ENV_TRACKING_URI])
        yield
    finally:
        _set(before)
        mlflow.set_tracking_uri(before[contract.ENV_TRACKING_URI])


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
