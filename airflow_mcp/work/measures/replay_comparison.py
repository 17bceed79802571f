"""Comparison of both models' predictions for logged requests; only one number per request is kept in memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airflow_mcp.core.evaluation.replay import (
    Deltas,
    FlipExample,
    Recorded,
    ReplayRequest,
    ReplaySegment,
    Transition,
    ValueAtStake,
)
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.measures.classes import Array, name_of, plain_label
from airflow_mcp.work.measures.diagnostics import histogram
from airflow_mcp.work.measures.replay_predictions import ANSWERED, Answers

if TYPE_CHECKING:
    import pandas as pd

MAX_SEGMENTS = 50
"""Values of a segment column that are reported; beyond, the values with the fewest requests are combined."""
MAX_SEGMENT_VALUES = 10_000
"""Values of a segment column that are counted; more would be an identifier, and need too much memory."""
OTHER, MISSING = "<other>", "<missing>"
_MAX_TRANSITIONS = 20
_LARGEST_VALUE = 1e300
"""Larger values of requests count as missing: the sum of ten million smaller ones still fits a double."""
_DELTA_RANGE = (0.005, 0.995)
"""Quantiles between which the histogram shows changes; values outside are counted."""


class Compared(NamedTuple):
    """The predictions of both models for one chunk, compared; every array has the shape (rows,)."""

    both: Array
    """Whether both models have a prediction."""
    candidate_only_missing: Array
    """Whether the champion has a prediction and the candidate has none."""
    flips: Array
    deltas: Array
    """Candidate minus champion; NaN where unknown."""


def compare_predictions(
    request: ReplayRequest, candidate: Answers, champion: Answers, classes: tuple[list[Any] | None, list[Any] | None]
) -> Compared:
    """Compare the predictions for a chunk.

    :param request: request of the replay; its tolerances define a flip of a regressor.
    :param candidate: its predictions.
    :param champion: its predictions for the same requests.
    :param classes: classes of both models, in the order of their probabilities.
    """
    answered = champion.state == ANSWERED
    both = answered & (candidate.state == ANSWERED)
    if request.model_type == "regressor":
        with np.errstate(over="ignore"):  # the change is then infinite, and none is reported
            deltas = np.where(both, candidate.predictions - champion.predictions, np.nan)
        allowed = np.maximum(request.tolerance, request.relative_tolerance * np.abs(champion.predictions))
        flips = both & (np.abs(deltas) > allowed)
    else:
        flips = both & (candidate.predictions != champion.predictions)
        deltas = _probability_deltas(request, candidate, champion, classes)
        deltas[~both] = np.nan
    return Compared(both, answered & ~both, flips, deltas)


@dataclass
class Tally:
    """Running totals of a replay.

    :param request: request of the replay; names the columns.
    """

    request: ReplayRequest
    compared: int = 0
    flips: int = 0
    candidate_only_missing: int = 0
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    transition_values: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    segments: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Column and value to four numbers: compared, flips, candidate only missing, value of flips."""
    deltas: list[Array] = field(default_factory=list)
    unknown_deltas: int = 0
    recorded: list[int] = field(default_factory=lambda: [0, 0])
    value: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    examples: list[FlipExample] = field(default_factory=list)

    def add(self, frame: pd.DataFrame, names: list[str], answers: tuple[Answers, Answers], found: Compared) -> None:
        """Add one chunk.

        :param frame: its requests.
        :param names: names of the requests.
        :param answers: predictions of candidate and champion.
        :param found: their comparison.
        """
        self.compared += int(found.both.sum())
        self.flips += int(found.flips.sum())
        self.candidate_only_missing += int(found.candidate_only_missing.sum())
        known = ~np.isnan(found.deltas)
        self.deltas.append(found.deltas[known])
        self.unknown_deltas += int((found.both & ~known).sum())
        values = self._values(frame, found)
        if self.request.model_type == "classifier":
            self._add_transitions(answers, found, values)
        for column in self.request.segments:
            self._add_segments(column, frame, found, values)
        self._compare_recorded(frame, answers[1])
        self._add_examples(frame, names, answers, found)

    def summed_transitions(self) -> tuple[Transition, ...]:
        """Return the most frequent changes of class."""
        return tuple(
            Transition(
                champion=pair[0],
                candidate=pair[1],
                requests=count,
                value=self.transition_values[pair] if self.request.value_column else None,
            )
            for pair, count in sorted(self.transitions.items(), key=lambda item: (-item[1], item[0]))[:_MAX_TRANSITIONS]
        )

    def summed_deltas(self) -> Deltas | None:
        """Return by how much predictions change; None unless that is known for every compared request."""
        deltas = np.concatenate(self.deltas) if self.deltas else np.empty(0)
        if not len(deltas) or self.unknown_deltas:
            return None
        with np.errstate(over="ignore"):
            size, total = np.abs(deltas), float(deltas.sum())
            if not (np.isfinite(total) and np.isfinite(np.ptp(deltas)) and np.isfinite(size.sum())):
                return None
        return Deltas(
            of="prediction" if self.request.model_type == "regressor" else "probability",
            mean=float(deltas.mean()),
            total=total,
            mean_absolute=float(size.mean()),
            p95_absolute=float(np.quantile(size, 0.95)),
            histogram=histogram(deltas, _DELTA_RANGE),
        )

    def summed_segments(self) -> tuple[ReplaySegment, ...]:
        """Return the segments of each column by value; beyond 50, those with the fewest requests are combined."""
        found = []
        for column in self.request.segments:
            counts = {value: counted for (name, value), counted in self.segments.items() if name == column}
            kept = sorted(counts, key=lambda value: (-counts[value][0] - counts[value][2], value))
            if len(kept) > MAX_SEGMENTS:
                rest = kept[MAX_SEGMENTS - 1 :]
                counts[OTHER] = [sum(counts[value][place] for value in rest) for place in range(4)]
                kept = [*kept[: MAX_SEGMENTS - 1], OTHER]
            found += [self._segment(column, value, counts[value]) for value in sorted(kept)]
        return tuple(found)

    def summed_recorded(self) -> Recorded | None:
        """Return how often the champion now predicts something else than was recorded in production."""
        if not self.request.prediction_column:
            return None
        return Recorded(requests=self.recorded[0], different=self.recorded[1])

    def summed_value(self) -> ValueAtStake | None:
        """Return the value of the requests."""
        if not self.request.value_column:
            return None
        return ValueAtStake(compared=self.value[0], flipped=self.value[1], missing=int(self.value[2]))

    def _segment(self, column: str, value: str, counted: list[float]) -> ReplaySegment:
        return ReplaySegment(
            column=column,
            value=value,
            compared=int(counted[0]),
            flips=int(counted[1]),
            candidate_only_missing=int(counted[2]),
            value_flipped=counted[3] if self.request.value_column else None,
        )

    def _values(self, frame: pd.DataFrame, found: Compared) -> Array:
        """Return the value of each request, 0 where unknown, and add it to the totals."""
        import pandas as pd  # noqa: PLC0415

        if not self.request.value_column:
            return np.zeros(len(frame))
        column = frame[self.request.value_column]
        if column.dtype == object:  # pandas raises on numbers beyond a double, lists and mappings
            column = column.map(lambda value: _number(value) if isinstance(value, int | float | Decimal) else value)
            column = column.where(column.map(lambda value: isinstance(value, str | float)), np.nan)
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        usable = np.abs(values) <= _LARGEST_VALUE
        values = np.where(usable, values, 0.0)
        self.value[0] += float(values[found.both].sum())
        self.value[1] += float(values[found.flips].sum())
        self.value[2] += int((found.both & ~usable).sum())
        return values

    def _add_transitions(self, answers: tuple[Answers, Answers], found: Compared, values: Array) -> None:
        candidate, champion = answers
        for position in np.flatnonzero(found.flips):
            pair = name_of(champion.predictions[position]), name_of(candidate.predictions[position])
            self.transitions[pair] += 1
            self.transition_values[pair] += float(values[position])

    def _add_segments(self, column: str, frame: pd.DataFrame, found: Compared, values: Array) -> None:
        texts = frame[column].astype(object).where(frame[column].notna(), MISSING).map(name_of).to_numpy()
        for value in np.unique(texts[found.both | found.candidate_only_missing]):
            rows = texts == value
            counted = self.segments.setdefault((column, str(value)), [0.0, 0.0, 0.0, 0.0])
            counted[0] += int((rows & found.both).sum())
            counted[1] += int((rows & found.flips).sum())
            counted[2] += int((rows & found.candidate_only_missing).sum())
            counted[3] += float(values[rows & found.flips].sum())
        if sum(name == column for name, _ in self.segments) > MAX_SEGMENT_VALUES:
            raise InvalidArgumentError(
                f"columns in segments must have at most {MAX_SEGMENT_VALUES} values; got {column!r} with more. Use a "
                "column of groups instead. Nothing was recorded"
            )

    def _compare_recorded(self, frame: pd.DataFrame, champion: Answers) -> None:
        """Count where the champion predicts something else than was recorded in production."""
        if not self.request.prediction_column:
            return
        column = frame[self.request.prediction_column]
        there = (champion.state == ANSWERED) & column.notna().to_numpy()
        recorded = column.to_numpy()
        self.recorded[0] += int(there.sum())
        self.recorded[1] += sum(
            not self._is_same(recorded[position], champion.predictions[position]) for position in np.flatnonzero(there)
        )

    def _is_same(self, recorded: Any, answer: Any) -> bool:
        plain = plain_label(recorded)
        if self.request.model_type == "classifier":
            return isinstance(plain, str | int | float) and plain == answer
        allowed = max(self.request.tolerance, self.request.relative_tolerance * abs(answer))
        return isinstance(plain, int | float | Decimal) and abs(_number(plain) - answer) <= allowed

    def _text(self, answer: Any) -> str:
        return name_of(answer) if self.request.model_type == "classifier" else str(answer)

    def _add_examples(
        self, frame: pd.DataFrame, names: list[str], answers: tuple[Answers, Answers], found: Compared
    ) -> None:
        """Keep the flips with the largest changes; if changes are unknown, the newest flips."""
        times = self.request.timestamp_column
        fresh = [
            FlipExample(
                request=names[position],
                timestamp=name_of(frame[times].iloc[position]) if times else "",
                champion=self._text(answers[1].predictions[position]),
                candidate=self._text(answers[0].predictions[position]),
                delta=float(found.deltas[position]) if np.isfinite(found.deltas[position]) else None,
            )
            for position in _largest(found, self.request.examples)
        ]
        every = [*fresh, *self.examples]
        self.examples = sorted(every, key=lambda item: -abs(item.delta or 0.0))[: self.request.examples]


