"""Metrics of classifiers and regressors, as scikit-learn defines them; 0/0 is undefined, never a number.

To add a metric, compute it here, resample it in :mod:`.bootstrap`, and name it in ``core.evaluation.evidence.METRICS``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sk

from airflow_mcp.core.evaluation.evidence import METRICS
from airflow_mcp.work.measures.classes import Array, Classes


def classifier_metrics(
    classes: Classes, true: Array, predicted: Array, probabilities: Array | None, why_not: str
) -> Measured:
    """Measure one classifier.

    With two classes, precision, recall and F1 are those of the positive class. With more, they are unweighted means
    over the classes (macro), where a class that is never predicted counts 0, and ROC AUC is the mean over each class
    against the rest. Log loss uses the natural logarithm and probabilities clipped to the machine epsilon.

    :param classes: the classes of the evaluation.
    :param true: positions of the true classes, shape (rows,).
    :param predicted: positions of the predicted classes, shape (rows,).
    :param probabilities: shape (rows, classes) in the order of ``classes``; None when there are none.
    :param why_not: the reason why there are no probabilities.
    """
    result = Measured({"accuracy": float((true == predicted).mean())}, {})
    if len(classes.labels) < 2:
        for name in METRICS["classifier"][1:]:
            result.undefined[name] = f"only one class, {classes.labels[0]!r}, is known"
        return result
    if classes.positive is not None:
        _measure_binary(result, true == classes.positive, predicted == classes.positive)
    else:
        _measure_macro(result, true, predicted)
    _measure_probabilities(result, classes, true, probabilities, why_not)
    return result


@dataclass(frozen=True)
class Measured:
    """The metrics that have a finite value, and for the others the reason why they have none."""

    metrics: dict[str, float]
    undefined: dict[str, str]


def _measure_binary(result: Measured, true: Array, predicted: Array) -> None:
    hits = int((true & predicted).sum())
    parts = {
        "precision": (hits, int(predicted.sum()), "the model predicts the positive class for no row"),
        "recall": (hits, int(true.sum()), "no row is labelled with the positive class"),
        "f1": (2 * hits, int(true.sum() + predicted.sum()), "the positive class is neither labelled nor predicted"),
    }
    for name, (above, below, reason) in parts.items():
        if below:
            result.metrics[name] = above / below
        else:
            result.undefined[name] = reason


def _measure_macro(result: Measured, true: Array, predicted: Array) -> None:
    precision, recall, f1, _ = sk.precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
    result.metrics.update(precision=float(precision), recall=float(recall), f1=float(f1))


def _measure_probabilities(
    result: Measured, classes: Classes, true: Array, probabilities: Array | None, why_not: str
) -> None:
    if probabilities is None:
        result.undefined.update(roc_auc=why_not, log_loss=why_not)
        return
    result.metrics["log_loss"] = float(sk.log_loss(true, probabilities, labels=range(len(classes.labels))))
    positions = range(len(classes.labels)) if classes.positive is None else [classes.positive]
    absent = [classes.labels[position] for position in positions if not 0 < int((true == position).sum()) < len(true)]
    if absent:
        result.undefined["roc_auc"] = f"the labels are all or never {', '.join(map(repr, absent))}"
        return
    areas = [sk.roc_auc_score(true == position, probabilities[:, position]) for position in positions]
    result.metrics["roc_auc"] = float(np.mean(areas))


def regressor_metrics(true: Array, predicted: Array) -> Measured:
    """Measure one regressor: mean absolute error and root mean squared error, in units of the label, and R².

    :param true: labels, shape (rows,).
    :param predicted: predictions, shape (rows,).
    :return: R² is ``1 - Σ(y-ŷ)²/Σ(y-ȳ)²``, undefined when all labels are equal. A metric is also undefined when a
        number that it is computed from is too large for a double.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported as undefined below
        errors = true - predicted
        squares = float((errors**2).sum())
        spread = float(((true - true.mean()) ** 2).sum())
        width = float(np.ptp(true))
        values = {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(squares / len(true)))}
    undefined: dict[str, str] = {}
    if width > 0 and spread != 0:
        values["r2"] = 1 - squares / spread if np.isfinite(spread) else np.nan
    else:
        undefined["r2"] = "all labels are equal"
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    undefined.update({name: "the number is too large for a double" for name in values if name not in finite})
    return Measured(finite, undefined)
