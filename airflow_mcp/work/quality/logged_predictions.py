"""Reads the predictions of some windows from the model server's log, and the events of requests without rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.quality.summary import QualityRequest
from airflow_mcp.core.serving.outliers import OutlierRanges
from airflow_mcp.core.serving.prediction_log import events_of, find_our_columns
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.dataset_batches import FileScan, open_data
from airflow_mcp.work.reading.file_formats import GLOB
from airflow_mcp.work.reading.request_log import RequestLog

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KEY = "key:"
"""Prefix of the columns that name an entity, so that they never clash with ours."""
SEGMENT = "segment:"
"""Prefix of the segment columns."""
_EVENT_COLUMNS = ("requested_at", "role", "status", "error", "latency_ms")


class LoggedPredictions(NamedTuple):
    """The predictions of some windows."""

    frame: pd.DataFrame
    """Columns ``request_id`` (empty for none), ``row``, ``at`` (seconds since the epoch), ``version``, ``prediction``,
    ``probability``, ``latency`` (seconds), ``error`` (empty for an answer), ``is_outlier``, and the key and segment
    columns."""
    repeated: int
    """Rows left out because a later row has the same request ID and row number."""


def read_predictions(
    request: QualityRequest, start: float, end: float, profile: DataProfile | None
) -> LoggedPredictions:
    """Read the logged predictions whose requests arrived within a time.

    :param request: names the log, its roles, and the columns.
    :param start: first moment, in seconds since the epoch.
    :param end: first moment after it.
    :param profile: profile of the training data, to count rows outside of it; None counts none.
    :raises DatasetError: when the log is none, or lacks a column that the request names.
    """
    import pandas as pd  # noqa: PLC0415

    names = _our_columns(request)
    log = LoggedRequests(uri=request.requests, column=names["role"], roles=request.roles)
    parts = []
    with open_data((log,)) as scan:
        ranges = None if profile is None else OutlierRanges(profile)
        wanted = _wanted(request, scan, names, ranges)
        for batch in scan.batches(wanted):
            times = RequestLog.seconds(batch.column(names["requested_at"]).to_pandas())
            inside = (times >= start) & (times < end)
            if inside.any():
                parts.append(_part(request, batch.filter(_mask(inside)), times[inside], names, ranges))
    frame = pd.concat(parts, ignore_index=True) if parts else _part_of_nothing(request)
    repeated = frame.duplicated(["request_id", "row"], keep="last") & (frame["request_id"] != "")
    return LoggedPredictions(frame[~repeated].reset_index(drop=True), int(repeated.sum()))


def read_events(request: QualityRequest, start: float, end: float) -> pd.DataFrame | None:
    """Read the events of requests that arrived within a time and have no row in the log.

    A request that no version could answer counts as one of the champion.

    :param request: names the log and its roles.
    :param start: first moment, in seconds since the epoch.
    :param end: first moment after it.
    :return: columns ``at`` and ``latency`` (seconds), ``status`` and ``error``; None when the log has no events.
    :raises DatasetError: when an event cannot be read.
    """
    import pandas as pd  # noqa: PLC0415

    place = events_of(request.requests)
    if not _exists(place):
        return None
    roles = {*request.roles, *([""] if "champion" in request.roles else [])}
    parts = []
    with open_data((DatasetPin(uri=place),)) as scan:
        for batch in scan.batches(frozenset(_EVENT_COLUMNS)):
            frame = batch.to_pandas()
            frame["at"] = RequestLog.seconds(frame["requested_at"])
            inside = (frame["at"] >= start) & (frame["at"] < end) & frame["role"].isin(roles)
            parts.append(frame[inside])
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["at", *_EVENT_COLUMNS], dtype=float)
    return found.assign(latency=found["latency_ms"] / 1000)[["at", "latency", "status", "error"]]


def _exists(uri: str) -> bool:
    """Return whether there is a file at an address; a store that does not answer raises when the rows are read."""
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

    filesystem, path = fsspec.core.url_to_fs(uri)
    if GLOB & set(path):
        return bool(filesystem.glob(path))
    return filesystem.isfile(path) or any(files for _, _, files in filesystem.walk(path))


def _our_columns(request: QualityRequest) -> Mapping[str, str]:
    names = find_our_columns(RequestLog(request.requests).columns())
    if "role" not in names or "prediction" not in names:
        raise DatasetError(
            f"{public_uri(request.requests)} must be a prediction log of the model server; got data without the "
            "columns request_id, row, requested_at, role and prediction. Nothing was judged"
        )
    return names


def _wanted(
    request: QualityRequest, scan: FileScan, names: Mapping[str, str], ranges: OutlierRanges | None
) -> frozenset[str]:
    present = frozenset(scan.columns)
    asked = (*request.keys, *request.segments)
    absent = [name for name in asked if name not in present]
    if absent:
        raise DatasetError(
            f"the prediction log {public_uri(request.requests)} has no column {', '.join(map(repr, absent))}, needed "
            f"as keys or segments; it has {', '.join(map(repr, sorted(present)[:30]))}. Nothing was judged"
        )
    return frozenset((*names.values(), *asked, *(ranges.columns & present if ranges is not None else ())))


def _mask(rows: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    return pa.array(rows)


def _part(
    request: QualityRequest,
    batch: pa.RecordBatch,
    times: np.ndarray[Any, Any],
    names: Mapping[str, str],
    ranges: OutlierRanges | None,
) -> pd.DataFrame:
    """Return the rows of one batch under our own names."""
    import pandas as pd  # noqa: PLC0415

    def column(name: str, default: Any = None) -> Any:
        place = names.get(name, "")
        return _values(batch, place) if place in batch.schema.names else [default] * len(times)

    latency = pd.to_numeric(pd.Series(column("latency_ms")), errors="coerce").to_numpy(dtype=float) / 1000
    columns = {
        "request_id": pd.Series(column("request_id"), dtype=object).fillna("").map(str),
        "row": pd.to_numeric(pd.Series(column("row", 0)), errors="coerce").fillna(0).astype(np.int64),
        "at": times,
        "version": pd.Series(column("model_version", ""), dtype=object).map(str),
        "prediction": pd.Series(column("prediction"), dtype=object),
        "probability": pd.to_numeric(pd.Series(column("probability")), errors="coerce").astype(float),
        "latency": latency,
        "error": pd.Series(column("error"), dtype=object).fillna(""),
        "is_outlier": _outliers(batch, ranges),
        **{KEY + name: pd.Series(_values(batch, name), dtype=object) for name in request.keys},
        **{SEGMENT + name: pd.Series(_values(batch, name), dtype=object) for name in request.segments},
    }
    return pd.DataFrame(columns)


def _part_of_nothing(request: QualityRequest) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    ours = ("request_id", "row", "at", "version", "prediction", "probability", "latency", "error", "is_outlier")
    return pd.DataFrame(
        {name: [] for name in (*ours, *(KEY + name for name in request.keys), *(SEGMENT + x for x in request.segments))}
    )


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    """Return the values of a column; None everywhere in a file that does not have it."""
    return batch.column(name).to_pylist() if name in batch.schema.names else [None] * batch.num_rows


def _outliers(batch: pa.RecordBatch, ranges: OutlierRanges | None) -> Sequence[bool]:
    if ranges is None:
        return [False] * batch.num_rows
    judged = [name for name in batch.schema.names if name in ranges.columns]
    if not judged:
        return [False] * batch.num_rows
    return ranges.outside(judged, zip(*(_values(batch, name) for name in judged), strict=True))
