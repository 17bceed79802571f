"""Step ``load-check``: load a registered version as serving would, and let it answer its input example."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.registry.copies import manifest_digest
from airflow_mcp.core.registry.load_check import LoadCheckReport, LoadCheckRequest, LoadFinding, judge
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.work.models.failure_cause import (
    described,
    is_environment_failure,
    needs_unrecorded_code,
    required_libraries,
    unmet_requirements,
)
from airflow_mcp.work.models.output_checks import check_output
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog, mlflow_errors, redacted
from airflow_mcp.work.run.process import library_versions, peak_memory, present_memory
from airflow_mcp.work.steps.copy_model import manifest

_log = logging.getLogger(__name__)
_NO_EXAMPLE = (
    "it was not asked, because it has no input example; log one with mlflow.<flavor>.log_model(..., input_example=...)"
)
_UNRECORDED = (
    "The model does not record which version of this code it needs; log it with code_paths, or name the code in its "
    "requirements"
)


@dataclass
class _Measurements:
    """Measurements of the check; None where it did not get so far."""

    rows: int | None = None
    download_seconds: float | None = None
    load_seconds: float | None = None
    answer_seconds: float | None = None
    memory_before_bytes: int | None = None
    digest: str = ""
    unmet: tuple[str, ...] = ()
    libraries: dict[str, str] = field(default_factory=dict)


def load_check(environ: Mapping[str, str]) -> LoadCheckReport:
    """Check a version and record the report in the check's own MLflow run, which ends FINISHED whatever the verdict.

    Errors of the model become findings. An error is raised only when the check could not be made.

    :param environ: environment variables with the path of a ``LoadCheckRequest``.
    :return: the report as it was stored.
    :raises RefusedError: for a request that cannot be read, or a deleted run.
    :raises MlflowError: when MLflow does not answer, or does not have the version.
    """
    request = read_request(environ, LoadCheckRequest)
    run = RunLog(request.run_id)
    run.require_active()
    run.require_version(request.model_name, request.version)
    measured = _Measurements()
    with TemporaryDirectory(prefix="airflow-mcp-") as folder:
        findings = tuple(_findings(request.model_uri, Path(folder), measured))
    verdict, reason = judge(findings, measured.unmet, require_example=request.require_example)
    report = LoadCheckReport(
        identity=request.identity,
        run_id=request.run_id,
        model_name=request.model_name,
        version=request.version,
        verdict=verdict,
        reason=reason,
        findings=findings,
        rows=measured.rows,
        download_seconds=measured.download_seconds,
        load_seconds=measured.load_seconds,
        answer_seconds=measured.answer_seconds,
        memory_before_bytes=measured.memory_before_bytes,
        memory_peak_bytes=max((peak_memory() or 0, measured.memory_before_bytes or 0)) or None,
        digest=measured.digest,
        unmet_requirements=measured.unmet,
        created_at=datetime.now(UTC).isoformat(),
        environment=measured.libraries or library_versions(),
    )
    _record(run, report)
    return report


def _findings(uri: str, folder: Path, measured: _Measurements) -> Iterator[LoadFinding]:
    """Make one part of the check after the other, and stop at the first that fails."""
    model_folder, finding = _download(uri, folder, measured)
    yield finding
    if model_folder is None:
        return
    measured.digest = manifest_digest(manifest(model_folder))  # before the model's own code may write beside its files
    measured.unmet = unmet_requirements(model_folder)
    measured.libraries = library_versions(*required_libraries(model_folder))
    pyfunc, finding = _load(model_folder, measured)
    yield finding
    if pyfunc is not None:
        yield from _ask(pyfunc, model_folder, measured)


def _download(uri: str, folder: Path, measured: _Measurements) -> tuple[Path | None, LoadFinding]:
    """Download the files as serving does. Only missing files are the version's fault; other errors are raised."""
    import mlflow.artifacts  # noqa: PLC0415

    _log.info("download %s", uri)
    started = time.perf_counter()
    try:
        with mlflow_errors(f"download {uri}"):
            # A download does not tell missing files from an error: S3 and Azure answer 500 for both.
            if not mlflow.artifacts.list_artifacts(artifact_uri=uri):
                return None, _broken("files", "its files are missing: MLflow lists none")
            found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except MlflowNotFoundError as error:
        return None, _broken("files", f"its files are missing: {redacted(error)}")
    measured.download_seconds = time.perf_counter() - started
    if not (found / "MLmodel").is_file():
        return None, _broken(
            "files", "its files are missing: there is no MLmodel file among those that MLflow returned"
        )
    return found, LoadFinding(name="files", holds=True)


def _load(folder: Path, measured: _Measurements) -> tuple[Any, LoadFinding]:
    import mlflow.pyfunc  # noqa: PLC0415

    measured.memory_before_bytes = present_memory()
    started = time.perf_counter()
    try:
        pyfunc = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    except (Exception, SystemExit) as error:  # whatever a user's model raises
        return None, _failure("loads", "it does not load", error, folder)
    measured.load_seconds = time.perf_counter() - started
    _log.info("loaded in %.2f s", measured.load_seconds)
    return pyfunc, LoadFinding(name="loads", holds=True)


def _ask(pyfunc: Any, folder: Path, measured: _Measurements) -> Iterator[LoadFinding]:
    metadata = pyfunc.metadata
    try:
        example = metadata.load_input_example(str(folder))
        params = None if example is None else metadata.load_input_example_params(str(folder))
    except Exception as error:  # files that are missing, or that MLflow did not write
        yield _failure("answers", "its input example cannot be read", error, folder)
        return
    if example is None:
        yield LoadFinding(name="answers", holds=None, note=_NO_EXAMPLE)
        return
    started = time.perf_counter()
    try:
        output = pyfunc.predict(example, params) if params else pyfunc.predict(example)
    except (Exception, SystemExit) as error:  # whatever a user's model raises
        yield _failure("answers", "it does not answer its own input example", error, folder)
        return
    measured.answer_seconds = time.perf_counter() - started
    yield LoadFinding(name="answers", holds=True)
    measured.rows, findings = check_output(example, output, metadata.get_output_schema())
    yield from findings


def _broken(name: Any, note: str) -> LoadFinding:
    return LoadFinding(name=name, holds=False, note=note)


def _failure(name: Any, what: str, error: BaseException, folder: Path) -> LoadFinding:
    _log.warning("%s", what, exc_info=error)
    note = f"{what}: {described(error)}"
    if needs_unrecorded_code(error, folder):
        return LoadFinding(name=name, holds=False, note=f"{note}. {_UNRECORDED}", is_of_surroundings=True)
    return LoadFinding(name=name, holds=False, note=note, is_of_surroundings=is_environment_failure(error))


def _record(run: RunLog, report: LoadCheckReport) -> None:
    """Record everything before the status, so that a FINISHED run is complete."""
    run.require_active()
    measured = {
        "download_seconds": report.download_seconds,
        "load_seconds": report.load_seconds,
        "answer_seconds": report.answer_seconds,
        "memory_before_bytes": report.memory_before_bytes,
        "memory_peak_bytes": report.memory_peak_bytes,
    }
    run.log_metrics({name: float(value) for name, value in measured.items() if value is not None})
    run.set_tags({contract.TAG_LOAD_CHECK: report.verdict})
    run.log_text(dump_document(report), contract.ARTIFACT_LOAD_CHECK)
    run.end("FINISHED")
    _log.info("load-check: %s: %s", report.verdict, report.reason)
