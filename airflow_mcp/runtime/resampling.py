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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from airflow_mcp.runtime.scoring import ScoredModel

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], Array]
"""Measures that many draws: an array of shape (draws, models), NaN where the metric is undefined."""

_CHUNK_NUMBERS = 1_000_000
"""Numbers drawn at a time; it bounds the memory of a chunk to some tens of MiB."""
_MAX_THREADS = 8


def resample(models: Sequence[ScoredModel], metric: str, resamples: int, seed: int) -> Array:
    """Measure a metric on resamples of the rows.

    :param models: with answers to the same rows.
    :param metric: one that is defined on all rows for every model.
    :param resamples: how many times the rows are drawn.
    :param seed: the same seed gives the same numbers.
    :return: shape (resamples, models); NaN where a draw leaves the metric undefined.
    """
    if metric == "roc_auc":
        draw, size = _draw_areas(models), len(models[0].true)
    elif metric in ("accuracy", "precision", "recall", "f1"):
        draw, size = _draw_cells(models, metric)
    else:
        draw, size = _draw_means(models, metric), len(models[0].true)
    return _in_chunks(draw, resamples, max(1, _CHUNK_NUMBERS // size), seed)


def _in_chunks(draw: Draw, resamples: int, chunk: int, seed: int) -> Array:
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))

    def work(size: int, own: np.random.SeedSequence) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return draw(np.random.Generator(np.random.SFC64(own)), size)

    with ThreadPoolExecutor(min(_MAX_THREADS, len(os.sched_getaffinity(0)))) as threads:
        return np.concatenate(list(threads.map(work, sizes, seeds)))


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
        chosen = random.integers(0, rows, (size, rows))
        means = np.stack([column.take(chosen).mean(axis=1) for column in columns], axis=1)
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

    def wins(self, counts: Array) -> float:
        """Count pairs of a positive and a negative row in which the positive one has the higher score; ties are half.

        :param counts: how many times each row was drawn; shape (rows,), 64-bit integers.
        """
        drawn = np.empty(len(self.negatives) + 1, dtype=np.int64)
        drawn[0] = 0
        np.cumsum(counts.take(self.negatives), out=drawn[1:])
        beaten = drawn.take(self.below)
        if self.up_to is None:
            return float(counts.take(self.positives) @ beaten)
        return float(counts.take(self.positives) @ (beaten + drawn.take(self.up_to))) / 2


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

    def measure(counts: Array) -> list[float]:
        areas = np.empty((len(models), len(sorted_once[0])))
        for position, of_class in enumerate(zip(*sorted_once, strict=True)):
            positives = int(counts.take(of_class[0].positives).sum())
            pairs = positives * (rows - positives)
            areas[:, position] = [ranking.wins(counts) / pairs if pairs else np.nan for ranking in of_class]
        return list(areas.mean(axis=1))

    def draw(random: np.random.Generator, size: int) -> Array:
        return np.array([measure(np.bincount(random.integers(0, rows, rows), minlength=rows)) for _ in range(size)])

    return draw
