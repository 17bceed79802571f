"""Metrics of regressors, in the units of the label (R² has none)."""

from __future__ import annotations

from typing import Any

import numpy as np

from airflow_mcp.work.measures.metrics import Measured


def measure(true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> Measured:
    """Measure one regressor: mean absolute error, root of the mean squared error, coefficient of determination.

    :param true: labels, shape (rows,).
    :param predicted: predictions, shape (rows,).
    :return: R² is ``1 - Σ(y-ŷ)²/Σ(y-ȳ)²`` and undefined when all labels are equal.
    """
    errors = true - predicted
    with np.errstate(over="ignore"):
        squares = float((errors**2).sum())
        spread = float(((true - true.mean()) ** 2).sum())
    values = {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(squares / len(true)))}
    undefined: dict[str, str] = {}
    if np.ptp(true) > 0 and spread > 0:
        values["r2"] = 1 - squares / spread
    else:
        undefined["r2"] = "all labels are equal"
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    undefined.update({name: "the number is too large for a double" for name in values if name not in finite})
    return Measured(finite, undefined)
