"""The bootstrap (Efron 1979): draw the rows with replacement, thousands of times, and measure each resample.

All models are measured on the same resamples, so that chance affects them equally. Instead of rows, the number of times
each row is in a resample is drawn, which has the same distribution:

* metrics of predicted classes depend only on the number of rows per (label, predictions); these counts are multinomial,
  and are drawn directly;
* metrics that are functions of means (log loss, errors) are means of columns, weighted by the counts;
* for ROC AUC the rows are sorted by score once, so that each AUC takes two passes over the counts.

Resamples are drawn in chunks, each with its own random generator, on the CPUs of this process. Neither the number of
CPUs nor the order of the chunks changes the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from airflow_mcp.work.measures.classes import Array, Classes
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.run.process import cpu_count

Draw = Callable[[np.random.Generator, int], Array]
"""Draws so many resamples and measures them: shape (draws, models), NaN where the metric is undefined."""

_CELLS_AT_A_TIME = 1_000_000
"""Counts per chunk: bounds the memory of a chunk to some tens of MiB."""
_DRAWS_AT_A_TIME = 100
"""Draws per chunk, for metrics whose draws are made one by one."""
_FEW_ROWS = 256
"""Rows below which the counts are drawn from the multinomial distribution itself."""
_HIGHEST_COUNT = 25
"""A Poisson count of mean 1 is higher with probability 1e-27, far below the 53 bits of a random double."""
_MANY_ROWS = 2**32 // (_HIGHEST_COUNT + 1)
"""Rows up to which 32 bits hold the sum of all counts; summing is then twice as fast."""
_CELLS = 2**16
"""Cells of the table of counts, one for each value of 16 random bits."""
_NO_ANSWER = 0xFFFF
"""Marks a cell with more than one possible pair of counts."""
_MAX_THREADS = 8
"""Largest number of threads."""
_MIN_ROWS_FOR_THREADS = 10_000
"""Rows below which threads wait for each other more than they work."""


def resample(models: Sequence[ScoredModel], metric: str, resamples: int, seed: int) -> Array:
    """Measure a metric on resamples of the rows.

    :param models: models with predictions for the same rows.
    :param metric: metric that is defined on all rows for every model.
    :param resamples: number of resamples.
    :param seed: the same seed gives the same result.
    :return: shape (resamples, models); NaN where the metric is undefined on a resample.
    """
    chunk, threads = _DRAWS_AT_A_TIME, 1
    if len(models[0].true) >= _MIN_ROWS_FOR_THREADS and metric != "roc_auc":  # for AUC two threads are slower than one
        threads = min(_MAX_THREADS, cpu_count())
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
    """Yield, per draw, how often each row is in it. The buffer is reused: new memory would cost more than the draw.

    :return: arrays of shape (rows,); 8-bit integers for many rows, 64-bit integers for few.
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
        np.add.at(
            counts, random.integers(0, rows, missing), np.uint8(1)
        )  # an addend of another type takes 20 times as long
        yield counts[:rows]


class _CountTable:
    """Independent Poisson counts for two rows at a time, looked up with 16 random bits (inverse transform sampling).

    Given their sum, independent Poisson counts are multinomial: they are how often each row was drawn in that many
    draws (Devroye 1986, chapter XI.1.4). Their mean is a little below 1, so that the sum hardly ever exceeds the rows;
    if it does, all are drawn anew, which depends only on the sum. The few missing draws are then made one by one.

    A cell of the table on the border between two pairs of counts has no answer. Bits that hit one (1 in 500) are
    extended by 53 more and looked up in the distribution itself, so that the result is exact.
    """

    def __init__(self, mean: float) -> None:
        """Make the table for counts of a mean of at most 1."""
        counts = np.arange(_HIGHEST_COUNT + 1)
        one = np.exp(counts * np.log(mean) - mean - np.array([math.lgamma(count + 1) for count in counts]))
        both = np.outer(one, one).ravel()
        order = np.argsort(-both, kind="stable")  # rare pairs next to each other leave fewer cells without an answer
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
        """Return the table for so many rows; its sum is 3 standard deviations below the rows on average."""
        return cls(1 - 3 / math.sqrt(rows))

    def draw(self, random: np.random.Generator, counts: Array, rows: int) -> int:
        """Draw counts.

        :param random: random generator.
        :param counts: array of even length, ``rows`` or one more; overwritten.
        :param rows: number of rows.
        :return: sum of the counts over the rows.
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
    """Draw the number of rows in each cell of (label, prediction of each model)."""
    answers = [models[0].true, *(model.predicted for model in models)]
    places = answers[0].astype(np.int64)
    for answer in answers[1:]:  # the order of the cells is that of (label, predictions)
        _, places = np.unique(places * (int(answer.max()) + 2) + (answer + 1), return_inverse=True)
    _, first, counts = np.unique(places, return_index=True, return_counts=True)
    rows = int(counts.sum())
    true, predictions = answers[0][first], np.stack([answer[first] for answer in answers[1:]])
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
    """Return precision, recall or F1 of one class, or their mean over several, as :mod:`.metrics` defines them."""
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
    """Average the columns of which the metric is a function, weighted by how often each row was drawn."""
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
    """One model's scores for one class, sorted once, so that each resample is measured in linear time."""

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
        """Number of negative rows with a lower score, per positive row."""
        up_to = np.searchsorted(ordered, scores[own], side="right")
        self.up_to = None if np.array_equal(up_to, self.below) else up_to
        """Number of negative rows with a lower or equal score; None when no positive and negative row share a score."""

    def wins(self, counts: Array, positives: Array, scratch: Scratch) -> float:
        """Count pairs of a positive and a negative row in which the positive one has the higher score; ties count half.

        :param counts: how often each row was drawn; shape (rows,).
        :param positives: the counts of the positive rows, as 64-bit integers.
        :param scratch: memory; overwritten.
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
    """Return consecutive rows as a slice, with which NumPy copies nothing."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return slice(int(rows[0]), int(rows[0]) + len(rows))
    return rows


class Scratch:
    """Memory that one thread reuses."""

    def __init__(self, rows: int) -> None:
        """Allocate memory for so many rows."""
        self.taken = np.empty(rows, dtype=np.int64)
        self.summed = np.zeros(rows + 1, dtype=np.int64)


def rankings(model: ScoredModel, order: Array | None = None) -> list[Ranking]:
    """Sort a classifier's probabilities of the positive class, or of each class when there are more than two.

    :param model: the model.
    :param order: order in which to take the rows; None leaves them unchanged.
    """
    classes, probabilities = model.classes, model.probabilities
    if classes is None or probabilities is None:
        return []
    chosen = slice(None) if order is None else order
    true = model.true[chosen]
    return [Ranking(true == position, probabilities[:, position][chosen]) for position in _measured(classes)]


def _measured(classes: Classes) -> Sequence[int]:
    return range(len(classes.labels)) if classes.positive is None else [classes.positive]


def _draw_areas(models: Sequence[ScoredModel]) -> Draw:
    """Measure areas. The rows are sorted for the first model beforehand: the draw does not depend on their order."""
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
