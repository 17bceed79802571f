"""The classes of an evaluation: their labels, which one is positive, and their order in probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

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
        """Return the position of each label, -1 for a value that is none of the labels; shape (rows,).

        The positions have the smallest type that holds them: there is one for each row, also of large data.
        """
        positions = {label: position for position, label in enumerate(self.labels)}
        smallest = np.min_scalar_type(-1 - len(self.labels))
        if isinstance(values, np.ndarray):
            codes, known = distinct(values)
            of_known = [positions.get(plain_label(value), -1) for value in known]
            return np.asarray([*of_known, -1], dtype=smallest)[codes]
        return np.asarray([positions.get(plain_label(value), -1) for value in values], dtype=smallest)


class AnsweredClasses(NamedTuple):
    """The classes of one model, as it answers and as it knows them."""

    uri: str
    predicted: Iterable[Any]
    """Its predictions."""
    known: Sequence[Any] | None = None
    """Its ``classes_``, if it exposes them."""


def plain_label(value: Any) -> Any:
    """Return a label as a plain Python value; ``1.0`` becomes ``1``: pandas reads whole numbers with gaps as floats."""
    plain = value.item() if isinstance(value, np.generic) and value.dtype.kind not in "Mm" else value
    if isinstance(plain, float):
        return int(plain) if plain.is_integer() else plain
    if isinstance(plain, Decimal):
        return int(plain) if plain.is_finite() and plain == plain.to_integral_value() else plain
    return plain


def distinct(values: Any) -> tuple[Array, Array]:
    """Return, for each value, its place among the distinct ones, -1 for a missing value; and the distinct values.

    :param values: array or column; values that are equal, such as 1 and true, are not distinct.
    """
    import pandas as pd  # noqa: PLC0415

    codes, known = pd.factorize(values)
    return codes, np.asarray(pd.Index(known).astype(object))


def name_of(value: Any) -> str:
    """Return a value as text: one value has one name, whether a file holds it as 1 or, for a gap elsewhere, as 1.0.

    :param value: a value of a column; half a surrogate pair, which JSON can hold and UTF-8 cannot, is escaped.
    """
    return str(plain_label(value)).encode("utf-8", "backslashreplace").decode("utf-8")


def no_classes(values: Iterable[Any]) -> str:
    """Describe the values that cannot be classes: all but texts, whole numbers, true and false.

    :param values: labels or predictions.
    :return: for example "fractions"; empty when all values can be classes.
    """
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "O"
    if kind in "biuU":
        return ""
    for value in map(plain_label, values):
        if not isinstance(value, str | int):
            return _wrong_class(value)
    return ""


def _wrong_class(value: Any) -> str:
    if not isinstance(value, float | Decimal):
        return f"values of type {type(value).__name__}"
    return "fractions" if math.isfinite(value) else "numbers that are not finite"


def require_classes(values: Iterable[Any], uri: str) -> None:
    """Check that the answers of a model are classes, whatever the labels are.

    :param values: its predictions.
    :param uri: address of the model.
    :raises RefusedError: when an answer is a fraction, such as a probability, a mapping, a time or the like.
    """
    wrong = no_classes(values)
    if wrong:
        raise RefusedError(
            f"model {uri} answers with {wrong}, which cannot be classes. A classifier must predict the labels "
            "themselves; log it with a predict function that does, or use model_type='regressor' for numbers. "
            "Nothing was recorded"
        )


def find_classes(labels: Iterable[Any], models: Sequence[AnsweredClasses], positive: Any) -> Classes:
    """Find all classes and the positive one.

    :param labels: true labels.
    :param models: the answers of each model.
    :param positive: the positive class; None takes the greater of two.
    :raises RefusedError: when a model's predictions and the labels have no class in common.
    :raises InvalidArgumentError: when the positive class is not one of two classes.
    """
    true = {plain_label(value) for value in labels}
    every = set(true)
    for model in models:
        predicted = {plain_label(value) for value in model.predicted}
        known = {plain_label(value) for value in model.known or ()}
        _require_common_class(model.uri, predicted, known, true)
        every |= predicted | known
    if positive is not None and len(every) == 1:
        every.add(plain_label(positive))
    if any(type(label) is int for label in every):  # true is 1 and false is 0: one type, for the table of predictions
        every = {int(label) if isinstance(label, bool) else label for label in every}
    ordered = _sorted(every)
    return Classes(tuple(ordered), _positive_position(ordered, positive))


def align_probabilities(values: Array, model_classes: Sequence[Any], classes: Classes) -> Array:
    """Return a model's probabilities in the order of the evaluation's classes.

    :param values: shape (rows, classes of the model).
    :param model_classes: the model's classes.
    :param classes: the classes of the evaluation; one that the model does not know gets probability 0.
    """
    places = classes.encode(model_classes)
    if np.array_equal(places, np.arange(len(classes.labels))):
        return values  # no copy: the probabilities of large data are large
    aligned = np.zeros((len(values), len(classes.labels)))
    aligned[:, places] = values
    return aligned


def _require_common_class(uri: str, predicted: set[Any], known: set[Any], true: set[Any]) -> None:
    if true.isdisjoint(predicted | known):
        raise RefusedError(
            f"model {uri} predicts {_some(predicted | known)}, the label column has {_some(true)}: they have no class "
            "in common. A classifier must predict the labels themselves; for numbers, use model_type='regressor'. "
            "Nothing was recorded"
        )
    if known and known.isdisjoint(predicted):
        raise RefusedError(
            f"model {uri} predicts {_some(predicted)}, but none of its own classes {_some(known)}. A classifier must "
            "predict the labels themselves. Nothing was recorded"
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
