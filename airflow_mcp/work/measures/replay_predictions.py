"""One model's predictions for logged requests, with the reasons why some have none."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.core.evaluation.evidence import ModelType
from airflow_mcp.core.evaluation.replay import ModelTroubles, Reason
from airflow_mcp.exceptions import DatasetError, RefusedError
from airflow_mcp.work.measures.classes import Array, plain_label, require_classes
from airflow_mcp.work.measures.scoring import classes_and_probabilities, predicted_numbers
from airflow_mcp.work.models.failure_cause import is_of_signature, where_raised
from airflow_mcp.work.models.input_columns import cast_columns
from airflow_mcp.work.models.loaded_model import LoadedModel
from airflow_mcp.work.reading.dataset_frame import typed

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
MAX_ISOLATING_CALLS = 1_000
"""Calls per chunk to isolate, by halving, the requests on which a model fails, or the values that do not fit a column.
What is not isolated by then counts as failed, or unfit, as a whole: a model that always fails must not take hours."""
_MAX_REASONS = 10
_REASON_LENGTH = 200
ANSWERED, UNFIT, FAILED = 0, 1, 2
"""State of a request: predicted; not fitting the signature; or the model failed."""


@dataclass
class Answers:
    """Predictions for the requests of one chunk."""

    predictions: Array
    """Class labels as plain values (None where there is none), or numbers (NaN where there is none); shape (rows,)."""
    probabilities: Array | None
    """Shape (rows, classes) in the order of the model's classes; None when the model has none."""
    state: Array
    """``ANSWERED``, ``UNFIT`` or ``FAILED``; shape (rows,)."""


