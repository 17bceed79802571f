"""The classes of an evaluation: their labels, which one is positive, and their order in probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, RefusedError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Classes:
    """The classes of an evaluation, the same for every model in it."""

    labels: tuple[Any, ...]
    """Sorted labels; elsewhere a class is represented by its position here."""
    positive: int | None
    """Position of the positive class; None unless there are exactly two classes."""

    def encode(self, values: Iterable[Any]) -> Array:
        """Return the position of each label, shape (rows,)."""
        positions = {label: position for position, label in enumerate(self.labels)}
        return np.asarray([positions[plain_label(value)] for value in values], dtype=np.int64)


def plain_label(value: Any) -> Any:
    """Return a label as a plain Python value; ``1.0`` becomes ``1``: pandas reads whole numbers with gaps as floats."""
    plain = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def find_classes(
    labels: Iterable[Any], predicted: Sequence[Iterable[Any]], known: Sequence[Sequence[Any] | None], positive: Any
) -> Classes:
    """Find all classes and the positive one.

    :param labels: true labels.
    :param predicted: predictions of each model.
    :param known: ``classes_`` of each model, or None.
    :param positive: the positive class; None takes the greater of two.
    :raises RefusedError: when a model's predictions and the labels have no class in common.
    :raises InvalidArgumentError: when the positive class is not one of two classes.
    """
    true = {plain_label(value) for value in labels}
    every = set(true)
    for outputs, classes in zip(predicted, known, strict=True):
        of_model = {plain_label(value) for value in outputs} | {plain_label(value) for value in classes or ()}
        _require_common_class(true, of_model)
        every |= of_model
    if positive is not None and len(every) == 1:
        every.add(plain_label(positive))
    ordered = _sorted(every)
    return Classes(tuple(ordered), _positive_position(ordered, positive))


def align_probabilities(values: Array, model_classes: Sequence[Any], classes: Classes) -> Array:
    """Return a model's probabilities in the order of the evaluation's classes.

    :param values: shape (rows, classes of the model).
    :param model_classes: the model's classes.
    :param classes: the classes of the evaluation; one that the model does not know gets probability 0.
    """
    aligned = np.zeros((len(values), len(classes.labels)))
    aligned[:, classes.encode(model_classes)] = values
    return aligned


def _require_common_class(true: set[Any], of_model: set[Any]) -> None:
    if true.isdisjoint(of_model):
        raise RefusedError(
            f"the model predicts {_some(of_model)}, the label column has {_some(true)}: they have no class in common. "
            "A classifier must predict the labels themselves; for numbers, use model_type='regressor'. "
            "Nothing was recorded"
        )


def _positive_position(ordered: list[Any], positive: Any) -> int | None:
    if positive is None:
        return 1 if len(ordered) == 2 else None
    wanted = plain_label(positive)
    if wanted not in ordered:
        raise InvalidArgumentError(
            f"positive_label must be one of the classes {_some(set(ordered))}; got {positive!r}. Nothing was recorded"
        )
    if len(ordered) != 2:
        raise InvalidArgumentError(
            f"positive_label must be empty unless there are two classes; got {positive!r} with {len(ordered)} classes: "
            f"{_some(set(ordered))}. Nothing was recorded"
        )
    return ordered.index(wanted)


def _sorted(labels: set[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:
        raise DatasetError(
            f"labels and predictions mix types that cannot be sorted: {_some(labels)}. Nothing was recorded"
        ) from None


def _some(values: set[Any], limit: int = 8) -> str:
    shown = sorted(map(repr, values))
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
