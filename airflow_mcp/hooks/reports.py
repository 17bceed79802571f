"""Fetch the reports that earlier steps wrote: artifacts of MLflow runs, files on a disk, objects."""

from __future__ import annotations

from airflow_mcp.core import contract
from airflow_mcp.core.gate.rules.report_files import MAX_REPORT_BYTES, FetchedReport, ReportFile
from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.hooks.object_store import read
from airflow_mcp.mlflow_client.operations import MlflowOperations


def fetch_report(mlflow: MlflowOperations, file: ReportFile) -> FetchedReport:
    """Fetch one report.

    :param mlflow: the MLflow server.
    :param file: where the report is.
    :return: the report, or why there is none; a missing report is not raised.
    :raises InvalidArgumentError: when this machine has no client for the URL.
    :raises MlflowError: when MLflow does not answer.
    """
    if file.is_artifact:
        return _artifact(mlflow, file)
    # One byte more than allowed shows that a report is too large, without reading all of it.
    limit = MAX_REPORT_BYTES + 1
    try:
        content = read(file.path, max_bytes=limit, conn_id=file.conn_id, hint="Nothing was judged")
    except (DatasetError, DataUnreachableError) as error:  # a report that cannot be read never passes a gate
        return FetchedReport(None, str(error))
    if content is None:
        return FetchedReport(None, f"{file} cannot be read: No such file or object")
    if len(content) > MAX_REPORT_BYTES:
        return FetchedReport(None, f"{file} is larger than {MAX_REPORT_BYTES} bytes")
    return FetchedReport(content)


def _artifact(mlflow: MlflowOperations, file: ReportFile) -> FetchedReport:
    run_id = file.run_id
    if not run_id or run_id == "None":
        return FetchedReport(None, f"there is no {file}: the step that should have made it pushed no MLflow run")
    try:
        run = mlflow.get_run(run_id)
        if run.status != "FINISHED" or run.lifecycle_stage != "active":
            return FetchedReport(
                None, f"{file} does not count: its MLflow run {run_id} is {run.status} ({run.lifecycle_stage})"
            )
        content = mlflow.find_artifact(run_id, file.path, max_bytes=MAX_REPORT_BYTES)
    except MlflowNotFoundError:
        content = None
    except InvalidArgumentError as error:
        return FetchedReport(None, f"{file} of MLflow run {run_id} cannot be read: {error}")
    if content is None:
        return FetchedReport(None, f"there is no {file} in MLflow run {run_id}")
    return FetchedReport(content, commit=run.tags.get(contract.TAG_CODE_COMMIT, ""))
