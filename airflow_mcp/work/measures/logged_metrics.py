"""Evidence without a dataset: the metrics that the training script logged, and a measured latency."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, EvaluationRequest, ModelEvidence
from airflow_mcp.work.measures import latency
from airflow_mcp.work.models.loaded_model import load_pyfunc, predict
from airflow_mcp.work.run.process import library_versions

_log = logging.getLogger(__name__)
_LATENCY = "latency_ms"
_NO_EXAMPLE = (
    "it is measured on the model's input example, and the model has none; log one with "
    "mlflow.<flavor>.log_model(..., input_example=...)"
)


def evidence_of_logged_metrics(
    request: EvaluationRequest, logged: Mapping[str, float], own_prefixes: tuple[str, ...]
) -> EvaluationEvidence:
    """Collect the metrics that the training script logged, and measure latency on the model's input example.

    :param request: a request without a dataset.
    :param logged: latest value of every metric of the candidate's run.
    :param own_prefixes: prefixes of the metrics that step ``evaluate`` itself logs; these are left out.
    :raises RefusedError: when a module that the model needs is missing, or it fails on its own example.
    :raises FailedError: when MLflow does not answer or the model cannot be loaded.
    """
    metrics, undefined = _reported({name: logged[name] for name in logged if not name.startswith(own_prefixes)})
    probe = _probe(request)
    speed = probe.metrics if probe else {}
    undefined |= probe.undefined if probe else {_LATENCY: _NO_EXAMPLE}
    candidate, champion = request.candidate, request.champion
    for name, value in sorted((metrics | speed).items()):
        _log.info("%s: %s=%.4g%s", candidate.model_uri, name, value, "" if name in speed else " (self-reported)")
    return EvaluationEvidence(
        identity=request.identity,
        run_id=request.run_id,
        self_reported=True,
        rows=0,
        candidate=ModelEvidence(
            model_uri=candidate.model_uri,
            run_id=candidate.run_id,
            metrics={**metrics, **speed},
            undefined=undefined,
            latency=probe.evidence if probe else None,
        ),
        champion=champion
        and ModelEvidence(model_uri=champion.model_uri, run_id=champion.run_id, version=champion.version, metrics={}),
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions(),
    )


def _reported(logged: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Separate finite metrics from others; logged latencies are ignored, because they are measured here."""
    metrics, undefined = {}, {}
    for name, value in logged.items():
        if name == _LATENCY or name.startswith(f"{_LATENCY}_"):
            _log.info("%s of the training script (%g) is ignored: latency is measured here", name, value)
        elif math.isfinite(value) and abs(value) < sys.float_info.max:  # MLflow's SQL stores keep infinity so
            metrics[name] = value
        else:
            undefined[name] = f"the training script logged {value if math.isnan(value) else 'an infinite value'}"
    return metrics, undefined


def _probe(request: EvaluationRequest) -> latency.Probe | None:
    """Measure the latency of the loaded model; None without an input example."""
    uri = request.candidate.model_uri
    pyfunc = load_pyfunc(uri)
    if pyfunc.input_example is None:
        _log.info("%s has no input example; latency is not measured", uri)
        return None
    rows, unpack = _single_rows(pyfunc.input_example)

    def call(row: Any) -> Any:
        return predict(pyfunc, unpack(row), uri, "its own input example")

    return latency.measure_latency(call, rows, request.latency_calls, request.latency_warmup)


def _single_rows(example: Any) -> tuple[Any, Any]:
    """Return an example as a sequence of rows, and a function that turns one such row into an input of the model.

    Tables, matrices and lists have rows; anything else (a mapping, a text, a vector) is a single input.
    """
    is_table = not isinstance(example, list) and np.ndim(example) > 1
    if (isinstance(example, list) and example) or (is_table and example.shape[0] > 0):
        return example, lambda row: row
    return [example], lambda row: row[0]
