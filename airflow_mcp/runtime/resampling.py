"""The bootstrap (Efron 1979): draw the rows again with replacement, thousands of times, and measure on each draw.

Every model is measured on the same draws, so what is luck of the rows strikes all of them alike. Three ways to draw,
each as exact as drawing row by row:

* metrics of predicted classes depend on how many rows there are of each (label, predictions): these counts are
  multinomial, and are drawn without drawing any row;
* metrics that are functions of means (log loss, errors): rows are drawn, columns are averaged;
* ROC AUC: rows are drawn and counted; rows were sorted by score once, so an AUC is two passes over the counts.

Draws are made in chunks, each with a random generator of its own, on every CPU this process may use. Neither the number
of CPUs nor the order of the chunks changes the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from airflow_mcp.runtime.scoring import ScoredModel

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], Array]
"""Measures that many draws: an array of shape (draws, models), NaN where the metric is undefined."""

_CELLS_AT_A_TIME = 1_000_000
"""Counts drawn at a time; it bounds the memory of a chunk to some tens of MiB."""
_DRAWS_AT_A_TIME = 100
"""Where rows are drawn one draw after the other."""
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
    if len(models[0].true) >= _MIN_ROWS_FOR_THREADS:
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


def _drawn_rows(random: np.random.Generator, rows: int, draws: int) -> Iterator[Array]:
    """Give the row numbers of each draw, in one buffer: new memory for every draw would cost more than the draw."""
    numbers, chosen = np.empty(rows), np.empty(rows, dtype=np.int64)
    for _ in range(draws):
        random.random(out=numbers)
        np.multiply(numbers, rows, out=chosen, casting="unsafe")
        yield chosen


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
        positions = range(len(classes.labels)) if classes.positive is None else [classes.positive]
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
    """Draw rows and average the columns that the metric is made of."""
    true, rows = models[0].true, len(models[0].true)
    columns = [_row_losses(model, metric) for model in models]
    if metric == "r2":
        centred = true - true.mean()
        columns += [centred, centred**2]

    def draw(random: np.random.Generator, size: int) -> Array:
        means, taken = np.empty((size, len(columns))), np.empty(rows)
        for number, chosen in enumerate(_drawn_rows(random, rows, size)):
            for position, column in enumerate(columns):
                means[number, position] = column.take(chosen, out=taken, mode="clip").mean()
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
        self.positives, negatives = rows[positive], rows[~positive]
        self.negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        ordered, own = scores[self.negatives], scores[self.positives]
        self.below = np.searchsorted(ordered, own, side="left")
        """Per positive row: how many negative rows have a lower score."""
        up_to = np.searchsorted(ordered, own, side="right")
        self.up_to = None if np.array_equal(up_to, self.below) else up_to
        """Or an equal one; None when no score is shared by a positive and a negative row."""

    def wins(self, counts: Array, positives: Array, scratch: Scratch) -> float:
        """Count pairs of a positive and a negative row in which the positive one has the higher score; ties are half.

        :param counts: how many times each row was drawn; shape (rows,), 64-bit integers.
        :param positives: of these the positive rows'.
        :param scratch: overwritten.
        """
        size = len(self.negatives)
        negatives = counts.take(self.negatives, out=scratch.taken[:size], mode="clip")
        up_to = scratch.summed[: size + 1]
        np.cumsum(negatives, out=up_to[1:])
        beaten = scratch.taken[: len(self.positives)]
        total = np.einsum("i,i", positives, up_to.take(self.below, out=beaten, mode="clip"))
        if self.up_to is None:
            return float(total)
        return float(total + np.einsum("i,i", positives, up_to.take(self.up_to, out=beaten, mode="clip"))) / 2


class Scratch:
    """Memory that one thread uses again and again."""

    def __init__(self, rows: int) -> None:
        """Make room for so many rows."""
        self.taken = np.empty(rows, dtype=np.int64)
        self.summed = np.zeros(rows + 1, dtype=np.int64)


def rankings(model: ScoredModel) -> list[Ranking]:
    """Sort a classifier's probabilities: of the positive class, or of each one when there are more than two."""
    classes, probabilities = model.classes, model.probabilities
    if classes is None or probabilities is None:
        return []
    positions = range(len(classes.labels)) if classes.positive is None else [classes.positive]
    return [Ranking(model.true == position, probabilities[:, position]) for position in positions]


def _draw_areas(models: Sequence[ScoredModel]) -> Draw:
    sorted_once = [rankings(model) for model in models]
    rows = len(models[0].true)

    def measure(counts: Array, scratch: Scratch) -> Array:
        areas = np.empty((len(models), len(sorted_once[0])))
        for position, of_class in enumerate(zip(*sorted_once, strict=True)):
            positives = counts.take(of_class[0].positives)
            pairs = int(positives.sum()) * (rows - int(positives.sum()))
            areas[:, position] = [
                ranking.wins(counts, positives, scratch) / pairs if pairs else np.nan for ranking in of_class
            ]
        return np.asarray(areas.mean(axis=1))

    def draw(random: np.random.Generator, size: int) -> Array:
        scratch = Scratch(rows)
        drawn = (np.bincount(chosen, minlength=rows) for chosen in _drawn_rows(random, rows, size))
        return np.array([measure(counts, scratch) for counts in drawn])

    return draw
