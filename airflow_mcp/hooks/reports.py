"""Fetch the reports that earlier steps left: artifacts of MLflow runs, files of this machine, objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.gate.rules.report_files import MAX_REPORT_BYTES, FetchedReport, ReportFile
from airflow_mcp.exceptions import InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.hooks.mlflow import MlflowHook


def fetch_report(hook: MlflowHook, file: ReportFile) -> FetchedReport:
    """Fetch one report.

    :param hook: the MLflow server.
    :param file: where it is.
    :return: the report, or why there is none; a missing report is not raised.
    :raises InvalidArgumentError: when the path is none.
    :raises MlflowError: when MLflow does not answer.
    """
    if file.is_artifact:
        return _artifact(hook, file)
    if "://" in file.path and not file.path.startswith("file://"):
        return _object(file)
    return _local(Path(file.path.removeprefix("file://")))


def _artifact(hook: MlflowHook, file: ReportFile) -> FetchedReport:
    run_id = file.run_id
    if not run_id or run_id == "None":
        return FetchedReport(None, f"there is no {file}: the step that should have made it pushed no MLflow run")
    try:
        run = hook.get_run(run_id)
        if run.status != "FINISHED" or run.lifecycle_stage != "active":
            return FetchedReport(
                None, f"{file} does not count: its MLflow run {run_id} is {run.status} ({run.lifecycle_stage})"
            )
        content = hook.download_artifact(run_id, file.path, max_bytes=MAX_REPORT_BYTES)
    except MlflowNotFoundError:
        return FetchedReport(None, f"there is no {file} in MLflow run {run_id}")
    except InvalidArgumentError as error:
        return FetchedReport(None, f"{file} of MLflow run {run_id} cannot be had: {error}")
    return FetchedReport(content, commit=run.tags.get(contract.TAG_CODE_COMMIT, ""))


def _local(path: Path) -> FetchedReport:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        return FetchedReport(None, f"{path} cannot be read: {error.strerror}")
    return _bounded(content, str(path))


def _object(file: ReportFile) -> FetchedReport:
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415  (costs time, and few gates need it)

    try:
        place: Any = ObjectStoragePath(file.path, conn_id=file.connection)
        with place.open("rb") as stream:
            content = stream.read(MAX_REPORT_BYTES + 1)
    except (ImportError, ValueError) as error:
        raise InvalidArgumentError(f"report {file} cannot be opened: {error}. Nothing was judged") from None
    except Exception as error:  # what object stores raise is theirs; a report that cannot be had is never a pass
        return FetchedReport(None, f"{file} cannot be read: {type(error).__name__}")
    return _bounded(bytes(content), str(file))


def _bounded(content: bytes, name: str) -> FetchedReport:
    if len(content) > MAX_REPORT_BYTES:
        return FetchedReport(None, f"{name} is larger than {MAX_REPORT_BYTES} bytes")
    return FetchedReport(content)
