"""Predictions of candidate and champion for every row of a dataset, made batch by batch.

Only what the metrics need is kept for each row: the label, the prediction and the probabilities. A dataset of one batch
is predicted in one call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airflow_mcp.core.evaluation.evidence import EvaluationRequest
from airflow_mcp.exceptions import DatasetError, RefusedError
from airflow_mcp.work.measures.classes import (
    AnsweredClasses,
    Array,
    align_probabilities,
    distinct,
    find_classes,
    no_classes,
    plain_label,
    require_classes,
)
from airflow_mcp.work.measures.feature_importance import rows_for_importance
from airflow_mcp.work.measures.scoring import ScoredModel, classes_and_probabilities, predicted_numbers
from airflow_mcp.work.models.loaded_model import LoadedModel
from airflow_mcp.work.reading.dataset_rows import DatasetRows

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
CHECKED_ROWS = 128
"""Rows of the first batch that are predicted a second time without the others."""
MAX_DIFFERING = 0.01
"""Largest share of these rows whose answers may differ: where two classes are equally likely, rounding decides."""
_RELATIVE, _ABSOLUTE = 1e-3, 1e-6
"""Differences that count as rounding: 32-bit models add in an order that depends on the number of rows."""


def score_models(models: Sequence[LoadedModel], data: DatasetRows, request: EvaluationRequest) -> list[ScoredModel]:
    """Predict every row with every model; all models see the same batches.

    :param models: models to compare; the importance of features is measured for the first.
    :param data: dataset with the label column, which is kept whole.
    :param request: names the label column, the model type and the positive class.
    :return: in the order of ``models``.
    :raises DatasetError: when labels are missing or not of the model type's kind, or the columns do not fit a model.
    :raises RefusedError: when a model's answers cannot be measured, or depend on which rows are in a batch. Both errors
        name the first row, unless there is one batch only.
    """
    labels = _checked_labels(data.kept[request.target], request)
    first = request.latency_calls + request.latency_warmup
    chosen = rows_for_importance(len(data), request.importance_rows) if request.importance_rows else np.empty(0)
    collect = _Numbers if request.model_type == "regressor" else _Labels
    collected = [
        collect(model, len(data), _Inputs(first, chosen if number == 0 else chosen[:0]))
        for number, model in enumerate(models)
    ]
    for frame in data.batches():
        start, is_divided = int(frame.index[0]), len(data) > data.batch_rows
        for each in collected:
            prepare = partial(each.model.prepare, target=request.target)
            inputs = _of_rows(prepare, frame, start, is_divided)
            answers = _of_rows(each.ask, inputs, start, is_divided)
            if start == 0 and is_divided:
                _require_single_rows(each, inputs, answers)
            each.keep(start, inputs, answers)
        _log.info("predicted %d of %d rows", start + len(frame), len(data))
    if request.model_type == "regressor":
        return [each.scored(labels) for each in collected if isinstance(each, _Numbers)]
    return _score_classifiers([each for each in collected if isinstance(each, _Labels)], labels, request)


class _Answers(NamedTuple):
    """A model's answers for some rows."""

    values: Array
    """Numbers or labels, shape (rows,)."""
    probabilities: Array | None = None
    """Shape (rows, classes of the model)."""
    why_not: str = ""
    """Why there are no probabilities."""


class _Inputs:
    """The rows that are needed after the batch that they are in: for latency and importance.

    :param first: number of the first rows to keep.
    :param chosen: numbers of further rows to keep.
    """

    def __init__(self, first: int, chosen: Array) -> None:
        self._first, self._chosen = first, np.sort(chosen)
        self._parts: list[Any] = []

    def keep(self, start: int, inputs: Any) -> None:
        """Keep some rows of a batch.

        :param start: number of its first row.
        :param inputs: its rows in the form that the model takes.
        """
        low, high = np.searchsorted(self._chosen, [start, start + len(inputs)])
        wanted = np.union1d(np.arange(start, min(self._first, start + len(inputs))), self._chosen[low:high]) - start
        if len(wanted):
            self._parts.append(_take(inputs, wanted.astype(np.int64)))

    def joined(self) -> Any:
        """Return all rows that were kept."""
        import pandas as pd  # noqa: PLC0415

        return pd.concat(self._parts) if hasattr(self._parts[0], "columns") else np.concatenate(self._parts)


def _take(inputs: Any, rows: Array) -> Any:
    return inputs.iloc[rows] if hasattr(inputs, "iloc") else inputs[rows]


class _Numbers:
    """The predictions of a regressor."""

    def __init__(self, model: LoadedModel, rows: int, inputs: _Inputs) -> None:
        self.model, self._inputs = model, inputs
        self._values = np.empty(rows)

    def ask(self, inputs: Any) -> _Answers:
        return _Answers(predicted_numbers(self.model, inputs))

    def keep(self, start: int, inputs: Any, answers: _Answers) -> None:
        self._inputs.keep(start, inputs)
        self._values[start : start + len(inputs)] = answers.values

    def scored(self, labels: Array) -> ScoredModel:
        return ScoredModel(self.model, self._inputs.joined(), labels, self._values)


