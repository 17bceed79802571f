"""Predictions of candidate and champion for the same rows, and their metrics on all rows or a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.core.evaluation.evidence import EvaluationRequest
from airflow_mcp.exceptions import DatasetError, RefusedError
from airflow_mcp.work.measures.classes import (
    AnsweredClasses,
    Array,
    Classes,
    align_probabilities,
    find_classes,
    no_classes,
    require_classes,
)
from airflow_mcp.work.measures.metrics import Measured, classifier_metrics, regressor_metrics
from airflow_mcp.work.models.loaded_model import LoadedModel, as_array, one_prediction_per_row

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredModel:
    """One model's predictions for every row of the dataset."""

    model: LoadedModel
    inputs: Any
    """Rows in the form that the model takes."""
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

    def predictions(self) -> list[Any]:
        """Return the predictions in the form of the label column."""
        if self.classes is None:
            return list(self.predicted.tolist())
        return [self.classes.labels[position] for position in self.predicted]

    def scores(self) -> Array | None:
        """Return the probability of the positive class, or of the predicted one of more than two; None if unknown."""
        if self.classes is None or self.probabilities is None:
            return None
        if self.classes.positive is not None:
            return np.asarray(self.probabilities[:, self.classes.positive])
        return np.asarray(self.probabilities[np.arange(len(self.predicted)), self.predicted])


def score_models(models: Sequence[LoadedModel], frame: pd.DataFrame, request: EvaluationRequest) -> list[ScoredModel]:
    """Predict every row with every model.

    :param models: models to compare.
    :param frame: dataset with the label column.
    :param request: names the label column, the model type and the positive class.
    :return: in the order of ``models``.
    :raises DatasetError: when labels are missing or not of the model type's kind, or the columns do not fit a model.
    :raises RefusedError: when a model's answers cannot be measured.
    """
    labels = _checked_labels(frame[request.target], request)
    inputs = [model.prepare(frame, request.target) for model in models]
    if request.model_type == "regressor":
        return [_score_regressor(model, rows, labels) for model, rows in zip(models, inputs, strict=True)]
    return _score_classifiers(models, inputs, labels, request)


def _score_regressor(model: LoadedModel, inputs: Any, labels: Array) -> ScoredModel:
    return ScoredModel(model, inputs, labels, predicted_numbers(model, inputs))


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


def _score_classifiers(
    models: Sequence[LoadedModel], inputs: Sequence[Any], labels: Array, request: EvaluationRequest
) -> list[ScoredModel]:
    answers = [classes_and_probabilities(model, rows) for model, rows in zip(models, inputs, strict=True)]
    answered = [
        AnsweredClasses(model.uri, predicted, model.classes)
        for model, (predicted, _, _) in zip(models, answers, strict=True)
    ]
    for each in answered:
        require_classes(each.predicted, each.uri)
    classes = find_classes(labels, answered, request.positive_label)
    true = classes.encode(labels)
    scored = []
    for model, rows, (predicted, raw, why_not) in zip(models, inputs, answers, strict=True):
        aligned = None if raw is None else align_probabilities(raw, model.classes or (), classes)
        scored.append(ScoredModel(model, rows, true, classes.encode(predicted), classes, aligned, why_not))
    return scored


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


def _checked_labels(labels: pd.Series[Any], request: EvaluationRequest) -> Array:
    missing = int(labels.isna().sum())
    if missing:
        raise DatasetError(
            f"label column {request.target!r} has no value in {missing} of {len(labels)} rows. Rows are never left "
            "out; pin a dataset in which every row has a label. Nothing was measured"
        )
    values = labels.to_numpy()
    if request.model_type == "classifier":
        if wrong := no_classes(values):
            raise DatasetError(
                f"label column {request.target!r} has {wrong}, which cannot be classes: they are texts, whole numbers, "
                "true and false. For numbers, use model_type='regressor'. Nothing was measured"
            )
        return np.asarray(values)
    if values.dtype.kind not in "iufb" or not np.isfinite(values.astype(float)).all():
        raise DatasetError(
            f"label column {request.target!r} is of type {labels.dtype}; model_type='regressor' needs finite numbers. "
            "Nothing was measured"
        )
    return np.asarray(values.astype(float))
