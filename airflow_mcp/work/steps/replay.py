"""Step ``replay``: let a candidate and the champion predict the newest logged requests of production."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.evaluation.replay import ReplayEvidence, ReplayRequest
from airflow_mcp.core.serving.prediction_log import find_our_columns
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.work.measures.classes import Array, name_of, plain_label
from airflow_mcp.work.measures.replay_comparison import Compared, Tally, compare_predictions
from airflow_mcp.work.measures.replay_predictions import ANSWERED, UNFIT, Answers, Replayed
from airflow_mcp.work.models.loaded_model import load_model
from airflow_mcp.work.reading.request_log import Chunk, RequestLog
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog
from airflow_mcp.work.run.process import library_versions

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


def replay(environ: Mapping[str, str]) -> ReplayEvidence:
    """Replay and record in the candidate's MLflow run, whose status is not changed.

    The evidence is written last, so that a run with evidence is complete. One chunk of requests is in memory at a time,
    and one number per request.

    :param environ: environment variables with the path of a ``ReplayRequest``.
    :return: the evidence as it was stored.
    :raises RefusedError: when the request, log or a model cannot be replayed, or the run was deleted.
    :raises FailedError: when MLflow does not answer, a model cannot be loaded, or the log changed while it was read.
    """
    request = read_request(environ, ReplayRequest)
    run = RunLog(request.run_id)
    run.require_active()
    request, role_column = _with_log_columns(request)
    log = RequestLog(request.source, request.timestamp_column, role_column, request.roles)
    selection = log.select(request.last)
    models = [
        Replayed(load_model(model.model_uri), request.model_type) for model in (request.candidate, request.champion)
    ]
    _require_positive_label(request, models)
    seen = _Requests()
    tally = Tally(request)
    with TemporaryDirectory(prefix="airflow-mcp-replay-") as folder:
        table = Path(folder) / Path(contract.ARTIFACT_REPLAY_REQUESTS).name
        with _writer(table, request) as write:
            for chunk in log.read(selection):
                write(_replay_chunk(request, models, chunk, tally, seen))
        evidence = ReplayEvidence(
            **request.model_dump(
                include={"identity", "run_id", "model_type", "tolerance", "relative_tolerance"},
            ),
            candidate=request.candidate,
            champion=request.champion,
            source=public_uri(request.source),
            files=log.files,
            available=selection.available,
            requests=selection.taken,
            first=seen.first,
            last=seen.last,
            undated=selection.undated,
            unreadable=seen.unreadable,
            compared=tally.compared,
            flips=tally.flips,
            candidate_only_missing=tally.candidate_only_missing,
            candidate_troubles=models[0].troubles(),
            champion_troubles=models[1].troubles(),
            transitions=tally.summed_transitions(),
            deltas=tally.summed_deltas(),
            segments=tally.summed_segments(),
            recorded=tally.summed_recorded(),
            value=tally.summed_value(),
            examples=tuple(tally.examples),
            created_at=datetime.now(UTC).isoformat(),
            environment=library_versions(),
        )
        _record(run, evidence, table)
    return evidence


def _with_log_columns(request: ReplayRequest) -> tuple[ReplayRequest, str]:
    """Return the request with the columns of the model server's log, where it names no others, and that of the roles.

    :raises DatasetError: when the source is not such a log.
    """
    if not request.log:
        return request, ""
    names = find_our_columns(RequestLog(request.source).columns())
    if "role" not in names:
        raise DatasetError(
            f"{public_uri(request.source)} must be a prediction log of the model server; got data without the columns "
            "request_id, row, requested_at and role. Nothing was replayed"
        )
    named = request.model_copy(
        update={
            "timestamp_column": request.timestamp_column or names["requested_at"],
            "request_id_column": request.request_id_column or names["request_id"],
            "prediction_column": request.prediction_column or names.get("prediction", ""),
        }
    )
    return named, names["role"]


class _Requests:
    """Running totals of the requests themselves: number, first and last time."""

    def __init__(self) -> None:
        self.rows = 0
        self.unreadable = 0
        self.first, self.last = "", ""
        self._between: tuple[float, float] = (np.inf, -np.inf)

    def add(self, chunk: Chunk, timestamp_column: str) -> None:
        self.rows += len(chunk.frame)
        self.unreadable += int((~chunk.readable).sum())
        if not timestamp_column:
            return
        times = RequestLog.seconds(chunk.frame[timestamp_column])
        texts = chunk.frame[timestamp_column]
        low, high = int(np.argmin(times)), int(np.argmax(times))
        if times[low] < self._between[0]:
            self.first = name_of(texts.iloc[low])
        if times[high] > self._between[1]:
            self.last = name_of(texts.iloc[high])
        self._between = min(self._between[0], times[low]), max(self._between[1], times[high])


def _replay_chunk(
    request: ReplayRequest, models: list[Replayed], chunk: Chunk, tally: Tally, seen: _Requests
) -> pd.DataFrame:
    """Replay one chunk; return its part of the table."""
    _require_columns(request, chunk)
    names = _names(request, chunk.frame, seen.rows)
    seen.add(chunk, request.timestamp_column)
    answers = (models[0].answer(chunk.frame, chunk.readable), models[1].answer(chunk.frame, chunk.readable))
    found = compare_predictions(request, *answers, (models[0].model.classes, models[1].model.classes))
    tally.add(chunk.frame, names, answers, found)
    _log.info("replayed %d requests, %d flips so far", seen.rows, tally.flips)
    return _lines(request, chunk, names, answers, found)


def _lines(
    request: ReplayRequest, chunk: Chunk, names: list[str], answers: tuple[Answers, Answers], found: Compared
) -> pd.DataFrame:
    """Return one row per request: name, time, both states and predictions, whether they differ and by how much."""
    import pandas as pd  # noqa: PLC0415

    times = request.timestamp_column
    columns: dict[str, Any] = {
        "request": names,
        "timestamp": [name_of(value) for value in chunk.frame[times]] if times else [""] * len(names),
    }
    for name, answer in zip(("candidate", "champion"), answers, strict=True):
        columns[f"{name}_state"] = _states(answer, chunk.readable)
        columns[f"{name}_prediction"] = (
            answer.predictions
            if request.model_type == "regressor"
            else [None if value is None else name_of(value) for value in answer.predictions]
        )
    flips = [bool(flip) if both else None for flip, both in zip(found.flips, found.both, strict=True)]
    columns["flip"] = pd.array(flips, dtype="boolean")
    columns["delta"] = found.deltas
    return pd.DataFrame(columns)


def _states(answers: Answers, readable: Array) -> list[str]:
    words = np.where(answers.state == ANSWERED, "answered", np.where(answers.state == UNFIT, "unfit", "failed"))
    return list(np.where(readable, words, "unreadable").tolist())


@contextmanager
def _writer(path: Path, request: ReplayRequest) -> Iterator[Any]:
    """Open the table of predictions, which is written chunk by chunk, and exists even without requests."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    answer = pa.float64() if request.model_type == "regressor" else pa.string()
    schema = pa.schema(
        [
            ("request", pa.string()),
            ("timestamp", pa.string()),
            ("candidate_state", pa.string()),
            ("candidate_prediction", answer),
            ("champion_state", pa.string()),
            ("champion_prediction", answer),
            ("flip", pa.bool_()),
            ("delta", pa.float64()),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda frame: writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def _names(request: ReplayRequest, frame: pd.DataFrame, before: int) -> list[str]:
    if request.request_id_column:
        return [name_of(value) for value in frame[request.request_id_column]]
    return [str(before + number) for number in range(len(frame))]


def _require_columns(request: ReplayRequest, chunk: Chunk) -> None:
    """Refuse requests that lack a column that the request names; a chunk without a readable request has no columns."""
    named = {
        "timestamp_column": request.timestamp_column,
        "request_id_column": request.request_id_column,
        "prediction_column": request.prediction_column,
        "value_column": request.value_column,
    }
    wanted = [
        *((name, column) for name, column in named.items() if column),
        *(("segments", x) for x in request.segments),
    ]
    absent = [f"{column!r} ({name})" for name, column in wanted if column not in chunk.frame.columns]
    if absent and chunk.readable.any():
        raise DatasetError(
            f"the logged requests lack {', '.join(absent)}; they have "
            f"{', '.join(map(repr, chunk.frame.columns[:30]))}. Nothing was recorded"
        )
    for _, column in wanted:
        if column not in chunk.frame.columns:
            chunk.frame[column] = None


def _require_positive_label(request: ReplayRequest, models: list[Replayed]) -> None:
    known = {plain_label(label) for replayed in models for label in replayed.model.classes or ()}
    if request.positive_label is not None and known and plain_label(request.positive_label) not in known:
        raise InvalidArgumentError(
            f"positive_label must be one of the models' classes {', '.join(sorted(map(repr, known)))}; got "
            f"{request.positive_label!r}. Nothing was replayed"
        )


def _record(run: RunLog, evidence: ReplayEvidence, table: Path) -> None:
    run.require_active()
    run.log_file(table, contract.ARTIFACT_REPLAY_REQUESTS)
    metrics = {"replay/compared": float(evidence.compared), "replay/flips": float(evidence.flips)}
    if evidence.judged:
        metrics["replay/changed_share"] = evidence.changed / evidence.judged
    run.log_metrics(metrics)
    run.require_active()  # the artifact store would accept files of a deleted run
    run.log_text(dump_document(evidence), contract.ARTIFACT_REPLAY)
    _log.info(
        "replay: %d of %d requests compared, %d flips; evidence stored in run %s",
        evidence.compared,
        evidence.requests,
        evidence.flips,
        run.run_id,
    )
