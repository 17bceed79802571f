"""Metrics of classifiers. Definitions are scikit-learn's; what is 0/0 there is undefined here, never a number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import metrics as sk

from airflow_mcp.core.evaluation.evidence import METRICS
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, RefusedError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Classes:
    """The classes of an evaluation, the same for every model in it."""

    labels: tuple[Any, ...]
    """Sorted; a class is its position here."""
    positive: int | None
    """Position of the positive class; None when there are more than two classes, or one."""

    def encode(self, values: Iterable[Any]) -> Array:
        """Give each value's position, shape (rows,)."""
        positions = {label: position for position, label in enumerate(self.labels)}
        return np.asarray([positions[plain_label(value)] for value in values], dtype=np.int64)


def plain_label(value: Any) -> Any:
    """Give a label as a plain Python value; ``1.0`` is the class ``1``, as in a file that had gaps once."""
    plain = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def find_classes(
    labels: Iterable[Any], predicted: Sequence[Iterable[Any]], known: Sequence[Sequence[Any] | None], positive: Any
) -> Classes:
    """Find the classes and which is the positive one.

    :param labels: true labels.
    :param predicted: predictions of each model.
    :param known: ``classes_`` of each model, or None.
    :param positive: the positive class; None means the greater of two.
    :raises RefusedError: when a model's predictions are not labels of this column.
    :raises InvalidArgumentError: when the positive class is not one of two classes.
    """
    true = {plain_label(value) for value in labels}
    every = set(true)
    for outputs, classes in zip(predicted, known, strict=True):
        of_model = {plain_label(value) for value in outputs} | {plain_label(value) for value in classes or ()}
        _refuse_strangers(true, of_model)
        every |= of_model
    if positive is not None and len(every) == 1:
        every.add(plain_label(positive))
    ordered = _sorted(every)
    return Classes(tuple(ordered), _positive_position(ordered, positive))


def measure(classes: Classes, true: Array, predicted: Array, probabilities: Array | None, why_not: str) -> Measured:
    """Measure one classifier.

    Two classes: precision, recall and F1 of the positive class. More: their unweighted means over the classes
    (macro), where a class that is never predicted counts 0; ROC AUC is the mean of one class against the rest.
    Log loss is the natural logarithm's, with probabilities clipped to the machine's epsilon.

    :param true: positions of the true classes, shape (rows,).
    :param predicted: positions of the predicted classes, shape (rows,).
    :param probabilities: shape (rows, classes) in the order of ``classes``; None when there are none.
    :param why_not: the reason for None.
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
    """Finite metrics, and the reasons why others have no value."""

    metrics: dict[str, float]
    undefined: dict[str, str]


def align_probabilities(values: Array, model_classes: Sequence[Any], classes: Classes) -> Array:
    """Reorder a model's probabilities to the evaluation's classes; a class the model does not know gets 0."""
    aligned = np.zeros((len(values), len(classes.labels)))
    aligned[:, classes.encode(model_classes)] = values
    return aligned


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


def _refuse_strangers(true: set[Any], of_model: set[Any]) -> None:
    if true.isdisjoint(of_model):
        raise RefusedError(
            f"The model predicts {_some(of_model)}, the label column has {_some(true)}: not one class in common. A "
            "classifier must predict the labels themselves (for numbers, use model_type='regressor'). "
            "Nothing was recorded."
        )


def _positive_position(ordered: list[Any], positive: Any) -> int | None:
    if positive is None:
        return 1 if len(ordered) == 2 else None
    wanted = plain_label(positive)
    if wanted not in ordered:
        raise InvalidArgumentError(
            f"positive_label {positive!r} is not a class of this evaluation: {_some(set(ordered))}. "
            "Nothing was recorded."
        )
    if len(ordered) != 2:
        raise InvalidArgumentError(
            f"positive_label {positive!r} is given, but there are {len(ordered)} classes: {_some(set(ordered))}. It is "
            "meaningful for two. Nothing was recorded."
        )
    return ordered.index(wanted)


def _sorted(labels: set[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:
        raise DatasetError(f"Labels and predictions mix types that have no order: {_some(labels)}.") from None


def _some(values: set[Any], limit: int = 8) -> str:
    shown = sorted(map(repr, values))
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
