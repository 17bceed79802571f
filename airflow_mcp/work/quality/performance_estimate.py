"""Estimates the quality of a classifier without labels, from probabilities that are calibrated.

A calibrated probability of 0.9 says that the event happens in 90 % of such cases. The sums of probabilities are
therefore the expected numbers of true and false answers (confidence-based performance estimation).
"""

from __future__ import annotations

import numpy as np

from airflow_mcp.work.measures.classes import Array


def estimate_metrics(probabilities: Array, predicted: Array) -> dict[str, float]:
    """Estimate accuracy, precision, recall, F1 and ROC AUC of a classifier of two classes.

    :param probabilities: calibrated probability of the positive class, per prediction.
    :param predicted: whether the positive class was predicted.
    :return: empty without predictions; a metric that is undefined is left out.
    """
    if not len(probabilities):
        return {}
    hits, alarms = float(probabilities[predicted].sum()), float((1 - probabilities[predicted]).sum())
    misses, rejects = float(probabilities[~predicted].sum()), float((1 - probabilities[~predicted]).sum())
    estimated = {"accuracy": (hits + rejects) / len(probabilities)}
    if hits + alarms > 0:
        estimated["precision"] = hits / (hits + alarms)
    if hits + misses > 0:
        estimated["recall"] = hits / (hits + misses)
    if 2 * hits + alarms + misses > 0:
        estimated["f1"] = 2 * hits / (2 * hits + alarms + misses)
    area = _area(probabilities)
    return estimated if area is None else {**estimated, "roc_auc": area}


def _area(probabilities: Array) -> float | None:
    """Return the expected area under the ROC curve; rows with the same probability count half against each other."""
    values, counts = np.unique(probabilities, return_counts=True)
    positives, negatives = values * counts, (1 - values) * counts
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    if pairs <= 0:
        return None
    return float((positives * (below + negatives / 2)).sum() / pairs)
