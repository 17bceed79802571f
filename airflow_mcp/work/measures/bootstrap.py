"""The bootstrap (Efron 1979): draw the rows again with replacement, thousands of times, and measure on each draw.

Every model is measured on the same draws, so what is luck of the rows strikes all of them alike. What is drawn is how
many times each row is in a resample, which is as exact as drawing row by row:

* metrics of predicted classes depend on how many rows there are of each (label, predictions): these counts are
  multinomial, and are drawn without drawing any row;
* metrics that are functions of means (log loss, errors): columns are averaged, weighted by the counts;
* ROC AUC: rows were sorted by score once, so an AUC is two passes over the counts.

Draws are made in chunks, each with a random generator of its own, on every CPU this process may use. Neither the number
of CPUs nor the order of the chunks changes the result.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from airflow_mcp.work.measures.metrics import Classes
from airflow_mcp.work.measures.scoring import ScoredModel

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], Array]
"""Measures that many draws: an array of shape (draws, models), NaN where the metric is undefined."""

_CELLS_AT_A_TIME = 1_000_000
"""Counts drawn at a time; it bounds the memory of a chunk to some tens of MiB."""
_DRAWS_AT_A_TIME = 100
"""Where rows are drawn one draw after the other."""
_FEW_ROWS = 256
"""With fewer rows the counts are drawn as what they are: multinomial."""
_HIGHEST_COUNT = 25
"""A count of mean 1 is higher with a chance of 1e-27, which is nothing in 53 bits."""
_MANY_ROWS = 2**32 // (_HIGHEST_COUNT + 1)
"""Up to here 32 bits hold the sum of all counts, and summing is twice as fast."""
_CELLS = 2**16
_NO_ANSWER = 0xFFFF
_MAX_THREADS = 8
_MIN_ROWS_FOR_THREADS = 10_000
"""With fewer rows threads wait for each other more than they work."""


def resample(models: Sequence[ScoredModel], metric: str, resamples: int, seed: int) -> Array:
    """Measure a metric on resamples of the rows.

    :param models: with answers to the same rows.
    :param metric: one that is defined on all rows for every model.
    :param resamples: how many times the rows are drawn.
    :param seed: the same seed gives the same numbers.
    :return: shape (resamples, models); NaN where a draw leaves the metric undefined.
    """
    chunk, threads = _DRAWS_AT_A_TIME, 1
    if len(models[0].true) >= _MIN_ROWS_FOR_THREADS and metric != "roc_auc":  # two threads of areas are slower than one
        threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    if metric == "roc_auc":
        draw = _draw_areas(models)
    elif metric in ("accuracy", "precision", "recall", "f1"):
        draw, cells = _draw_cells(models, metric)
        chunk = max(1, _CELLS_AT_A_TIME // cells)
    else:
        draw = _draw_means(models, metric)
    return _in_chunks(draw, resamples, chunk, seed, threads)


def _in_chunks(draw: Draw, resamples: int, chunk: int, seed: int, threads: int) -> Array:
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))

    def work(size: int, own: np.random.SeedSequence) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return draw(np.random.Generator(np.random.SFC64(own)), size)

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(work, sizes, seeds)))


def _drawn_counts(random: np.random.Generator, rows: int, draws: int) -> Iterator[Array]:
    """Give for each draw how many times each row is in it, in one buffer: new memory would cost more than the draw.

    :return: arrays of shape (rows,), 8-bit integers when there are many rows and 64-bit ones when there are few.
    """
    if rows < _FEW_ROWS:
        yield from random.multinomial(rows, np.full(rows, 1 / rows), size=draws)
        return
    table = _CountTable.of(rows)
    counts = np.empty(rows + rows % 2, dtype=np.uint8)
    for _ in range(draws):
        missing = -1
        while missing < 0:
            missing = rows - table.draw(random, counts, rows)
        np.add.at(counts, random.integers(0, rows, missing), np.uint8(1))  # another type takes 20 times as long
        yield counts[:rows]


class _CountTable:
    """Independent Poisson counts, two rows at a time, from 16 random bits by a table (inverse transform).

    Given their sum, independent Poisson counts are multinomial: they say how often each row was drawn in that many
    draws (Devroye 1986, chapter XI.1.4). The mean is a little below 1, so that hardly ever more than ``rows`` were
    drawn; then all are drawn anew, which depends on the sum only. The few missing draws are made one by one.

    A cell of the table in which one pair of counts ends and the next begins has no answer. Who falls into one (1 in
    500) draws 53 bits more and is looked up in the distribution itself, so the table costs no exactness.
    """

    def __init__(self, mean: float) -> None:
        """Make the table for counts of this mean, which is at most 1."""
        counts = np.arange(_HIGHEST_COUNT + 1)
        one = np.exp(counts * np.log(mean) - mean - np.array([math.lgamma(count + 1) for count in counts]))
        both = np.outer(one, one).ravel()
        order = np.argsort(-both, kind="stable")  # the rare ones together: fewer cells without an answer
        self._pairs = (order // len(counts) + order % len(counts) * 256).astype(np.uint16)
        self._upper = np.cumsum(both[order])
        self._upper[-1] = 1.0
        edges = np.arange(_CELLS + 1) / _CELLS
        first = np.searchsorted(self._upper, edges[:-1], side="right")
        last = np.searchsorted(self._upper, np.nextafter(edges[1:], 0), side="right")
        self._cells = np.where(first == last, self._pairs[first], _NO_ANSWER).astype(np.uint16)

    @classmethod
    @functools.lru_cache(maxsize=4)
    def of(cls, rows: int) -> _CountTable:
        """Give the table for so many rows; 3 standard deviations below them on average."""
        return cls(1 - 3 / math.sqrt(rows))

    def draw(self, random: np.random.Generator, counts: Array, rows: int) -> int:
        """Draw counts.

        :param counts: overwritten; of even length, ``rows`` or one more.
        :return: their sum over the rows.
        """
        words = len(counts) // 2
        bits = random.integers(0, 2**64 - 1, (words + 3) // 4, dtype=np.uint64, endpoint=True).view(np.uint16)[:words]
        pairs = counts.view(np.uint16)
        self._cells.take(bits, out=pairs, mode="clip")
        unanswered = np.flatnonzero(pairs == _NO_ANSWER)
        exact = (bits[unanswered] + random.random(len(unanswered))) / _CELLS
        pairs[unanswered] = self._pairs[
            np.searchsorted(self._upper, exact, side="right").clip(max=len(self._pairs) - 1)
        ]
        return int(np.add.reduce(counts[:rows], dtype=np.uint32 if rows < _MANY_ROWS else np.uint64))


# --- predicted classes ------------------------------------------------------------------------------------------------


def _draw_cells(models: Sequence[ScoredModel], metric: str) -> tuple[Draw, int]:
    """Draw how many rows fall into each cell of (label, prediction of each model)."""
    answers = np.stack([models[0].true, *(model.predicted for model in models)])
    cells, counts = np.unique(answers, axis=1, return_counts=True)
    rows = int(counts.sum())
    true, predictions = cells[0], cells[1:]
    classes = models[0].classes

    def draw(random: np.random.Generator, size: int) -> Array:
        drawn = random.multinomial(rows, counts / rows, size=size).astype(float)
        if metric == "accuracy" or classes is None:
            shares: Array = drawn @ (predictions == true).T.astype(float) / rows
            return shares
        positions = _measured(classes)
        return np.stack([_of_classes(metric, drawn, true, predicted, positions) for predicted in predictions], axis=1)

    return draw, len(counts)


def _of_classes(metric: str, drawn: Array, true: Array, predicted: Array, positions: Sequence[int]) -> Array:
    """Give precision, recall or F1 of one class, or its mean over several, as :mod:`.classification` defines them."""
    labelled = np.stack([true == position for position in positions], axis=1)
    answered = np.stack([predicted == position for position in positions], axis=1)
    hits = drawn @ (labelled & answered).astype(float)
    of_true, of_predicted = drawn @ labelled.astype(float), drawn @ answered.astype(float)
    above, below = {
        "precision": (hits, of_predicted),
        "recall": (hits, of_true),
        "f1": (2 * hits, of_true + of_predicted),
    }[metric]
    if len(positions) == 1:
        below = below.astype(float)
        below[below == 0] = np.nan
        return np.asarray((above / below)[:, 0])
    shares = np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)
    return np.asarray(shares.sum(axis=1) / (of_true + of_predicted > 0).sum(axis=1))


# --- functions of means -----------------------------------------------------------------------------------------------


def _draw_means(models: Sequence[ScoredModel], metric: str) -> Draw:
    """Average the columns that the metric is made of, weighted by how many times each row was drawn."""
    true, rows = models[0].true, len(models[0].true)
    columns = [_row_losses(model, metric) for model in models]
    if metric == "r2":
        centred = true - true.mean()
        columns += [centred, centred**2]
    table = np.stack(columns)

    def draw(random: np.random.Generator, size: int) -> Array:
        means, weights = np.empty((size, len(columns))), np.empty(rows)
        for number, counts in enumerate(_drawn_counts(random, rows, size)):
            np.copyto(weights, counts)
            means[number] = table @ weights / rows
        if metric == "rmse":
            return np.asarray(np.sqrt(means))
        if metric == "r2":
            spread = means[:, -1] - means[:, -2] ** 2
            return np.asarray(1 - means[:, :-2] / np.where(spread > 0, spread, np.nan)[:, None])
        return np.asarray(means)

    return draw


def _row_losses(model: ScoredModel, metric: str) -> Array:
    if metric == "log_loss":
        probabilities = np.zeros(0) if model.probabilities is None else model.probabilities
        epsilon = np.finfo(probabilities.dtype).eps
        of_true = probabilities[np.arange(len(model.true)), model.true.astype(int)]
        return np.asarray(-np.log(np.clip(of_true, epsilon, 1 - epsilon)))
    errors = model.true - model.predicted
    return np.asarray(np.abs(errors) if metric == "mae" else errors**2)


# --- ROC AUC ----------------------------------------------------------------------------------------------------------


class Ranking:
    """One model's scores for one class, sorted once, so that any draw of the rows is measured in linear time."""

    def __init__(self, positive: Array, scores: Array) -> None:
        """Sort.

        :param positive: which rows are labelled with the class; shape (rows,), boolean.
        :param scores: higher means more likely to be of the class.
        """
        rows = np.arange(len(scores))
        own, others = rows[positive], rows[~positive]
        others = others[np.argsort(scores[others], kind="stable")]
        ordered = scores[others]
        self.positives, self.negatives = own, others
        self.taking_positives, self._taking_negatives = _as_slice(own), _as_slice(others)
        self.below = np.searchsorted(ordered, scores[own], side="left")
        """Per positive row: how many negative rows have a lower score."""
        up_to = np.searchsorted(ordered, scores[own], side="right")
        self.up_to = None if np.array_equal(up_to, self.below) else up_to
        """Or an equal one; None when no score is shared by a positive and a negative row."""

    def wins(self, counts: Array, positives: Array, scratch: Scratch) -> float:
        """Count pairs of a positive and a negative row in which the positive one has the higher score; ties are half.

        :param counts: how many times each row was drawn; shape (rows,).
        :param positives: of these the positive rows', 64-bit integers.
        :param scratch: overwritten.
        """
        negatives = counts[self._taking_negatives]
        up_to = scratch.summed[: len(negatives) + 1]
        np.cumsum(negatives, dtype=np.int64, out=up_to[1:])
        beaten = scratch.taken[: len(positives)]
        total = np.einsum("i,i", positives, up_to.take(self.below, out=beaten, mode="clip"))
        if self.up_to is None:
            return float(total)
        return float(total + np.einsum("i,i", positives, up_to.take(self.up_to, out=beaten, mode="clip"))) / 2


