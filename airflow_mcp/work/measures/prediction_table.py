"""The table of predictions: one line for each row of the dataset, written part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mcp.work.measures.classes import name_of
from airflow_mcp.work.measures.scoring import ScoredModel

if TYPE_CHECKING:
    import pandas as pd

PART_ROWS = 1 << 20
"""Rows of a part, which becomes a row group: as many as PyArrow puts into one by default."""


def write_predictions(path: Path, labels: pd.Series[Any], scored: Sequence[ScoredModel]) -> None:
    """Write a table with the number of each row from 0, its label, and each model's prediction and score.

    :param path: file to write, of Parquet.
    :param labels: the label column.
    :param scored: predictions of the candidate, and of the champion if there is one.
    """
    columns: dict[str, Callable[[slice], Any]] = {
        "row": lambda rows: np.arange(rows.start, rows.stop),
        "label": _of_one_type(labels),
    }
    for name, answers in zip(("candidate", "champion"), scored, strict=False):
        columns[f"{name}_prediction"] = _predictions(answers)
        scores = answers.scores()
        if scores is not None:
            columns[f"{name}_score"] = scores.__getitem__
    writer = None
    for rows in _parts(len(labels)):
        part = pa.table({name: pa.array(values(rows)) for name, values in columns.items()})
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    if writer:
        writer.close()


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, PART_ROWS):
        yield slice(start, min(start + PART_ROWS, rows))


def _predictions(answers: ScoredModel) -> Callable[[slice], Any]:
    """Return a function that returns a part of the predictions in the form of the label column."""
    if answers.classes is None:
        return answers.predicted.__getitem__
    labels = answers.classes.labels
    used = [labels[position] for position in np.unique(answers.predicted)]
    names = labels if _fits([used]) else [name_of(label) for label in labels]
    return lambda rows: [names[position] for position in answers.predicted[rows]]


def _of_one_type(column: pd.Series[Any]) -> Callable[[slice], Any]:
    """Return a function that returns a part of a column: its values if a column of Parquet can hold them, else text."""
    if _fits(column.iloc[rows].tolist() for rows in _parts(len(column))):
        return lambda rows: column.iloc[rows].tolist()
    return lambda rows: [name_of(value) for value in column.iloc[rows].tolist()]


def _fits(parts: Any) -> bool:
    """Return whether a column of Parquet, which has one type of 64 bits, can hold values; texts are named anyway."""
    types: set[type] = set()
    for values in parts:
        types.update(map(type, values))
        if len(types) > 1 or str in types:
            return False
        if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
            return False
    return True