class _Labels:
    """The predictions of a classifier: for each row the number of a label, and probabilities if there are any."""

    def __init__(self, model: LoadedModel, rows: int, inputs: _Inputs) -> None:
        self.model, self.inputs, self._rows = model, inputs, rows
        self.known: dict[Any, int] = {}
        """Label to its number, in the order in which the labels were first predicted."""
        self.numbers = np.empty(rows, dtype=np.int32)
        self.probabilities: Array | None = None
        self.why_not = ""

    def ask(self, inputs: Any) -> _Answers:
        answers = _Answers(*classes_and_probabilities(self.model, inputs))
        require_classes(answers.values, self.model.uri)
        return answers

    def keep(self, start: int, inputs: Any, answers: _Answers) -> None:
        self.inputs.keep(start, inputs)
        end = start + len(inputs)
        places, values = distinct(answers.values)
        numbers = [self.known.setdefault(plain_label(value), len(self.known)) for value in values]
        self.numbers[start:end] = np.asarray(numbers, dtype=np.int32)[places]
        if answers.probabilities is None:
            self.probabilities, self.why_not = None, self.why_not or answers.why_not
        elif not self.why_not:
            if self.probabilities is None:
                self.probabilities = np.empty((self._rows, answers.probabilities.shape[1]))
            self.probabilities[start:end] = answers.probabilities


def _score_classifiers(collected: Sequence[_Labels], labels: Array, request: EvaluationRequest) -> list[ScoredModel]:
    answered = [AnsweredClasses(each.model.uri, list(each.known), each.model.classes) for each in collected]
    classes = find_classes(distinct(labels)[1], answered, request.positive_label)
    true = classes.encode(labels)
    scored = []
    for each in collected:
        predicted = classes.encode(list(each.known))[each.numbers]
        given = each.probabilities
        aligned = None if given is None else align_probabilities(given, each.model.classes or (), classes)
        scored.append(ScoredModel(each.model, each.inputs.joined(), true, predicted, classes, aligned, each.why_not))
    return scored


def _of_rows(action: Callable[[Any], Any], rows: Any, start: int, is_divided: bool) -> Any:
    """Do something with the rows of a batch; an error names the first row that causes it.

    :param action: takes rows, all or some.
    :param start: number of the first row.
    :param is_divided: whether there are other batches; without them the error is left as it is.
    """
    try:
        return action(rows)
    except (DatasetError, RefusedError) as error:
        if not is_divided:
            raise
        where, cause = _first_failing(action, rows, start, error)
        raise type(error)(f"{where} of the dataset (counted from 0): {cause}") from error


def _first_failing(
    action: Callable[[Any], Any], rows: Any, start: int, error: RefusedError
) -> tuple[str, RefusedError]:
    """Find the first row that alone causes an error, by halving; if no row does, name as few rows as possible."""
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        for part in ((low, middle), (middle, high)):
            some = rows[slice(*part)]
            try:  # one text makes objects of the numbers of a column, and not of those of another part of it
                action(some.infer_objects() if hasattr(some, "infer_objects") else some)
            except (DatasetError, RefusedError) as smaller:
                (low, high), error = part, smaller
                break
        else:
            return f"rows {start + low} to {start + high - 1}", error
    return f"row {start + low}", error


def _require_single_rows(asked: _Numbers | _Labels, inputs: Any, answers: _Answers) -> None:
    """Refuse a model whose answer for a row depends on the other rows: it would depend on the size of batches."""
    chosen = np.linspace(0, len(inputs) - 1, min(CHECKED_ROWS, len(inputs) // 2)).astype(int)
    alone = asked.ask(_take(inputs, chosen))
    differing = _differing(alone, answers, chosen)
    if differing > MAX_DIFFERING * len(chosen):
        raise RefusedError(
            f"model {asked.model.uri} answers {differing} of {len(chosen)} rows differently when it is asked about "
            f"these rows only. The dataset has more than {len(inputs)} rows and is predicted in batches, so the "
            f"metrics would depend on their size. Evaluate this model on at most {len(inputs)} rows. Nothing was "
            "recorded"
        )


def _differing(alone: _Answers, answers: _Answers, chosen: Array) -> int:
    """Count the rows with different answers."""
    first, second = alone.probabilities, answers.probabilities
    if first is None or second is None:
        first, second = alone.values, answers.values
    second = second[chosen]
    if first.dtype.kind == "f" and second.dtype.kind == "f":
        tolerance = _ABSOLUTE * float(np.abs(second).max())
        equal = np.isclose(first, second, rtol=_RELATIVE, atol=tolerance)
    else:
        equal = np.asarray([plain_label(a) == plain_label(b) for a, b in zip(first, second, strict=True)])
    return int((~equal.reshape(len(chosen), -1).all(axis=1)).sum())


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