def _as_slice(rows: Array) -> Array | slice:
    """Give rows that follow one another as a slice, which costs nothing to take."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return slice(int(rows[0]), int(rows[0]) + len(rows))
    return rows


class Scratch:
    """Memory that one thread uses again and again."""

    def __init__(self, rows: int) -> None:
        """Make room for so many rows."""
        self.taken = np.empty(rows, dtype=np.int64)
        self.summed = np.zeros(rows + 1, dtype=np.int64)


def rankings(model: ScoredModel, order: Array | None = None) -> list[Ranking]:
    """Sort a classifier's probabilities: of the positive class, or of each one when there are more than two.

    :param model: with answers.
    :param order: in which to take the rows; None as they are.
    """
    classes, probabilities = model.classes, model.probabilities
    if classes is None or probabilities is None:
        return []
    chosen = slice(None) if order is None else order
    true, scores = model.true[chosen], probabilities[chosen]
    return [Ranking(true == position, scores[:, position]) for position in _measured(classes)]


def _measured(classes: Classes) -> Sequence[int]:
    return range(len(classes.labels)) if classes.positive is None else [classes.positive]


def _draw_areas(models: Sequence[ScoredModel]) -> Draw:
    """Measure areas. Rows are alike to who draws them, so they are put into the first model's order beforehand."""
    first, rows = models[0], len(models[0].true)
    position = _measured(first.classes)[0] if first.classes else 0
    scores = np.zeros(rows) if first.probabilities is None else first.probabilities[:, position]
    order = np.lexsort((scores, first.true == position))
    sorted_once = [rankings(model, order) for model in models]

    def measure(counts: Array, scratch: Scratch) -> Array:
        areas = np.empty((len(models), len(sorted_once[0])))
        for number, of_class in enumerate(zip(*sorted_once, strict=True)):
            positives = counts[of_class[0].taking_positives].astype(np.int64)
            pairs = int(positives.sum()) * (rows - int(positives.sum()))
            areas[:, number] = [
                ranking.wins(counts, positives, scratch) / pairs if pairs else np.nan for ranking in of_class
            ]
        return np.asarray(areas.mean(axis=1))

    def draw(random: np.random.Generator, size: int) -> Array:
        scratch = Scratch(rows)
        return np.array([measure(counts, scratch) for counts in _drawn_counts(random, rows, size)])

    return draw
