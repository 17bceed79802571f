"""Diagnostics of one model: confusion matrix, calibration, histogram of residuals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from airflow_mcp.core.evaluation.diagnostics import (
    CALIBRATION_BINS,
    HISTOGRAM_BINS,
    MAX_CLASSES,
    MAX_CONFUSIONS,
    Calibration,
    CalibrationBin,
    Confusion,
    ConfusionMatrix,
    Histogram,
)
from airflow_mcp.work.measures.classes import Array, Classes, name_of
from airflow_mcp.work.measures.scoring import ScoredModel

_RESIDUAL_RANGE = (0.005, 0.995)
"""Quantiles between which residuals are shown; values outside are counted."""
OTHER = "(other)"
"""Name of the last line of a large confusion matrix, which stands for its smallest classes."""


class ModelDiagnostics(NamedTuple):
    """Diagnostics of one model."""

    confusion: ConfusionMatrix | None
    calibration: Calibration | None
    residuals: Histogram | None
    metrics: dict[str, float]
    """``brier`` and ``ece``, if there are probabilities."""
    undefined: dict[str, str]


def diagnose(scored: ScoredModel) -> ModelDiagnostics:
    """Diagnose one model.

    :param scored: its predictions for every row.
    """
    if scored.classes is None:
        return ModelDiagnostics(None, None, _residuals(scored), {}, {})
    confusion = confusion_matrix(scored.classes, scored.true, scored.predicted)
    if scored.probabilities is None or len(scored.classes.labels) < 2:
        why = scored.why_not or f"only one class, {scored.classes.labels[0]!r}, is known"
        return ModelDiagnostics(confusion, None, None, {}, {"brier": why, "ece": why})
    calibration = calibrate(scored.classes, scored.true, scored.predicted, scored.probabilities)
    return ModelDiagnostics(confusion, calibration, None, {"brier": calibration.brier, "ece": calibration.ece}, {})


def confusion_matrix(classes: Classes, true: Array, predicted: Array) -> ConfusionMatrix:
    """Count how often each class is predicted as each class; memory does not grow with the square of the classes.

    :param classes: all classes; beyond :data:`MAX_CLASSES` the smallest share the last line and column.
    :param true: positions of the true classes, shape (rows,).
    :param predicted: positions of the predicted classes, shape (rows,).
    """
    names = [name_of(label) for label in classes.labels]
    total = len(names)
    pairs, counts = np.unique(true.astype(np.int64) * total + predicted, return_counts=True)
    of_true, of_predicted = pairs // total, pairs % total
    place, shown, folded = _places(names, np.bincount(true, minlength=total) + np.bincount(predicted, minlength=total))
    matrix = np.zeros((len(shown), len(shown)), dtype=np.int64)
    np.add.at(matrix, (place[of_true], place[of_predicted]), counts)
    wrong = [
        (-int(count), int(row), int(column))
        for row, column, count in zip(of_true, of_predicted, counts, strict=True)
        if row != column
    ]
    largest = [
        Confusion(true=names[row], predicted=names[column], rows=-count)
        for count, row, column in sorted(wrong)[:MAX_CONFUSIONS]
    ]
    lines = tuple(tuple(int(count) for count in line) for line in matrix)
    return ConfusionMatrix(labels=tuple(shown), counts=lines, folded=folded, largest=tuple(largest))


def calibrate(classes: Classes, true: Array, predicted: Array, probabilities: Array) -> Calibration:
    """Compare probabilities with outcomes, in the bins of scikit-learn's ``calibration_curve``.

    :param classes: two or more.
    :param true: positions of the true classes, shape (rows,).
    :param predicted: positions of the predicted classes, shape (rows,).
    :param probabilities: shape (rows, classes).
    """
    rows = np.arange(len(true))
    if classes.positive is not None:
        stated, occurred = probabilities[:, classes.positive], true == classes.positive
        brier = float(((stated - occurred) ** 2).mean())
    else:
        stated, occurred = probabilities[rows, predicted], true == predicted
        squares = (probabilities**2).sum(axis=1) - 2 * probabilities[rows, true] + 1
        brier = float(squares.mean())
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    place = np.searchsorted(edges[1:-1], stated)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    positives = np.bincount(place, weights=occurred, minlength=CALIBRATION_BINS)
    sums = np.bincount(place, weights=stated, minlength=CALIBRATION_BINS)
    bins = tuple(
        CalibrationBin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            rows=int(counts[number]),
            positives=int(positives[number]),
            mean_probability=float(sums[number] / counts[number]) if counts[number] else None,
        )
        for number in range(CALIBRATION_BINS)
    )
    event = "positive_class" if classes.positive is not None else "predicted_class"
    ece = float(np.abs(positives - sums).sum() / len(true))
    return Calibration(event=event, bins=bins, ece=ece, brier=brier)


def histogram(values: Array, between: tuple[float, float]) -> Histogram:
    """Count values in bins of equal width between two quantiles, and the values outside.

    :param values: at least one finite number, shape (n,).
    :param between: quantiles at which the first bin begins and the last one ends.
    """
    low, high = (float(edge) for edge in np.quantile(values, between))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    if not low < high:
        half = max(abs(low) * 1e-6, 1e-9)  # all values are equal: make narrow bins around them
        low, high = low - half, high + half
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(values, bins=edges)
    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
        below=int((values < edges[0]).sum()),
        above=int((values > edges[-1]).sum()),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def _residuals(scored: ScoredModel) -> Histogram | None:
    """Return the histogram of label minus prediction; None when the numbers are too large for a double."""
    with np.errstate(over="ignore"):
        residuals = scored.true - scored.predicted
        return histogram(residuals, _RESIDUAL_RANGE) if np.isfinite(np.ptp(residuals)) else None


def _places(names: list[str], sizes: Array) -> tuple[Array, list[str], int]:
    """Return the line of each class, the names of the lines, and how many classes the last line combines."""
    total = len(names)
    if total <= MAX_CLASSES:
        return np.arange(total), names, 0
    kept = sorted(np.argsort(-sizes, kind="stable")[: MAX_CLASSES - 1].tolist())
    place = np.full(total, MAX_CLASSES - 1)
    place[kept] = np.arange(len(kept))
    return place, [*(names[position] for position in kept), OTHER], total - len(kept)