@dataclass
class Replayed:
    """A model under replay, with counts of the requests that it could not predict.

    :param model: the model; its signature names columns.
    :param model_type: ``classifier`` or ``regressor``.
    """

    model: LoadedModel
    model_type: ModelType
    unfit: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Refuse a model that takes an array: it does not name the columns that it takes from the log."""
        if not self.model.columns:
            raise RefusedError(
                f"model {self.model.uri} was logged with an unnamed array, so it is unknown which columns of the "
                "logged requests it takes. Log the model with a DataFrame. Nothing was replayed"
            )

    def answer(self, frame: pd.DataFrame, readable: Array) -> Answers:
        """Predict all requests of a chunk.

        :param frame: requests, one per row.
        :param readable: whether each row is a readable request, shape (rows,).
        """
        rows = len(frame)
        is_number = self.model_type == "regressor"
        answers = Answers(
            np.full(rows, np.nan) if is_number else np.full(rows, None, dtype=object), None, np.full(rows, FAILED)
        )
        fits = readable & self._fitting(frame, readable)
        answers.state[readable & ~fits] = UNFIT
        positions = np.flatnonzero(fits)
        if len(positions):
            inputs = cast_columns(_inferred(frame.iloc[positions], self._names), self.model.columns, self.model.uri)
            self._predict(inputs, positions, answers, [MAX_ISOLATING_CALLS])
        self.unfit += int((answers.state[readable] == UNFIT).sum())
        self.failed += int((answers.state[readable] == FAILED).sum())
        return answers

    def troubles(self) -> ModelTroubles:
        """Return the counts of requests without a prediction, and the most frequent reasons."""
        reasons = tuple(Reason(reason=text, requests=count) for text, count in self.reasons.most_common(_MAX_REASONS))
        return ModelTroubles(unfit=self.unfit, failed=self.failed, reasons=reasons)

    @property
    def _names(self) -> list[str]:
        return [name for name, _, _ in self.model.columns]

    def _fitting(self, frame: pd.DataFrame, readable: Array) -> Array:
        """Find the rows that fit the signature, column by column."""
        fits = readable.copy()
        for column in self.model.columns:
            name, kind, required = column
            if name not in frame.columns:
                if required:
                    self._count(f"{name!r} is missing", int(fits.sum()))
                    fits[:] = False
                continue
            wrong = self._wrong_cells(frame[[name]], column, np.flatnonzero(fits))
            if len(wrong):
                reason = f"{name!r} cannot be converted to {kind}"
                if reason not in self.reasons:
                    self._can_be_converted(frame, column, np.array(wrong[:1]), explain=True)
                self._count(reason, len(wrong))
                fits[wrong] = False
        return fits

    def _wrong_cells(self, frame: pd.DataFrame, column: tuple[str, str, bool], positions: Array) -> list[int]:
        """Find the rows whose value cannot be converted; equal values are tested once."""
        if not len(positions) or self._can_be_converted(frame, column, positions):
            return []
        rows_of: dict[tuple[str, str], list[int]] = {}
        values = frame[column[0]].tolist()
        for position in positions.tolist():
            rows_of.setdefault((_kind(values[position]), repr(values[position])), []).append(position)
        firsts: dict[str, dict[int, list[int]]] = {}
        for (kind, _), rows in rows_of.items():
            firsts.setdefault(kind, {})[rows[0]] = rows
        wrong: list[int] = []
        for rows_by_first in firsts.values():
            judged = self._wrong_values(frame, column, np.array(list(rows_by_first)), [MAX_ISOLATING_CALLS])
            wrong += [row for first in judged for row in rows_by_first[first]]
        return wrong

    def _wrong_values(
        self, frame: pd.DataFrame, column: tuple[str, str, bool], positions: Array, calls_left: list[int]
    ) -> list[int]:
        """Find, by halving, the rows among values of one kind that cannot be converted."""
        calls_left[0] -= 1
        if self._can_be_converted(frame, column, positions):
            return []
        if len(positions) == 1 or calls_left[0] <= 0:
            return [int(position) for position in positions]
        half = len(positions) // 2
        return [
            *self._wrong_values(frame, column, positions[:half], calls_left),
            *self._wrong_values(frame, column, positions[half:], calls_left),
        ]

    def _can_be_converted(
        self, frame: pd.DataFrame, column: tuple[str, str, bool], positions: Array, *, explain: bool = False
    ) -> bool:
        try:
            cast_columns(_inferred(frame.iloc[positions], [column[0]]), [column], self.model.uri)
        except DatasetError as error:
            if explain:
                _log.info("request without a prediction: %s", error)
            return False
        return True

    def _predict(self, inputs: pd.DataFrame, positions: Array, answers: Answers, calls_left: list[int]) -> None:
        """Predict rows together; when the model fails, predict each half."""
        calls_left[0] -= 1
        try:
            predicted, probabilities = self._ask(inputs)
        except RefusedError as error:
            if len(positions) == 1 or calls_left[0] <= 0:
                self._count(self._reason(error), len(positions))
                return
            half = len(positions) // 2
            self._predict(inputs.iloc[:half], positions[:half], answers, calls_left)
            self._predict(inputs.iloc[half:], positions[half:], answers, calls_left)
            return
        if self.model_type == "classifier":
            require_classes(predicted, self.model.uri)
            predicted = [plain_label(value) for value in predicted]
        answers.predictions[positions] = predicted
        if probabilities is not None:
            if answers.probabilities is None:
                answers.probabilities = np.full((len(answers.state), probabilities.shape[1]), np.nan)
            answers.probabilities[positions] = probabilities
        answers.state[positions] = ANSWERED

    def _ask(self, inputs: pd.DataFrame) -> tuple[Any, Array | None]:
        if self.model_type == "regressor":
            return predicted_numbers(self.model, inputs), None
        predicted, probabilities, _ = classes_and_probabilities(self.model, inputs)
        return predicted, probabilities

    def _reason(self, error: RefusedError) -> str:
        """Return the reason for the evidence, without the model's own words, which may quote inputs."""
        cause, text = error.__cause__, str(error).removesuffix(". Nothing was recorded")
        if cause is None or is_of_signature(cause):
            marker = " rows: "  # what follows does not depend on the number of rows
            return (text.partition(marker)[2] or text)[:_REASON_LENGTH]
        reason = where_raised(cause)
        if reason not in self.reasons:
            _log.info("%s: %s", reason, text)
        return reason

    def _count(self, reason: str, requests: int) -> None:
        """Count a reason; beyond 100 different ones, further reasons are counted together."""
        if reason not in self.reasons and len(self.reasons) >= 10 * _MAX_REASONS:
            reason = "other reasons"
        if requests:
            self.reasons[reason] += requests


def _kind(value: Any) -> str:
    """Return the kind of a value; values of one kind can share a column: numbers go with missing values."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return "number" if value is None or is_number else type(value).__name__


def _inferred(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return columns with the types that these rows' values imply, without the influence of rows that were left out."""
    import pandas as pd  # noqa: PLC0415

    known = [name for name in names if name in frame.columns]
    columns = {name: typed(frame[name]) if frame[name].dtype == object else frame[name] for name in known}
    return pd.DataFrame(columns, index=frame.index)
