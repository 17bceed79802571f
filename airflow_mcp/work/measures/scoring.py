"""Predictions of a model, and their metrics on all rows or a part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from airflow_mcp.exceptions import RefusedError
from airflow_mcp.work.measures.classes import Array, Classes
from airflow_mcp.work.measures.metrics import Measured, classifier_metrics, regressor_metrics
from airflow_mcp.work.models.loaded_model import LoadedModel, as_array, one_prediction_per_row


@dataclass(frozen=True)
class ScoredModel:
    """One model's predictions for every row of the dataset."""

    model: LoadedModel
    inputs: Any
    """Some rows in the form that the model takes, the first ones among them; a DataFrame has their numbers as index."""
    true: Array
    """Labels, or for a classifier their positions in the classes; shape (rows,)."""
    predicted: Array
    """Predictions, in the form of ``true``."""
    classes: Classes | None = None
    """None for a regressor."""
    probabilities: Array | None = None
    """Shape (rows, classes)."""
    why_not: str = ""
    """Why there are no probabilities."""

    def measure(self) -> Measured:
        """Compute the metrics on all rows."""
        if self.classes is None:
            return regressor_metrics(self.true, self.predicted)
        return classifier_metrics(self.classes, self.true, self.predicted, self.probabilities, self.why_not)

    def part(self, rows: Array) -> ScoredModel:
        """Return the predictions for some of the rows.

        :param rows: boolean mask of shape (rows,).
        """
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return replace(
            self, inputs=None, true=self.true[rows], predicted=self.predicted[rows], probabilities=probabilities
        )

    def scores(self) -> Array | None:
        """Return the probability of the positive class, or of the predicted one of more than two; None if unknown."""
        if self.classes is None or self.probabilities is None:
            return None
        if self.classes.positive is not None:
            return np.asarray(self.probabilities[:, self.classes.positive])
        return np.asarray(self.probabilities[np.arange(len(self.predicted)), self.predicted])


def predicted_numbers(model: LoadedModel, inputs: Any) -> Array:
    """Predict with a regressor.

    :param model: the model.
    :param inputs: rows in the form that it takes.
    :raises RefusedError: when it fails, or does not return one finite number per row.
    """
    values = one_prediction_per_row(model.predict(inputs), len(inputs), model.uri)
    if values.dtype.kind not in "iufb":
        raise RefusedError(
            f"model {model.uri} predicts values of type {values.dtype}, but model_type='regressor' needs numbers. "
            "Nothing was recorded"
        )
    return values.astype(float)


def classes_and_probabilities(model: LoadedModel, inputs: Any) -> tuple[Array, Array | None, str]:
    """Predict with a classifier.

    :param model: the model.
    :param inputs: rows in the form that it takes.
    :return: predictions, which need not be classes (see :func:`.classes.require_classes`); probabilities or None; and
        the reason for None.
    :raises RefusedError: when it fails, or does not return one finite value per row.
    """
    output = as_array(model.predict(inputs), model.uri)
    probabilities, why_not = model.probabilities(inputs)
    shape = output.shape
    if len(shape) == 2 and shape[1] > 1 and probabilities is not None and shape == probabilities.shape:
        # Logged with pyfunc_predict_fn="predict_proba": the predicted class is the most probable one.
        best = np.asarray(model.classes, dtype=object)[output.argmax(axis=1)]
        return best, probabilities, why_not
    return one_prediction_per_row(output, len(inputs), model.uri), probabilities, why_not
