"""The bootstrap: the same answers as drawing row by row, whatever is drawn instead."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sk

from airflow_mcp.work.measures import bootstrap
from airflow_mcp.work.measures.bootstrap import Ranking, Scratch, resample
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.scoring import ScoredModel

NOTHING: Any = None  # resampling asks a scored model for its answers only


def classifier(
    true: np.ndarray[Any, Any], random: np.random.Generator, classes: int = 2, *, ties: bool = False
) -> ScoredModel:
    """Make answers that are better than chance and disagree among models."""
    scores = random.normal(size=(len(true), classes)) + 1.2 * np.eye(classes)[true]
    scores = np.round(scores, 0) if ties else scores
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    known = Classes(tuple(range(classes)), 1 if classes == 2 else None)
    return ScoredModel(NOTHING, None, true, probabilities.argmax(axis=1), known, probabilities)


def regressor(true: np.ndarray[Any, Any], random: np.random.Generator) -> ScoredModel:
    return ScoredModel(NOTHING, None, true, true + random.normal(size=len(true)))


def pair(metric: str, rows: int = 300, classes: int = 2) -> list[ScoredModel]:
    random = np.random.default_rng(5)
    if metric in ("mae", "rmse", "r2"):
        true = random.normal(3, 2, rows)
        return [regressor(true, random), regressor(true, random)]
    labels = random.integers(0, classes, rows)
    return [classifier(labels, random, classes), classifier(labels, random, classes)]


CASES = [
    *((metric, 2) for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")),
    *((metric, 4) for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")),
    *((metric, 0) for metric in ("mae", "rmse", "r2")),
]


def by_rows(models: list[ScoredModel], metric: str, draws: int) -> np.ndarray[Any, Any]:
    """Draw rows and measure each draw with the metric's own definition."""
    random, rows = np.random.default_rng(6), len(models[0].true)
    found = []
    for _ in range(draws):
        chosen = random.integers(0, rows, rows)
        found.append([model.part(chosen).measure().metrics[metric] for model in models])
    return np.array(found)


@pytest.mark.parametrize(("metric", "classes"), CASES)
def test_the_distribution_is_that_of_drawing_rows(metric: str, classes: int) -> None:
    models = pair(metric, classes=classes)
    ours, theirs = resample(models, metric, 2000, seed=1), by_rows(models, metric, 120)
    measured = [model.measure().metrics[metric] for model in models]
    for one, other in ((ours, theirs), (ours[:, 0] - ours[:, 1], theirs[:, 0] - theirs[:, 1])):
        spread = other.std(axis=0)
        assert one.std(axis=0) == pytest.approx(spread, rel=0.25)
        assert np.all(np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4 * spread / np.sqrt(120))
    assert np.all(np.abs(ours.mean(axis=0) - measured) < ours.std(axis=0) / 2)