def _number(value: Any) -> float:
    """Return a number as a double; NaN when it is larger than any."""
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def _largest(found: Compared, count: int) -> Array:
    positions = np.flatnonzero(found.flips)[::-1]
    sizes = np.nan_to_num(np.abs(found.deltas[positions]))
    return positions[np.argsort(-sizes, kind="stable")[:count]]


def _probability_deltas(
    request: ReplayRequest, candidate: Answers, champion: Answers, classes: tuple[list[Any] | None, list[Any] | None]
) -> Array:
    """Return the change of the probability of the positive class, or with more classes of the champion's prediction."""
    rows = len(champion.state)
    if candidate.probabilities is None or champion.probabilities is None or classes[0] is None or classes[1] is None:
        return np.full(rows, np.nan)
    of_candidate, of_champion = ([plain_label(label) for label in labels] for labels in (classes[0], classes[1]))
    every = {*of_candidate, *of_champion}
    if len(every) == 2:
        wanted = plain_label(request.positive_label) if request.positive_label is not None else max(every, key=_order)
        labels: list[Any] = [wanted] * rows
    else:
        labels = list(champion.predictions)
    return _of_labels(candidate.probabilities, of_candidate, labels) - _of_labels(
        champion.probabilities, of_champion, labels
    )


def _order(label: Any) -> tuple[str, Any]:
    return type(label).__name__, label


def _of_labels(probabilities: Array, classes: list[Any], labels: list[Any]) -> Array:
    """Return the probability of one class per row; 0 for a class that the model does not know."""
    places = {label: place for place, label in enumerate(classes)}
    columns = np.array([places.get(label, -1) for label in labels], dtype=int)
    picked = probabilities[np.arange(len(labels)), columns]
    return np.asarray(np.where(columns >= 0, picked, probabilities[:, 0] * 0))
