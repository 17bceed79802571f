"""The importance of each feature, for any kind of model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import inspection
from sklearn import metrics as sk

from airflow_mcp.exceptions import FailedError
from airflow_mcp.work.measures.classes import align_probabilities
from airflow_mcp.work.measures.scoring import ScoredModel, classes_and_probabilities, predicted_numbers

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
REPEATS = 5
"""Shuffles per feature, as scikit-learn's default; each costs one prediction of all rows."""
SEED = 0
"""Fixed, so that a repeated step gives the same importance."""


def measure_importance(scored: ScoredModel, rows: int) -> dict[str, float]:
    """Measure how much the loss grows when the values of a feature are shuffled among the rows.

    This is permutation importance (Breiman, 2001; Fisher, Rudin and Dominici, 2019), computed with scikit-learn as the
    mean of 5 shuffles. The loss is the log loss, the error rate of a classifier without probabilities, or the squared
    error of a regressor. Correlated features share their importance, or hide it from each other.

    :param scored: a model's predictions for labelled rows that it was not trained on; its inputs have at least the
        rows that :func:`rows_for_importance` names.
    :param rows: largest number of rows to draw; each feature costs 5 predictions of them.
    :return: feature to its share of the total growth, from 0 to 1; all 0 when no feature matters. Empty for a model
        that takes an array, whose features have no names, and when the loss is too large for a double.
    :raises RefusedError: when the model fails on the rows.
    """
    if not hasattr(scored.inputs, "columns"):
        _log.info("importance: %s takes an array, so its features have no names", scored.model.uri)
        return {}
    random = np.random.RandomState(SEED)
    chosen = _draw(random, len(scored.true), rows)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported below
        found = inspection.permutation_importance(
            _Placeholder(),
            scored.inputs.loc[chosen].reset_index(drop=True),
            scored.true[chosen],
            scoring=lambda _, asked, true: -_loss(scored, asked, true),
            n_repeats=REPEATS,
            random_state=random,
        )
    growth = np.maximum(found.importances_mean, 0)
    if not np.isfinite(growth.sum()):
        _log.info("importance: the loss of %s is too large for a double", scored.model.uri)
        return {}
    shares = growth / (growth.sum() or 1)
    return {str(name): float(share) for name, share in zip(scored.inputs.columns, shares, strict=True)}


def rows_for_importance(total: int, rows: int) -> np.ndarray[Any, Any]:
    """Return the numbers of the rows that importance is measured on, in the order in which they are drawn.

    :param total: number of all rows.
    :param rows: largest number of rows to draw.
    """
    return _draw(np.random.RandomState(SEED), total, rows)


def _draw(random: np.random.RandomState, total: int, rows: int) -> np.ndarray[Any, Any]:
    return random.permutation(total)[:rows]


class _Placeholder:
    """Stands in for the model: scikit-learn requires an object with ``fit``, and the loss calls the model itself."""

    def fit(self, features: Any, labels: Any) -> None:
        raise FailedError("a model that is being measured is not fitted")


def _loss(scored: ScoredModel, rows: pd.DataFrame, true: np.ndarray[Any, Any]) -> float:
    if scored.classes is None:
        return float(np.mean((predicted_numbers(scored.model, rows) - true) ** 2))
    predicted, raw, _ = classes_and_probabilities(scored.model, rows)
    known = range(len(scored.classes.labels))
    if raw is None or scored.probabilities is None or len(known) < 2:
        return float(np.mean(scored.classes.encode(predicted) != true))
    aligned = align_probabilities(raw, scored.model.classes or (), scored.classes)
    return float(sk.log_loss(true, aligned, labels=list(known)))
