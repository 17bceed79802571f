"""Step ``evaluate``: measure a candidate, and the champion, on the same rows of one pinned dataset.

Without a dataset it takes the metrics that the training script logged, and marks the evidence as self-reported.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import data_file_name, public_uri
from airflow_mcp.core.document import dump_document, plain
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, EvaluationRequest, ModelEvidence, ModelUnderTest
from airflow_mcp.work.measures import latency
from airflow_mcp.work.measures.dataset_scoring import score_models
from airflow_mcp.work.measures.diagnostics import diagnose
from airflow_mcp.work.measures.feature_importance import measure_importance
from airflow_mcp.work.measures.logged_metrics import evidence_of_logged_metrics
from airflow_mcp.work.measures.prediction_table import write_predictions
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import compare_models, metric_intervals
from airflow_mcp.work.measures.slices import measure_slices
from airflow_mcp.work.models.loaded_model import LoadedModel, load_model
from airflow_mcp.work.reading.dataset_frame import require_columns
from airflow_mcp.work.reading.dataset_rows import DatasetRows, open_dataset
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog
from airflow_mcp.work.run.process import library_versions

_log = logging.getLogger(__name__)
METRIC_PREFIX_CANDIDATE = "evaluation/"
METRIC_PREFIX_CHAMPION = "champion/"


def evaluate(environ: Mapping[str, str]) -> EvaluationEvidence:
    """Measure and record in the candidate's MLflow run, whose status is not changed.

    The evidence is written last, so that a run with evidence is complete. One batch of rows is in memory at a time; of
    every row, only the label, the predictions and the columns of slices are.

    :param environ: environment variables with the path of an ``EvaluationRequest``.
    :return: the evidence as it was stored.
    :raises RefusedError: when the request, dataset or a model cannot be measured, or the run was deleted.
    :raises FailedError: when MLflow does not answer or a model cannot be loaded.
    """
    request = read_request(environ, EvaluationRequest)
    run = RunLog(request.run_id)
    logged = run.require_active().data.metrics
    if request.dataset is None:
        evidence = evidence_of_logged_metrics(request, logged, (METRIC_PREFIX_CANDIDATE, METRIC_PREFIX_CHAMPION))
        _record_evidence(run, evidence)
        return evidence
    tested = [request.candidate, *([request.champion] if request.champion else [])]
    models = [load_model(model.model_uri) for model in tested]
    kept = [request.target, *request.slices]
    with open_dataset(request.dataset, kept, text_columns(models) - {request.target}) as data:
        require_columns(data, [request.target], "the label (target)")
        require_columns(data, request.slices, "slices")
        scored = score_models(models, data, request)
    evidence = _measure(request, tested, scored, data)
    if request.importance_rows and (importance := measure_importance(scored[0], request.importance_rows)):
        run.require_active()
        run.log_text(json.dumps(importance, indent=2), contract.ARTIFACT_IMPORTANCE)
    _record(run, evidence, data, scored)
    return evidence


def _measure(
    request: EvaluationRequest, tested: list[ModelUnderTest], scored: list[ScoredModel], data: DatasetRows
) -> EvaluationEvidence:
    champion = scored[1] if len(scored) > 1 else None
    slices = measure_slices(data.kept, request.slices, scored[0], champion)
    measured = [
        _model_evidence(model, answers, request, with_intervals=answers is scored[0])
        for model, answers in zip(tested, scored, strict=True)
    ]
    return EvaluationEvidence(
        identity=request.identity,
        run_id=request.run_id,
        model_type=request.model_type,
        target=request.target,
        dataset=data.pin,
        rows=len(data),
        candidate=measured[0],
        champion=measured[1] if len(measured) > 1 else None,
        slices=slices,
        comparisons=compare_models(scored[0], champion, request.comparisons) if champion else (),
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions(),
    )


def text_columns(models: Sequence[LoadedModel]) -> set[str]:
    """Return the columns that are text for every model that takes them.

    :param models: the models.
    """
    types = [model.column_types for model in models]
    names = {name for of_model in types for name in of_model}
    return {name for name in names if {of_model[name] for of_model in types if name in of_model} == {"string"}}


def _model_evidence(
    model: ModelUnderTest, scored: ScoredModel, request: EvaluationRequest, *, with_intervals: bool
) -> ModelEvidence:
    measured, diagnosis = scored.measure(), diagnose(scored)
    probe = latency.measure_latency(scored.model.predict, scored.inputs, request.latency_calls, request.latency_warmup)
    metrics = {**measured.metrics, **diagnosis.metrics, **probe.metrics}
    undefined = {**measured.undefined, **diagnosis.undefined, **probe.undefined}
    shown = ", ".join(f"{name}={value:.4g}" for name, value in metrics.items())
    _log.info("%s: %s", model.model_uri, shown)
    for name, reason in undefined.items():
        _log.info("%s: %s is undefined: %s", model.model_uri, name, reason)
    return ModelEvidence(
        model_uri=model.model_uri,
        run_id=model.run_id,
        version=model.version,
        metrics=metrics,
        undefined=undefined,
        intervals=metric_intervals(scored, tuple(measured.metrics)) if with_intervals else {},
        confusion=diagnosis.confusion,
        calibration=diagnosis.calibration,
        residuals=diagnosis.residuals,
        latency=probe.evidence,
    )


def _mlflow_dataset(data: DatasetRows, target: str) -> Any:
    """Return the dataset as an input of the run. Its schema is that of a sample, its profile counts all rows."""
    from mlflow.data.code_dataset_source import CodeDatasetSource  # noqa: PLC0415
    from mlflow.data.dataset_source_registry import resolve_dataset_source  # noqa: PLC0415
    from mlflow.data.pandas_dataset import PandasDataset  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    class Counted(PandasDataset):  # type: ignore[misc]  # MLflow has no types
        @property
        def profile(self) -> dict[str, int]:
            return {"num_rows": len(data), "num_elements": len(data) * len(data.columns)}

    pin = data.pin
    address = public_uri(pin.uri)
    try:
        source = resolve_dataset_source(address)
    except MlflowException:  # MLflow does not know the address: DVC, Git LFS, or a store without a plugin
        source = CodeDatasetSource({"mlflow.source.name": address})
    name = data_file_name(pin.uri) + (f"@{pin.version}" if pin.version else "")
    digest = pin.hash.partition(":")[2][:32]  # MLflow accepts at most 36 characters
    return Counted(data.sample.joined(), source=source, targets=target, name=name, digest=digest)


def _record(run: RunLog, evidence: EvaluationEvidence, data: DatasetRows, scored: list[ScoredModel]) -> None:
    run.require_active()
    with TemporaryDirectory(prefix="airflow-mcp-evaluate-") as folder:
        table = Path(folder) / Path(contract.ARTIFACT_PREDICTIONS).name
        write_predictions(table, data.kept[evidence.target], scored)
        run.log_file(table, contract.ARTIFACT_PREDICTIONS)
    run.log_text(json.dumps([plain(item) for item in evidence.slices], indent=2), contract.ARTIFACT_SLICES)
    metrics = {METRIC_PREFIX_CANDIDATE + name: value for name, value in evidence.candidate.metrics.items()}
    if evidence.champion:
        metrics |= {METRIC_PREFIX_CHAMPION + name: value for name, value in evidence.champion.metrics.items()}
    run.log_metrics(metrics)
    run.log_dataset(_mlflow_dataset(data, evidence.target), "evaluation")
    _record_evidence(run, evidence)


def _record_evidence(run: RunLog, evidence: EvaluationEvidence) -> None:
    run.require_active()  # the artifact store would accept files of a deleted run
    run.log_text(dump_document(evidence), contract.ARTIFACT_EVIDENCE)
    _log.info("evidence stored in run %s", run.run_id)
