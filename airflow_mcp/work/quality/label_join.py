"""Joins logged predictions with labels that arrived later; a label that is not certain counts as missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.quality.summary import JoinCounts, QualityRequest
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.measures.classes import name_of
from airflow_mcp.work.quality.logged_predictions import KEY, LoggedPredictions
from airflow_mcp.work.reading.dataset_batches import open_data
from airflow_mcp.work.reading.request_log import RequestLog

if TYPE_CHECKING:
    import pandas as pd

REQUEST_ID, ROW = "request_id", "row"
"""Columns of labels that are joined by the request."""


class Labelled(NamedTuple):
    """Predictions with a column ``label``, which is None where no label is certain."""

    frame: pd.DataFrame
    counts: JoinCounts
    pins: tuple[DatasetPin, ...]
    """The labels as read, with hashes where they were verified."""


class _Labels(NamedTuple):
    frame: pd.DataFrame
    """Key columns as text, ``label``, and ``known`` (seconds since the epoch)."""
    keys: tuple[str, ...]
    counts: dict[str, int]
    pins: tuple[DatasetPin, ...]


def join_labels(request: QualityRequest, logged: LoggedPredictions) -> Labelled:
    """Join each prediction with its label.

    Labels are joined by ``request_id``, and by ``row`` if they have that column; the newest label of a key counts. With
    ``keys`` a label belongs to the predictions of its entity that were made before it became known, and of several
    later labels the first one counts.

    :param request: names the labels and how they are joined.
    :param logged: the predictions.
    :raises DatasetError: when the labels lack a column.
    """
    labels = _read(request)
    frame = logged.frame[logged.frame["error"] == ""].reset_index(drop=True)
    if request.keys:
        joined, ambiguous = _by_entity(frame, labels), 0
    else:
        labels = _newest(labels, has_times=bool(request.label_time_column))
        joined, ambiguous = _by_request(frame, labels)
    counts = JoinCounts(predictions=len(frame), repeated=logged.repeated, ambiguous=ambiguous, **labels.counts)
    return Labelled(joined, counts, labels.pins)


def _read(request: QualityRequest) -> _Labels:
    import pandas as pd  # noqa: PLC0415

    with open_data(request.labels) as scan:
        keys = request.keys or ((REQUEST_ID, ROW) if ROW in scan.columns else (REQUEST_ID,))
        needed = [*keys, request.label_column, *([request.label_time_column] if request.label_time_column else [])]
        absent = [name for name in needed if name not in scan.columns]
        if absent:
            raise DatasetError(
                f"the labels have no column {', '.join(map(repr, absent))}; they have "
                f"{', '.join(map(repr, list(scan.columns)[:30]))}. Nothing was judged"
            )
        batches = scan.reading(texts=keys).batches(frozenset(needed))
        tables: list[pd.DataFrame] = [
            pd.DataFrame({name: pd.Series(batch.column(name).to_pylist(), dtype=object) for name in needed})
            for batch in batches
        ]
        pins = scan.pins
    frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({name: [] for name in needed})
    return _usable(request, frame, keys, pins)


def _usable(request: QualityRequest, frame: pd.DataFrame, keys: Sequence[str], pins: tuple[DatasetPin, ...]) -> _Labels:
    """Return the labels that have a value, a key and, if they have times, became known before the check."""
    import pandas as pd  # noqa: PLC0415

    total = len(frame)
    label = frame[request.label_column]
    named = frame[list(keys)]
    given = label.notna() & named.notna().all(axis=1) & (named != "").all(axis=1)
    known = np.full(total, -np.inf)
    if request.label_time_column:
        known = RequestLog.seconds(frame[request.label_time_column])
    in_time = given.to_numpy() & (known <= request.as_of.timestamp())  # NaN, an unreadable time, is not
    kept = frame[in_time]
    columns: dict[str, Any] = {name: kept[name].map(name_of) for name in keys}
    columns |= {"label": kept[request.label_column], "known": known[in_time]}
    empty = total - int(given.sum())
    counts = {"labels": total, "empty": empty, "later": total - empty - len(kept)}
    return _Labels(pd.DataFrame(columns).reset_index(drop=True), tuple(keys), counts, pins)


def _newest(labels: _Labels, *, has_times: bool) -> _Labels:
    """Return one label per key: the newest; keys with different labels at the same time have none."""
    frame, keys = labels.frame, list(labels.keys)
    if has_times:
        newest = frame.groupby(keys)["known"].transform("max")
        frame = frame[frame["known"] == newest]
    texts = frame["label"].map(name_of)
    different = texts.groupby([frame[key] for key in keys]).transform("nunique") > 1
    conflicting = len(frame.loc[different, keys].drop_duplicates())
    certain = frame[~different].drop_duplicates(keys)
    return labels._replace(frame=certain, counts={**labels.counts, "conflicting": conflicting})


def _by_request(frame: pd.DataFrame, labels: _Labels) -> tuple[pd.DataFrame, int]:
    keys = list(labels.keys)
    left = frame[keys].astype(str) if len(frame) else frame[keys].astype(object)
    joined = left.merge(labels.frame[[*keys, "label"]], on=keys, how="left")["label"]
    ambiguous = 0
    if ROW not in keys:
        several = frame.groupby(REQUEST_ID)[ROW].transform("size") > 1
        ambiguous = int((several & joined.notna()).sum())
        joined = joined.where(~several, None)
    return frame.assign(label=joined.astype(object).where(joined.notna(), None).to_numpy()), ambiguous


def _by_entity(frame: pd.DataFrame, labels: _Labels) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    keys = list(labels.keys)
    named = frame[[KEY + key for key in keys]]
    left = pd.DataFrame({key: named[KEY + key].map(name_of).astype(object) for key in keys})
    left["at"] = frame["at"].astype(float)
    left["position"] = np.arange(len(frame))
    left = left[named.notna().all(axis=1)]  # else a prediction without a key would be that of the entity "None"
    # Labels without a row have columns of numbers.
    right = labels.frame.astype({**dict.fromkeys(keys, object), "known": float}).sort_values("known", kind="stable")
    merged = pd.merge_asof(
        left.sort_values("at", kind="stable"), right, left_on="at", right_on="known", by=keys, direction="forward"
    )
    found = merged.set_index("position")["label"].reindex(range(len(frame))).astype(object)
    return frame.assign(label=found.where(found.notna(), None).to_numpy())