@pytest.mark.parametrize(("metric", "classes"), CASES)
def test_a_resample_in_which_every_row_is_drawn_once_gives_the_metric_itself(
    metric: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pair(metric, rows=60, classes=classes)
    every = np.ones(60, dtype=np.uint8)
    monkeypatch.setattr(bootstrap, "_drawn_counts", lambda random, rows, draws: iter([every] * draws))

    class EveryCellAsMeasured:
        def __init__(self, bits: Any) -> None:
            pass

        def multinomial(self, rows: int, shares: Any, size: int) -> Any:
            return np.tile(np.round(rows * shares).astype(int), (size, 1))

    monkeypatch.setattr(np.random, "Generator", EveryCellAsMeasured)
    expected = [model.measure().metrics[metric] for model in models]
    assert resample(models, metric, 3, seed=0) == pytest.approx(np.array([expected] * 3), abs=1e-12)


def test_an_answer_of_the_table_and_one_that_is_looked_up_together_are_a_poisson_distribution_of_two_rows() -> None:
    table = bootstrap._CountTable(0.97)
    pairs, upper = table._pairs, np.concatenate([[0.0], table._upper])
    poisson = scipy.stats.poisson(0.97).pmf(np.arange(256))
    assert np.diff(upper) == pytest.approx(poisson[pairs % 256] * poisson[pairs // 256], rel=1e-9, abs=1e-15)
    answered = table._cells != bootstrap._NO_ANSWER
    assert 0.001 > 1 - answered.mean() > 0
    cells = np.flatnonzero(answered)
    for edge in (cells, cells + 1 - 1e-9):  # where a cell begins and ends, the distribution gives the same answer
        found = pairs[np.searchsorted(table._upper, edge / bootstrap._CELLS, side="right")]
        assert np.array_equal(found, table._cells[cells])


@pytest.mark.parametrize("rows", [255, 256, 257, 1001, 20_000])
def test_counts_are_those_of_as_many_draws_as_there_are_rows(rows: int) -> None:
    drawn = np.array([counts.astype(int) for counts in bootstrap._drawn_counts(np.random.default_rng(2), rows, 400)])
    assert np.all(drawn.sum(axis=1) == rows)
    found = np.bincount(drawn.ravel(), minlength=9)[:9]
    expected = scipy.stats.binom(rows, 1 / rows).pmf(np.arange(9)) * drawn.size
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected) + 5)
    halves = drawn[:, : rows // 2].sum(axis=1)  # of the draws, about half fall into half of the rows
    share = (rows // 2) / rows
    assert halves.std() == pytest.approx(np.sqrt(rows * share * (1 - share)), rel=0.2)
    assert abs(halves.mean() - rows * share) < 5 * np.sqrt(rows / 4 / 400)
    first_and_last = np.abs(drawn[:, [0, -1]].mean(axis=0) - 1)
    assert np.all(first_and_last < 5 / np.sqrt(400))


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
def test_weighted_wins_are_those_of_repeated_rows(ties: bool) -> None:
    random = np.random.default_rng(3)
    model = classifier(random.integers(0, 2, 200), random, ties=ties)
    scores = model.probabilities[:, 1]  # type: ignore[index]
    counts = random.integers(0, 4, 200, dtype=np.uint8)
    ranking = Ranking(model.true == 1, scores)
    assert (ranking.up_to is not None) is ties
    positives = counts[ranking.positives].astype(np.int64)
    pairs = positives.sum() * (int(counts.sum()) - positives.sum())
    area = ranking.wins(counts, positives, Scratch(200)) / pairs
    assert area == pytest.approx(sk.roc_auc_score(np.repeat(model.true, counts), np.repeat(scores, counts)))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "roc_auc"])
def test_the_seed_decides_and_the_number_of_cpus_does_not(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_MIN_ROWS_FOR_THREADS", 1)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_A_TIME", 7)
    models = pair(metric)
    found = []
    for cpus in (1, 4):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cpus=cpus: set(range(cpus)))
        found.append(resample(models, metric, 50, seed=9))
    assert found[0].tolist() == found[1].tolist()
    assert resample(models, metric, 50, seed=10).tolist() != found[0].tolist()


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_all_resamples_are_drawn_when_they_do_not_fill_the_last_chunk(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_CELLS_AT_A_TIME", 70)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_A_TIME", 7)
    assert resample(pair(metric), metric, 101, seed=0).shape == (101, 2)


@pytest.mark.parametrize("metric", ["precision", "recall", "roc_auc"])
def test_a_draw_without_a_positive_row_is_undefined_and_never_a_number(metric: str) -> None:
    true = np.array([1] + [0] * 20)
    scores = np.linspace(0, 1, 21)
    model = ScoredModel(NOTHING, None, true, true, Classes((0, 1), 1), np.stack([1 - scores, scores], axis=1))
    drawn = resample([model], metric, 2000, seed=0)[:, 0]
    assert np.isnan(drawn).mean() == pytest.approx((20 / 21) ** 21, abs=0.05)


def test_draws_of_one_value_only_leave_r2_undefined() -> None:
    true = np.array([1.0, 2.0])
    drawn = resample([ScoredModel(NOTHING, None, true, np.array([1.1, 2.1]))], "r2", 400, seed=0)[:, 0]
    assert np.isnan(drawn).mean() == pytest.approx(0.5, abs=0.1)
    assert np.nanmax(drawn) == pytest.approx(1 - 0.01 / 0.25)
